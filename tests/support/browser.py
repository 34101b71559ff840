"""A real browser without a window: Debian's `chromium`, spoken to by its DevTools protocol.

The protocol is Chrome's own (https://chromedevtools.github.io/devtools-protocol), over pipes: a
JSON object and a NUL for each message.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any, Dict, List, Tuple

_SECONDS = 60


class Browser:
    """Chromium with a profile of its own in `folder`, for the time of a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        self._received = b""
        self._events: List[Dict[str, Any]] = []

    def __enter__(self) -> Browser:
        self.folder.mkdir(parents=True)
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        command = ["chromium", "--headless", "--disable-gpu", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update"]
        command += ["--hide-scrollbars", "--force-color-profile=srgb", "--disable-dev-shm-usage"]
        command += [f"--user-data-dir={self.folder}/profile", "--remote-debugging-pipe"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")
        self._log = (self.folder / "log").open("wb")

        def place() -> None:
            """It reads from file descriptor 3 and writes to 4, either of which may be the other."""
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_read, to_write)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)
            os.close(high[0])
            os.close(high[1])

        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            close_fds=False,  # what Python opens is not inherited anyway
            preexec_fn=place,
            start_new_session=True,
            env={**os.environ, "HOME": str(self.folder)},
        )
        os.close(to_read)
        os.close(to_write)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)  # which ends it
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        # What it has started, too, which is in a process group of its own.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        os.close(self._from)
        self._log.close()

    def page(self, url: str, *, width: int, height: int, dark: bool = False) -> Page:
        """A page that has been loaded, on a screen of that size in CSS pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, [])
        page.call("Page.enable")
        page.call("Network.enable")
        page.call("Log.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Page.navigate", url=url)
        self._wait("Page.loadEventFired", session)
        for event in self._events:
            if event.get("sessionId") == session:
                if event["method"] == "Network.requestWillBeSent":
                    page.requests.append(event["params"]["request"]["url"])
        return page

    def call(self, method: str, session: str = "", **params: Any) -> Dict[str, Any]:
        self._number += 1
        message: Dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                result: Dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _wait(self, event: str, session: str) -> None:
        def is_there() -> bool:
            return any(
                one.get("method") == event and one.get("sessionId") == session
                for one in self._events
            )

        while not is_there():
            self._events.append(self._receive())

    def _receive(self) -> Dict[str, Any]:
        deadline = time.monotonic() + _SECONDS
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self._from, 1 << 16) if ready else b""
            if not data:
                raise AssertionError(
                    "the browser does not answer:\n"
                    + (self.folder / "log").read_text(errors="replace")
                )
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        answer: Dict[str, Any] = json.loads(message)
        return answer


class Page:
    """A loaded page; `requests` is what was asked for, itself included."""

    def __init__(self, browser: Browser, session: str, requests: List[str]) -> None:
        self._browser = browser
        self._session = session
        self.requests = requests

    def call(self, method: str, **params: Any) -> Dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which must be one of JSON's."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, file: Path) -> bytes:
        """Write a PNG of the whole page, however long, and return it."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        png = base64.b64decode(data)
        file.write_bytes(png)
        return png


def png_lines(png: bytes) -> Tuple[int, int, List[bytes]]:
    """The width and height of a PNG and its lines of pixels, as filtered as they are in it.

    Source: the PNG specification (W3C), "Datastream structure" and "Filtering".
    """
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    width = height = 0
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        data = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
        elif kind == b"IDAT":
            packed += data
        at += 12 + size
    pixels = zlib.decompress(packed)
    line = len(pixels) // height
    return width, height, [pixels[n * line : (n + 1) * line] for n in range(height)]
