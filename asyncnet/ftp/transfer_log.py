"""The transfer log: a line for each file that came or went, in the form of xferlog(5), which log analysers read.

`asyncnet.ftp.transfers` is the logger; the command sends it to standard error, or to a file of its own. A name that a
client has chosen can forge no line: what is not printable, and every blank, is an underscore, as wu-ftpd did it.
"""

from __future__ import annotations

import logging
import time

transfer_logger = logging.getLogger("asyncnet.ftp.transfers")


def xferlog_line(
    *,
    now: float,
    seconds: float,
    host: str,
    size: int,
    path: str,
    is_ascii: bool,
    direction: str,
    user: str,
    is_anonymous: bool,
    is_complete: bool,
) -> str:
    """One line. `direction` is "o" for what was sent, "i" for what was received, "d" for what was deleted.

    `Wed Nov 25 23:59:59 2026 1 192.0.2.1 1048576 /a_file b _ o r anna ftp 0 * c`
    """
    return " ".join(
        (
            time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(now)),
            str(max(1, round(seconds))),
            _column(host),
            str(size),
            _column(path),
            "a" if is_ascii else "b",
            "_",
            direction,
            "a" if is_anonymous else "r",
            _column(user),
            "ftp",
            "0",
            "*",
            "c" if is_complete else "i",
        )
    )


def _column(text: str) -> str:
    if text.isprintable() and " " not in text:
        return text or "-"
    return "".join(c if c.isprintable() and not c.isspace() else "_" for c in text) or "-"
