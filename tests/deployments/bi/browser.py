"""A real Chromium without a window, driven by its own protocol, that notes what a page asks for."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")


@dataclass(slots=True)
class Page:
    """One page, and each request that it made, by the browser's number for it."""

    _socket: ClientConnection
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    _calls: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A call of the protocol; events that arrive meanwhile are noted."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._calls:
                assert "error" not in message, message
                answer: dict[str, Any] = message["result"]
                return answer
            self._note(message)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; of a promise, what it resolves to."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, condition: str, *, seconds: float = 90) -> None:
        """Until an expression in the page is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < deadline, self.evaluate("document.body.innerText")[:2000]
            time.sleep(0.2)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def body(self, request_id: str) -> str:
        """What came back for a request."""
        return str(self.call("Network.getResponseBody", requestId=request_id)["body"])

    def screenshot(self, path: Path) -> None:
        """What is seen of the page, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        facts = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests[facts["requestId"]] = {
                "url": facts["request"]["url"],
                "post": facts["request"].get("postData"),
            }
        elif message.get("method") == "Network.responseReceived" and facts["requestId"] in self.requests:
            self.requests[facts["requestId"]]["status"] = facts["response"]["status"]
        elif message.get("method") == "Network.loadingFailed" and facts["requestId"] in self.requests:
            self.requests[facts["requestId"]]["blocked"] = facts.get("blockedReason")


@contextmanager
def page(folder: Path, *, width: int = 1440, height: int = 1000) -> Iterator[Page]:
    """A page in a browser with a profile of its own."""
    assert CHROMIUM is not None
    profile = folder / "profile"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *_QUIET]
    command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--hide-scrollbars", "about:blank"]
    with open(folder / "chromium.log", "wb") as log:
        browser = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not port_file.exists() or not port_file.read_text().strip():
            assert time.monotonic() < deadline, (folder / "chromium.log").read_text()
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        [target] = [
            each for each in httpx.get(f"http://127.0.0.1:{port}/json", timeout=10).json() if each["type"] == "page"
        ]
        with connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            found = Page(socket)
            for domain in ("Page", "Network", "Runtime"):
                found.call(f"{domain}.enable")
            found.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            yield found
    finally:
        browser.terminate()
        browser.wait(20)
