"""Processes that a test kills, stops or cuts off.

What a process imports takes longer than all else it does here, so each is forked from one that has the imports behind
it. It is a process of its own otherwise: its own environment, failpoints, connections and end.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import psutil

from tests.waiting import until

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["hypothesis", "tests.connectors.scene", "tests.connectors.forget.forgetting"])


class Victim:
    """Work that is done in a process of its own, which has its imports behind it when this returns.

    As a context manager it is killed when that is left, if it has not ended.

    Args:
        work: a function of a module, or a `partial` of one with arguments that can be pickled.
        environment: variables of the process, HEADWATER_FAILPOINT for one.
    """

    def __init__(self, work: Callable[[], object], **environment: str) -> None:
        descriptor, self._said = tempfile.mkstemp(prefix="victim-")
        os.close(descriptor)
        ready, begun = _PROCESSES.Pipe(duplex=False)
        self._process = _PROCESSES.Process(target=_run, args=(begun, self._said, environment, work), daemon=True)
        self._process.start()
        begun.close()
        self.pid: int = ready.recv()
        ready.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def is_stopped(self) -> bool:
        return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end.

        Returns:
            The exit code, or the negative number of the signal that ended it.
        """
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"it does not end: {self.said}"
        return code

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill it, if it has not ended by itself; how it ended."""
        self._process.kill()
        return self.wait()

    @property
    def said(self) -> str:
        """What it has written, and the error that ended it."""
        return Path(self._said).read_text()

    def __del__(self) -> None:
        Path(self._said).unlink(missing_ok=True)


def sleeper(name: str, work: Callable[[], object]) -> Victim:
    """A process that has stopped at a named instant."""
    victim = Victim(work, HEADWATER_FAILPOINT=name, HEADWATER_FAILPOINT_SIGNAL="STOP")
    until(lambda: victim.is_stopped, f"it stops at {name}")
    return victim


def kill_at(name: str, work: Callable[[], object]) -> None:
    """Work in a process that is killed at a named instant, which it has to reach."""
    victim = Victim(work, HEADWATER_FAILPOINT=name)
    assert victim.wait(120) == -signal.SIGKILL, (name, victim.said)


def _run(begun: Connection, said: str, environment: dict[str, str], work: Callable[[], object]) -> None:
    log = os.open(said, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.update(environment)
    importlib.reload(sys.modules["connectors.failpoints"])  # it has read another environment
    begun.send(os.getpid())
    work()
