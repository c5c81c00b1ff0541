"""asyncnet: network services for Trio. A server is a handler, a client a context manager; both speak through Stream."""

__version__ = "0.1.0"
