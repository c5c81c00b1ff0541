"""uvloop: the asyncio streams server, on uvloop's event loop."""

from __future__ import annotations

import uvloop

from benchmarks.servers.asyncio_streams import main

if __name__ == "__main__":
    uvloop.run(main())
