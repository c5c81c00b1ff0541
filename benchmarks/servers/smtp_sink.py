"""Postfix's smtp-sink, which throws away what it takes and looks at little of it: how fast C is at the same."""

from __future__ import annotations

import os

from benchmarks.servers import announce, free_port

if __name__ == "__main__":
    port = free_port()
    announce(port)
    os.execvp("smtp-sink", ["smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "100"])
