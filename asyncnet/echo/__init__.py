"""The simplest services: echo and its kin (RFC 862 to 868), and a program's stdin and stdout on a stream."""

from asyncnet.echo.server import EchoHandler as EchoHandler
