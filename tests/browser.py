"""A real Chromium without a window, for tests that look at a page: from the path, or unpacked into `.venv/chromium` by
`make test`.

It is spoken to in its own DevTools protocol over a socket on loopback, so that nothing but the browser has to fit: no
driver of the same version, and no package for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

UNPACKED = Path(sys.prefix) / "chromium"
_START_SECONDS = 60
_ANSWER_SECONDS = 60


def found() -> list[str] | None:
    """The command that starts a browser on this machine; None if there is none."""
    if configured := os.environ.get("HEADWATER_TEST_CHROMIUM"):
        return [configured]
    unpacked = UNPACKED / "usr/lib/chromium/chromium"
    if unpacked.exists():
        return [str(unpacked)]
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return [path]
    return None


class Tab:
    """One page of the browser, and what it asked for and complained of."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.requests: list[str] = []
        """Addresses that were asked for, the page's own among them."""
        self.complaints: list[str] = []
        """Errors of scripts, and what the content security policy refused."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, address: str) -> None:
        """Go to a page, and wait until it is there."""
        self.requests.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=address)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript; of a promise what it comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def show(self, *, width: int = 1280, height: int = 900, dark: bool = False, still: bool = False) -> None:
        """How large the window is, and what its owner prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 700)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        features.append({"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"})
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path, selector: str | None = None) -> None:
        """Save what is seen, or one element of it, as PNG."""
        clip: dict[str, Any] = {}
        if selector is not None:
            place = self.run(
                f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
                " return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}; })()"
            )
            clip = {"clip": {**place, "scale": 1}, "captureBeyondViewport": True}
        path.write_bytes(b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"]))

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=_ANSWER_SECONDS))
        parameters = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        return message


@contextmanager
def browser(command: list[str]) -> Iterator[Tab]:
    """A browser with one page, for as long as it is needed; it may reach loopback and files alone."""
    with tempfile.TemporaryDirectory(prefix="headwater-chromium-", ignore_cleanup_errors=True) as folder:
        libraries = UNPACKED / "usr/lib"
        paths = [str(path) for path in libraries.glob("*-linux-gnu*")] if command[0].startswith(str(UNPACKED)) else []
        process = subprocess.Popen(
            [
                *command,
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
                *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--lang=en", "--mute-audio"),
                *(f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"),
            ],
            env={**os.environ, **({"LD_LIBRARY_PATH": ":".join(paths)} if paths else {}), "HOME": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            port = _port(process, Path(folder) / "DevToolsActivePort")
            with connect(_first_page(port), max_size=None, proxy=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port(process: subprocess.Popen[bytes], file: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while not (file.exists() and file.read_text().count("\n")):
        assert process.poll() is None, f"the browser ended at once, with {process.returncode}"
        assert time.monotonic() < deadline, "the browser did not start in time"
        time.sleep(0.05)
    return int(file.read_text().splitlines()[0])


def _first_page(port: int) -> str:
    pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
    return next(str(page["webSocketDebuggerUrl"]) for page in pages if page["type"] == "page")
