"""Headless Chromium, driven as a person would: its DevTools protocol over our own WebSocket client."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from asyncnet.http.websocket import WebSocket, WebSocketLimits, connect_websocket

OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
    # Nothing but this machine: no name is looked up.
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "--ignore-certificate-errors"),
    "--remote-debugging-port=0",
]
DEADLINE = 30


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """Run the browser for the length of the block, which gets the URL of its DevTools."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    command = [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = []
            while not (line := process.stderr.readline()).startswith("DevTools listening on "):
                assert line, f"chromium has ended: {lines}"
                lines.append(line)
            complaints = threading.Thread(target=process.stderr.read, daemon=True)
            complaints.start()
            yield line.split()[-1]
            process.terminate()
            process.wait(DEADLINE)
            complaints.join(DEADLINE)
        finally:
            process.kill()


class DevTools:
    """A connection to the browser: commands and their answers, and the event that a page has been loaded."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._sent = 0
        self._answers: dict[int, trio.MemorySendChannel[Any]] = {}
        self.loaded: dict[str, trio.Event] = {}

    async def receive(self) -> None:
        async for message in self._ws:
            data = json.loads(message)
            if "id" in data:
                self._answers.pop(data["id"]).send_nowait(data)
            elif data["method"] == "Page.loadEventFired":
                self.loaded[data["sessionId"]].set()

    async def call(self, method: str, session: str | None = None, **parameters: object) -> Any:
        self._sent += 1
        self._answers[self._sent], answer = trio.open_memory_channel[Any](1)
        to = {} if session is None else {"sessionId": session}
        await self._ws.send(json.dumps({"id": self._sent, "method": method, "params": parameters, **to}))
        data = await answer.receive()
        assert "error" not in data, f"{method}: {data['error']}"
        return data["result"]

    async def open_tab(self, width: int = 1200, height: int = 800) -> Tab:
        target = await self.call("Target.createTarget", url="about:blank", newWindow=True)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, attached["sessionId"])
        await tab.call("Page.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await tab.call("Emulation.setDeviceMetricsOverride", **size)
        return tab


class Tab:
    """A page, and what a person does with it."""

    def __init__(self, devtools: DevTools, session: str) -> None:
        self._devtools = devtools
        self._session = session

    async def call(self, method: str, **parameters: object) -> Any:
        return await self._devtools.call(method, self._session, **parameters)

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[None]:
        """What is done in the block leads to another page, which is there at its end."""
        loaded = self._devtools.loaded[self._session] = trio.Event()
        yield
        await loaded.wait()

    async def go(self, url: str) -> None:
        async with self.loading():
            result = await self.call("Page.navigate", url=url)
            assert "errorText" not in result, f"{url}: {result['errorText']}"

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise's, when it is there."""
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        result = await self.call("Runtime.evaluate", expression=script, **how)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def text(self) -> str:
        """What is to be read on the page."""
        return str(await self.run("document.body.innerText"))

    async def wait(self, condition: str) -> None:
        """Wait until a JavaScript condition holds: it is looked at before each frame is drawn."""
        await self.run(
            f"new Promise(done => {{ const look = () => {condition} ? done() : setTimeout(look, 5); look() }})"
        )

    async def click(self, selector: str) -> None:
        """Press the mouse's button on the middle of the first element that `selector` finds."""
        find = f"document.querySelector({json.dumps(selector)})"
        await self.run(f"{find}.scrollIntoView({{block: 'center'}})")
        box = await self.run(f"{find}.getBoundingClientRect().toJSON()")
        at = {"x": box["left"] + box["width"] / 2, "y": box["top"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    async def type(self, selector: str, text: str) -> None:
        await self.click(selector)
        await self.call("Input.insertText", text=text)

    async def choose_file(self, selector: str, path: Path) -> None:
        root = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def driving(url: str) -> AsyncIterator[DevTools]:
    """Drive the browser whose DevTools are at `url`, in a profile of its own, for 30 seconds at most."""
    with trio.fail_after(DEADLINE):
        async with connect_websocket(url, limits=WebSocketLimits(message=64 << 20)) as ws:
            async with trio.open_nursery() as nursery:
                devtools = DevTools(ws)
                nursery.start_soon(devtools.receive)
                yield devtools
                nursery.cancel_scope.cancel()
