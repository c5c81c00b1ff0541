"""Text that a peer has chosen, made safe for a log and a terminal. Whoever logs such text asks here first."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with every character that is not printable escaped, as Python writes it.

    A line feed would forge a record, an escape would drive a terminal, a character that turns the direction of
    writing would show something else than there is, and a lone surrogate (PEP 383) could not be written at all.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
