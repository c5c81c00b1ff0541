"""The queue's database in SQLite, and all that is SQLite's own: another database takes this module's place.

WAL mode with `synchronous=FULL`: when a commit returns, an fsync of the log has made it durable, and readers in other
processes wait for no writer, and no writer for them. Every transaction that writes takes the lock for that at its start
(BEGIN IMMEDIATE): one that took it later could fail in the middle because somebody else was faster.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from asyncnet.errors import ConfigurationError
from asyncnet.relay import schema
from asyncnet.relay.sql import Connection, Engine, case, create_engine, event

# Behind relay.sql, whose error says what to install.
# isort: split
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import StaticPool

APPLICATION_ID = 0x61736E71
"""What marks a database as ours, in its header: "asnq"."""

LOCK_PATIENCE = 30.0
"""How long, in seconds, somebody else's transaction is waited for: those of the commands take milliseconds."""

CHECKPOINT_PAGES = 4096
"""How long the log grows, in pages of 4 KiB, before it is worked into the database: each time costs two fsyncs."""

MAX_LOG = 64 * 1024 * 1024
"""What the log is cut to when a burst has made it longer, in bytes."""

# What SQLite says where there is no room: SQLITE_FULL for ENOSPC in a write; for EDQUOT, and where a file system finds
# out at the fsync, no more than that this has failed.
_NO_ROOM = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
    )
)

# What is no statement's fault: the disk's, or somebody's who holds the lock.
_OF_THE_DISK = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    )
)


class Database:
    """One connection to the database, for one thread at a time. Everything here waits for the disk."""

    def __init__(self, path: str, *, create: bool = False) -> None:
        """Open it, bring its tables up to date if `create`, and make it where there is none.

        Raises ConfigurationError for what is no queue, is damaged, or was made by a newer asyncnet. Nothing in the
        file has changed then.
        """
        if create:
            _make_private(path)
        else:
            _look_for(path)
        try:
            raw = sqlite3.connect(path, timeout=LOCK_PATIENCE, isolation_level=None, check_same_thread=False)
            # A text that the disk has changed is its row's misfortune (`rows`), and no statement's that meets it.
            raw.text_factory = _decode
            try:
                version = _check_ours(raw, path)
                _configure(raw, path)
                self._raw = raw
                self._engine = _engine(raw)
                self._connection = self._engine.connect()
            except BaseException:
                raw.close()
                raise
            try:
                self._prepare(version, path, create=create)
                self._check_tables()
            except BaseException:
                self.close()
                raise
        except (sqlite3.Error, DBAPIError, UnicodeDecodeError) as error:  # the last one of what SQLite says of damage
            raise _explained(error, path) from error

    @contextmanager
    def transaction(self, *, reads: bool = False) -> Iterator[Connection]:
        """All or nothing. When the block has been left, it is on the disk. What only `reads` keeps nobody from writing.

        Raises OSError for what is the disk's fault and no statement's: with ENOSPC where there is no room.
        """
        try:
            with self._connection.execution_options(reads=reads).begin():
                yield self._connection
        except DBAPIError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0)
            if code in _NO_ROOM:
                raise OSError(errno.ENOSPC, f"the queue's database cannot be written to: {error.orig}") from error
            if code & 0xFF in _OF_THE_DISK:
                raise OSError(errno.EIO, f"the queue's database: {error.orig}") from error
            raise

    def changes_of_others(self) -> int:
        """A number that differs from the last one if another connection has changed the database meanwhile."""
        found: int = self._raw.execute("PRAGMA data_version").fetchone()[0]
        return found

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _check_tables(self) -> None:
        """Find out now whether the disk has changed what they are."""
        with self._connection.execution_options(reads=True).begin():
            for table in schema.metadata.sorted_tables:
                self._connection.execute(table.select().limit(0))

    def _prepare(self, version: int, path: str, *, create: bool) -> None:
        """Have the tables of this version."""
        if version == schema.VERSION:
            return
        if not create:
            raise ConfigurationError(f"{path}: a queue of version {version}, which the relay updates when it starts")
        with self.transaction() as connection:
            if version == 0:
                schema.metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            for step in range(version, schema.VERSION) if version else ():
                schema.STEPS[step](connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {schema.VERSION}")


def _look_for(path: str) -> None:
    """Raise ConfigurationError where there is no file that we may change: SQLite does not say why it cannot open one.

    It is not opened here: closing it would end the locks that SQLite has on it elsewhere in this process.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"{path}: no such file: no queue has been there") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}: {_OWNER_ALONE}") from error
    if not os.access(path, os.R_OK | os.W_OK):
        raise ConfigurationError(f"{path}: {os.strerror(errno.EACCES)}: {_OWNER_ALONE}")


_OWNER_ALONE = "a queue is for the user that its relay runs as"


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _make_private(path: str) -> None:
    """Have an empty file for its owner alone, where there is none: SQLite gives its log the same permissions."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _check_ours(raw: sqlite3.Connection, path: str) -> int:
    """The version of the tables, 0 where there are none yet."""
    version: int = raw.execute("PRAGMA user_version").fetchone()[0]
    application: int = raw.execute("PRAGMA application_id").fetchone()[0]
    is_empty = raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not (is_empty and version == 0):
        raise ConfigurationError(f"{path}: a database of some other program")
    if version > schema.VERSION:
        raise ConfigurationError(
            f"{path}: a queue of version {version}, made by a newer asyncnet: this one knows {schema.VERSION}"
        )
    return version


def _configure(raw: sqlite3.Connection, path: str) -> None:
    mode = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    raw.execute(f"PRAGMA journal_size_limit = {MAX_LOG}")
    if mode != "wal" or raw.execute("PRAGMA synchronous").fetchone()[0] != 2:
        raise ConfigurationError(f"{path}: SQLite cannot write durably there: a file system without shared memory?")


def _engine(raw: sqlite3.Connection) -> Engine:
    """An engine over one connection, which begins transactions as this module says."""
    engine = create_engine("sqlite+pysqlite://", creator=lambda: raw, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options()["reads"] else "BEGIN IMMEDIATE")

    return engine


def _explained(error: sqlite3.Error | DBAPIError | UnicodeDecodeError, path: str) -> ConfigurationError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        advice = "it was left as it is: move it away for the relay to start anew, or restore a copy"
        return ConfigurationError(f"{path}: no database, or a damaged one ({cause}); {advice}")
    if getattr(cause, "sqlite_errorcode", 0) in _NO_ROOM:
        return ConfigurationError(f"{path}: there is no room on the disk, or it fails ({cause})")
    return ConfigurationError(f"{path}: the database cannot be used: {cause}")


@compiles(schema.Key, "sqlite")
def _key_type(*_: object, **__: object) -> str:
    """Only a primary key of the type INTEGER is SQLite's own key of a row."""
    return "INTEGER"


def lower_destinations(connection: Connection, earliest: Mapping[str, float]) -> None:
    """Have `destinations` say that something is due at these as early as that, and no later than it says already."""
    if earliest:
        statement = insert(schema.destinations)
        column, new = schema.destinations.c.next_attempt, statement.excluded.next_attempt
        lowered = statement.on_conflict_do_update(
            index_elements=[schema.destinations.c.name],
            set_={"next_attempt": case((new < column, new), else_=column)},
        )
        connection.execute(lowered, [{"name": name, "next_attempt": when} for name, when in earliest.items()])
