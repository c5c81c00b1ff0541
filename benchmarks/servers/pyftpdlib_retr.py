"""pyftpdlib: anonymous FTP over the folder that the command line names; it sends by `sendfile` where the system can."""

from __future__ import annotations

import logging
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

from benchmarks.servers import announce

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(sys.argv[1])
    FTPHandler.authorizer = authorizer
    server = FTPServer(("127.0.0.1", 0), FTPHandler)
    announce(server.socket.getsockname()[1])
    server.serve_forever()
