"""Twisted: the echo protocol of Twisted's documentation, on the reactor that Twisted chooses."""

from __future__ import annotations

from twisted.internet import endpoints, protocol, reactor

from benchmarks.servers import announce


class Echo(protocol.Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


if __name__ == "__main__":
    endpoint = endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    endpoint.listen(protocol.Factory.forProtocol(Echo)).addCallback(lambda port: announce(port.getHost().port))
    reactor.run()
