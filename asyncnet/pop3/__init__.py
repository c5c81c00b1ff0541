"""POP3: mail fetched from where it was delivered (RFC 1939, and what came after it), with TLS (RFC 2595).

A server is `POP3Handler(mailboxes, users)`, a client `async with POP3Client.connect(url) as pop3`. The names are
imported when they are first asked for, so that a client loads no server.
"""
