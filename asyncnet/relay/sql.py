"""SQLAlchemy, as far as the queue needs it: where it is missing, an error that says what to install.

What is a single database's own is `relay.database`'s matter.
"""

from __future__ import annotations

from asyncnet.errors import ConfigurationError

try:
    from sqlalchemy import (
        BigInteger,
        Boolean,
        Column,
        Connection,
        Engine,
        Float,
        Index,
        Integer,
        LargeBinary,
        MetaData,
        Row,
        Select,
        String,
        Table,
        Text,
        bindparam,
        case,
        cast,
        create_engine,
        delete,
        event,
        exists,
        func,
        literal,
        null,
        select,
        update,
    )
except ImportError as error:
    raise ConfigurationError(f'the queue needs sqlalchemy: pip install "asyncnet[relay]" ({error})') from error

__all__ = [
    "BigInteger",
    "Boolean",
    "Column",
    "Connection",
    "Engine",
    "Float",
    "Index",
    "Integer",
    "LargeBinary",
    "MetaData",
    "Row",
    "Select",
    "String",
    "Table",
    "Text",
    "bindparam",
    "case",
    "cast",
    "create_engine",
    "delete",
    "event",
    "exists",
    "func",
    "literal",
    "null",
    "select",
    "update",
]
