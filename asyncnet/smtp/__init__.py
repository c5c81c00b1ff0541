"""Mail: a server that receives it (RFC 5321, and LMTP, RFC 2033) and a client that sends it.

`server.SMTPHandler` hands what comes to a `delivery.Delivery`; `client.SMTPClient` sends. What keeps mail and passes
it on is in `asyncnet.relay`, where it lies at last in `asyncnet.mailbox`.
"""
