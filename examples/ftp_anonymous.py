"""An anonymous FTP server: everybody may read what is in a folder, and nothing else.

    python examples/ftp_anonymous.py [FOLDER [ENDPOINT]]

Try it with `asyncnet ls ftp://127.0.0.1:2121/`, with curl, or with any other FTP client. Ctrl-C ends it.
"""

from __future__ import annotations

import logging
import sys

from asyncnet import run
from asyncnet.ftp import FTPHandler


def main(folder: str = ".", endpoint: str = "tcp://127.0.0.1:2121") -> None:
    run(FTPHandler(folder, anonymous=True, greeting="These files are for everybody."), endpoint)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("asyncnet.ftp.transfers").setLevel(logging.INFO)  # a line for each file, in xferlog's form
    main(*sys.argv[1:])
