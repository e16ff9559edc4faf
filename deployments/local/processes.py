"""Start services that outlive the command that started them, find them again, and stop them and nothing else.

A service runs in a session of its own with default signals. What was started is known by its record: the process id,
the moment the process was created (a process id alone is reused by the kernel), and a token in its environment, which
its children inherit.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from deployments.local.errors import LocalStackError
from deployments.local.files import rotate, tail

_TOKEN_VARIABLE = "HEADWATER_SERVICE_TOKEN"  # noqa: S105 (its name, not a secret)
# Both the boot time and the start time that psutil adds up are rounded, and the boot time moves with clock corrections.
_CREATION_TOLERANCE_SECONDS = 2.0
_SIGNALS_TO_RESET = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
)
# Loopback must not go through a proxy that the environment names for the outside world.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Phase(StrEnum):
    """Where a service is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One service as it was started: all that another command needs to find, check and stop it."""

    name: str
    pid: int
    created: float
    token: str
    command: tuple[str, ...]
    fingerprint: str
    log: Path
    log_from: int
    started_at: datetime
    phase: Phase
    health_url: str | None
    stop_seconds: float
    is_optional: bool = False

    def in_phase(self, phase: Phase) -> ProcessRecord:
        """The same record in another phase."""
        return replace(self, phase=phase)


@dataclass(frozen=True, slots=True)
class Service:
    """What to run and how to tell that it works.

    `environment` holds the variables the service needs beyond those it inherits. It is ready when `health_url` answers
    200 and `ready`, if given, says so; `ready` gets the record, to tell this process from an earlier one. Nobody misses
    one that is optional once it has been stopped.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health_url: str | None = None
    ready: Callable[[ProcessRecord], bool] | None = None
    deadline_seconds: float = 60.0
    stop_seconds: float = 15.0
    is_optional: bool = False

    def __post_init__(self) -> None:
        if self.health_url is None and self.ready is None:
            raise ValueError(f"Service `{self.name}` has no sign of health. Give a `health_url` or a `ready` callable.")

    @property
    def fingerprint(self) -> str:
        """Equal for equal command and variables: a running service with another one is out of date."""
        content = json.dumps([self.command, sorted(self.environment.items())])
        return hashlib.sha256(content.encode()).hexdigest()


def spawn(service: Service, *, environment: Mapping[str, str], log: Path, folder: Path) -> ProcessRecord:
    """Start the service in `folder`, its output appended to `log`; returns at once, in phase `starting`.

    `environment` is the whole environment, the service's own variables included. posix_spawn rather than subprocess,
    because it can reset signals that the shell told us to ignore (`nohup`, `&` in a script) without running Python
    between fork and exec, which is not safe while other threads run.
    """
    rotate(log)
    started_at = datetime.now(UTC)
    log_from = log.stat().st_size if log.exists() else 0
    token = secrets.token_hex(16)
    pid = os.posix_spawn(
        "/bin/sh",
        ["/bin/sh", "-c", 'cd -- "$0" && exec "$@"', str(folder), *service.command],
        {**environment, _TOKEN_VARIABLE: token},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=_SIGNALS_TO_RESET,
    )
    return ProcessRecord(
        name=service.name,
        pid=pid,
        created=psutil.Process(pid).create_time(),
        token=token,
        command=service.command,
        fingerprint=service.fingerprint,
        log=log,
        log_from=log_from,
        started_at=started_at,
        phase=Phase.STARTING,
        health_url=service.health_url,
        stop_seconds=service.stop_seconds,
        is_optional=service.is_optional,
    )


def is_running(record: ProcessRecord) -> bool:
    """Whether the very process that was started is alive."""
    _reap(record.pid)
    try:
        return _is_ours(psutil.Process(record.pid), record)
    except psutil.NoSuchProcess:
        return False


