"""The object store of compose.yaml, started as compose.yaml starts it: on other ports, and in another folder.

SeaweedFS comes from the package index, in the version of the image (a test compares them).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from connectors.connections import StoreLocation

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "deployments/containers/compose.yaml"
PROGRAM = Path(sys.executable).with_name("weed")
KEY, SECRET = "headwater", "secret-of-a-test"
_START_SECONDS = 60.0


@contextmanager
def seaweedfs_server(folder: Path) -> Iterator[str]:
    """A running server; its endpoint."""
    command: list[str] = yaml.safe_load(COMPOSE.read_text())["services"]["s3"]["command"]
    assert "-dir=/data" in command
    names = [f"{service}.port{kind}" for service in ("s3", "filer", "volume", "master") for kind in ("", ".grpc")]
    names += ["s3.port.iceberg", "s3.port.lance"]  # of no use here, and the same for every server if they are not named
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    arguments = [
        argument.replace("-dir=/data", f"-dir={folder}").replace("-s3.ip.bind=0.0.0.0", "-s3.ip.bind=127.0.0.1")
        for argument in command
    ]
    arguments += [f"-{name}={port}" for name, port in ports.items()]
    environment = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    log = folder / "weed.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PROGRAM, *arguments], env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        _wait_for(f"{endpoint}/healthz", process, log)
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def _seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with seaweedfs_server(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


@pytest.fixture
def seaweedfs(_seaweedfs: str) -> StoreLocation:
    """A prefix of its own, in a bucket that the first upload makes."""
    options = {"access_key_id": KEY, "secret_access_key": SECRET, "region": "us-east-1", "endpoint": _seaweedfs}
    return StoreLocation(f"s3://headwater/{uuid4().hex}/landing", options)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 (our own server's)
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
