"""asyncnet: network services for Trio. A server is a handler, a client is a context manager, both speak through Stream."""

__version__ = "0.1.0"