def wait_until_ready(service: Service, record: ProcessRecord) -> None:
    """Return when the service is ready; raise, with the end of its log, if it dies or its deadline passes first."""
    deadline = time.monotonic() + service.deadline_seconds
    while True:
        exit_status = _reap(record.pid)
        if not is_running(record):
            outcome = "" if exit_status is None else f" with status {exit_status}"
            raise LocalStackError(
                f"{service.name} ended{outcome} before it was ready.",
                where=f"{' '.join(service.command)}; log: {record.log}",
                remedy="Mend what the log names, then run the same command again.",
                log_tail=tail(record.log, from_byte=record.log_from),
            )
        url = service.health_url
        is_healthy = url is None or (answers(url) and _listens(record, url))
        if is_healthy and (service.ready is None or service.ready(record)):
            return
        if time.monotonic() > deadline:
            raise LocalStackError(
                f"{service.name} (pid {record.pid}) was not ready after {service.deadline_seconds:.0f} s.",
                where=f"{service.health_url or ' '.join(service.command)}; log: {record.log}",
                remedy="If the machine is merely slow, run the same command again: it goes on waiting. Else stop it.",
                log_tail=tail(record.log, from_byte=record.log_from),
            )
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether the URL answers 200 within two seconds."""
    try:
        with DIRECT.open(url, timeout=2.0) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _listens(record: ProcessRecord, url: str) -> bool:
    """Whether it is the service that answers at its address, and not who took the port while it started."""
    port = urlsplit(url).port
    for member in _members(record):
        try:
            connections = member.net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:  # where nobody but root may look, what answers is taken for it
            return True
        if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections):
            return True
    return False


def stop(record: ProcessRecord) -> bool:
    """End the service and every process it started; True if anything had to be ended.

    Its children get SIGTERM first and `stop_seconds` to end in order: a flow run reports to Prefect that it was ended,
    whereas a worker that is told first kills its runs without a word, and they stay "running" for ever. Then the
    service itself gets as much. What is left after that gets SIGKILL.
    """
    if not _members(record):
        return False
    for end, patience, with_leader in (
        (signal.SIGTERM, record.stop_seconds, False),
        (signal.SIGTERM, record.stop_seconds, True),
        (signal.SIGKILL, 5.0, True),
    ):
        members = [member for member in _members(record) if with_leader or member.pid != record.pid]
        for member in members:
            # psutil refuses to signal a process that took over the id since we looked.
            with suppress(psutil.NoSuchProcess):
                member.send_signal(end)
        _wait_until_gone(members, patience)
    survivors = _members(record)
    if survivors:
        raise LocalStackError(
            f"{record.name} does not end, not even by SIGKILL.",
            where=", ".join(f"pid {member.pid}" for member in survivors),
            remedy="It hangs in the kernel (a stuck disk or network mount?); look at `ps -o pid,stat,wchan,cmd`.",
        )
    return True


def _members(record: ProcessRecord) -> list[psutil.Process]:
    """The living processes of this start: the service, and what it started, also if that outlived it.

    Not a matter of process groups: Prefect's worker gives every flow run a session of its own.
    """
    _reap(record.pid)
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if _is_ours(process, record):
                members.append(process)
    return members


def _is_ours(process: psutil.Process, record: ProcessRecord) -> bool:
    """Whether this process belongs to the start that the record describes.

    The token decides where the environment can be read, the creation time where it cannot. The latter alone would call
    a service foreign after the clock was set (a virtual machine that slept), and says nothing about the children of a
    dead one.
    """
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    with suppress(psutil.AccessDenied, OSError):
        environment = process.environ()
        # Empty for a moment while a process replaces its program.
        if environment:
            return environment.get(_TOKEN_VARIABLE) == record.token
    same_moment = abs(process.create_time() - record.created) < _CREATION_TOLERANCE_SECONDS
    return process.pid == record.pid and same_moment


def _wait_until_gone(members: list[psutil.Process], seconds: float) -> None:
    """Wait until all have ended. A zombie counts as ended: in a container, process 1 may be slow to bury them."""
    deadline = time.monotonic() + seconds
    while members and time.monotonic() < deadline:
        time.sleep(0.02)
        members = [member for member in members if _is_alive(member)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _reap(pid: int) -> int | None:
    """Collect a child of ours that ended, which would otherwise linger as a zombie; its exit status if there is one."""
    with suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
    return None
