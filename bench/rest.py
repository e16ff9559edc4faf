"""REST → raw: a million records of about 349 bytes, a hundred or a thousand a page, from a server on loopback.

The limits are clients that do less: one that downloads page after page and throws it away, where each page takes 20 ms;
one that also decodes it, where none takes any. dlt does the same work, and is asked to take ten times as long.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.results import Result
from bench.scene import Scene

_DLT = "HEADWATER_BENCH_DLT"
_PAGE, _LARGE_PAGE = 100, 1000
"""Records a page: what most APIs give at most (GitHub, Stripe), and what the generous ones do."""
_DLT_SHARE = 2
"""dlt gets one row in so many, and so does Headwater beside it: it takes too long for all."""


def run(scene: Scene, rows: int, rounds: int) -> Iterator[Result]:
    """The benchmarks, one after the other."""
    latency = 20
    yield _against(scene, "rest_latency_20ms", rows, latency, _LARGE_PAGE, rounds, "AT_ONCE", "discard")
    yield _against(scene, "rest_latency_20ms_in_turn", rows, latency, _LARGE_PAGE, rounds, "IN_TURN", "discard")
    yield _against(scene, "rest_no_latency", rows, 0, _PAGE, rounds, "IN_TURN", "parse")
    yield _against(scene, "rest_no_latency_large_pages", rows, 0, _LARGE_PAGE, rounds, "IN_TURN", "parse")
    if python := os.environ.get(_DLT):
        yield _against_dlt(scene, max(_LARGE_PAGE, rows // _DLT_SHARE // _LARGE_PAGE * _LARGE_PAGE), python)


def _against(scene: Scene, name: str, rows: int, latency: int, page: int, rounds: int, way: str, mode: str) -> Result:
    limits, loads = [], []
    with _server(rows, latency, page) as url:
        for _ in range(rounds):
            limits.append(_client(scene, mode, url, page))
            loads.append(_load(scene, url, page, way))
    ratios = [load["wall_s"] / limit["wall_s"] for load, limit in zip(loads, limits, strict=True)]
    return Result(
        name,
        loads[0]["rows"],
        median(load["wall_s"] for load in loads),
        median(limit["wall_s"] for limit in limits),
        median(ratios),
        max(load["peak_mb"] for load in loads),
        f"a client that downloads page after page, {'decodes' if mode == 'parse' else 'reads'} and discards",
    )


def _against_dlt(scene: Scene, rows: int, python: str) -> Result:
    with _server(rows, 0, _LARGE_PAGE) as url:
        loaded = _load(scene, url, _LARGE_PAGE, "IN_TURN")
        scene.fresh_database("dlt")
        theirs = _said([python, str(Path(__file__).with_name("rest_dlt.py")), url, scene.plain("dlt")], {})
    assert theirs["rows"] == loaded["rows"]  # noqa: S101 - or there is nothing to compare
    return Result(
        "rest_dlt", rows, loaded["wall_s"], theirs["wall_s"], loaded["wall_s"] / theirs["wall_s"], loaded["peak_mb"],
        f"dlt, the same pages into the same server (peak {theirs['peak_mb']:.0f} MiB)",
    )  # fmt: skip


def _load(scene: Scene, url: str, page: int, way: str) -> dict[str, Any]:
    scene.fresh_warehouse()
    scene.settle()
    return _client(scene, "load", url, page, way)


def _client(scene: Scene, *arguments: str | int) -> dict[str, Any]:
    return _said([sys.executable, "-m", "bench.rest_clients", *map(str, arguments)], scene.environment)


def _said(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@contextmanager
def _server(rows: int, latency_ms: int, page: int) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-m", "bench.rest_server", str(rows), str(latency_ms), str(page)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None  # noqa: S101 - asked for
        assert server.stdout is not None  # noqa: S101 - asked for
        yield server.stdout.readline().strip()
        server.stdin.close()
