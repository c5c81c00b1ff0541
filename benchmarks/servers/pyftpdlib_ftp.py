"""pyftpdlib: anonymous FTP over the folder that the command line names, with writing and, given a certificate, TLS."""

from __future__ import annotations

import logging
import warnings

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer

from benchmarks.servers import announce, command_line

if __name__ == "__main__":
    options = command_line("root")
    logging.basicConfig(level=logging.ERROR)
    warnings.simplefilter("ignore")
    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(options.root, perm="elradfmwMT")
    handler = FTPHandler if options.certificate is None else TLS_FTPHandler
    handler.certfile = options.certificate
    handler.authorizer = authorizer
    server = FTPServer(("127.0.0.1", 0), handler)
    announce(server.socket.getsockname()[1])
    server.serve_forever()
