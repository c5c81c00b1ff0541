"""FTP for Trio: RFC 959 and what came after it. A server is `FTPHandler`, a client `FTPClient`."""
