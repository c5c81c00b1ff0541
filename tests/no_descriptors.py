"""Run by a test in a process of its own: a service that runs out of descriptors. Prints what happened, as JSON.

More clients connect than the limit on descriptors has room for, and send a byte each. Time is virtual: it passes in
steps of the pause that the service makes before it tries again, so that its work is counted and not timed.
"""

from __future__ import annotations

import json
import logging
import resource
import socket
from functools import partial

import trio
import trio.testing

from asyncnet import Service, serve
from asyncnet.echo import EchoHandler
from asyncnet.service import NO_ROOM_PAUSE

CROWD, ROOM, PAUSES = 20, 5, 10

settled = partial(trio.testing.wait_all_tasks_blocked, 0.02)
"""Waits until no task has anything to do and no event comes: never, while one spins."""


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


class Records(logging.Handler):
    """Counts what is logged."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def answers(clients: list[socket.socket]) -> int:
    """How many of the clients, in their order, have an answer."""
    for count, client in enumerate(clients):
        try:
            assert client.recv(1) == b"x"
        except BlockingIOError:
            return count
    return len(clients)


async def main(clock: trio.testing.MockClock) -> dict[str, int]:
    steps, records = Steps(), Records()
    logging.getLogger("asyncnet").addHandler(records)
    result = {}
    async with trio.open_nursery() as nursery:
        service: Service = await nursery.start(serve, EchoHandler(), "tcp://127.0.0.1:0")
        address = ("127.0.0.1", int(service.endpoints[0].rpartition(":")[2]))
        clients = [socket.create_connection(address) for _ in range(CROWD)]  # the kernel's queue takes them
        for client in clients:
            client.sendall(b"x")
            client.setblocking(False)
        # Descriptors are given out from below: the last one is the highest.
        limit = clients[-1].fileno() + 1 + ROOM
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        await settled()
        result["answered at first"] = answers(clients)
        trio.lowlevel.add_instrument(steps)
        for _ in range(PAUSES):
            clock.jump(NO_ROOM_PAUSE)
            await settled()
        trio.lowlevel.remove_instrument(steps)
        result["steps for each pause"] = steps.count // PAUSES
        result["records"] = records.count
        result["answered meanwhile"] = answers(clients[ROOM:])
        for client in clients[:ROOM]:
            client.close()
        await settled()
        clock.jump(NO_ROOM_PAUSE)
        await settled()
        result["answered when others had left"] = answers(clients[ROOM:])
        nursery.cancel_scope.cancel()
    return result


if __name__ == "__main__":
    clock = trio.testing.MockClock()
    print(json.dumps(trio.run(main, clock, clock=clock)))
