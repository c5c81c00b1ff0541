"""What a Stream runs over: sockets, TLS, memory, other people's streams, and the ways through proxies."""
