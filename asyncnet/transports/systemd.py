"""Telling systemd how a service is (sd_notify(3)), for units with Type=notify. The command uses it."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send `state`, such as "READY=1", to the socket that NOTIFY_SOCKET names; without one do nothing.

    Nobody waits: if the socket is gone or full, the message is dropped.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.sendto(state.encode(), path.replace("@", "\0", 1) if path.startswith("@") else path)
        except OSError:
            pass
