"""Stand-ins for a Kubernetes API server and for a Docker engine: they keep what a worker asks them for.

Loopback has neither. Each answers only what Prefect's worker needs to start a run, in the words of the real API, and
refuses the rest, so that a worker that asks for more is found out.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CONTAINER_ID = "c0ffee" * 10 + "c0fe"


@dataclass(slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any


@dataclass(slots=True)
class StandIn:
    """A running stand-in."""

    host: str = ""
    asked: list[Asked] = field(default_factory=list)

    def bodies(self, method: str, path: str) -> list[Any]:
        return [each.body for each in self.asked if (each.method, each.path) == (method, path)]


@contextmanager
def kubernetes_api() -> Iterator[StandIn]:
    """Takes jobs."""

    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.method == "POST" and asked.path.startswith("/apis/batch/v1/namespaces/"):
            metadata = {**asked.body["metadata"], "name": f"{asked.body['metadata']['generateName']}abcde"}
            return 201, {**asked.body, "metadata": metadata}
        return 404, {"kind": "Status", "status": "Failure", "code": 404, "message": f"no {asked.path} here"}

    with _served(answer) as stand_in:
        yield stand_in


@contextmanager
def docker_engine() -> Iterator[StandIn]:
    """Has every image, and runs containers that end at once."""

    def answer(asked: Asked) -> tuple[int, Any]:
        path = asked.path.split("/", 2)[2] if asked.path.startswith("/v1.") else asked.path.lstrip("/")
        match asked.method, path.split("/"):
            case "GET", ["version"]:
                return 200, {"Version": "28.5.1", "ApiVersion": "1.51", "MinAPIVersion": "1.24"}
            case "GET", ["images", *_]:
                return 200, {"Id": "sha256:1", "RepoTags": ["registry.example/headwater:1.2.3"]}
            case "POST", ["containers", "create"]:
                return 201, {"Id": CONTAINER_ID, "Warnings": []}
            case "POST", ["containers", _, "start"]:
                return 204, None
            case "POST", ["containers", _, "wait"]:
                return 200, {"StatusCode": 0}
            case "GET", ["containers", _, "json"]:
                return 200, {
                    "Id": CONTAINER_ID,
                    "Name": "/run",
                    "State": {"Status": "running", "ExitCode": 0},
                    "Config": {"Image": "registry.example/headwater:1.2.3", "Labels": {}},
                    "Image": "sha256:1",
                    "HostConfig": {},
                }
            case "GET", ["networks", name]:
                return 200, {"Id": name, "Name": name}
            case "POST", ["networks", _, "connect"]:
                return 200, None
        return 404, {"message": f"no {path} here"}

    with _served(answer) as stand_in:
        yield stand_in


@contextmanager
def _served(answer: Any) -> Iterator[StandIn]:
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, parts.path, parse_qs(parts.query), json.loads(sent) if sent else None)
            stand_in.asked.append(asked)
            status, body = answer(asked)
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815 (as the base class looks for them)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
