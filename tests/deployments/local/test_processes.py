from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deployments.local import processes
from deployments.local.errors import LocalStackError
from deployments.local.processes import Phase, ProcessRecord, Service

SLEEP = "import time; print('asleep'); time.sleep(60)"
Start = Callable[..., ProcessRecord]


def python(name: str, script: str, **options: object) -> Service:
    """A service that runs a few lines of Python, and is ready at once unless told otherwise."""
    defaults: dict[str, object] = {"ready": lambda _record: True, "stop_seconds": 3.0}
    return Service(name, (sys.executable, "-u", "-c", script), {}, **{**defaults, **options})  # type: ignore[arg-type]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a service; at the end whatever is left of it is ended."""
    started: list[ProcessRecord] = []

    def start(service: Service) -> ProcessRecord:
        record = processes.spawn(
            service, environment=dict(os.environ), log=tmp_path / f"{service.name}.log", folder=tmp_path
        )
        started.append(record)
        return record

    yield start
    for record in started:
        processes.stop(record)


def wait_for_line(record: ProcessRecord, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in (record.log.read_text() if record.log.exists() else ""):
        assert time.monotonic() < deadline, f"{text!r} never appeared in {record.log}"
        time.sleep(0.02)


def test_a_service_runs_detached_in_its_folder_until_it_is_stopped(start: Start, tmp_path: Path) -> None:
    say = "import os, sys; print(os.getcwd(), os.getsid(0) == os.getpid(), sys.stdin.read() == ''); "
    record = start(python("sleeper", say + SLEEP))
    wait_for_line(record, f"{tmp_path} True True")
    assert record.phase is Phase.STARTING
    assert processes.is_running(record)
    assert processes.stop(record)
    assert not processes.is_running(record)
    assert not processes.stop(record)


def test_a_service_ends_by_a_signal_that_its_parent_ignores(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from pathlib import Path
from deployments.local import processes
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
service = processes.Service("sleeper", ("sleep", "60"), {{}}, ready=lambda _: True)
record = processes.spawn(service, environment=dict(os.environ), log=Path({str(tmp_path / "log")!r}), folder=Path("/"))
print(record.pid)
"""
    root = Path(processes.__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    sleeper = psutil.Process(int(result.stdout))
    sleeper.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(sleeper.pid) and sleeper.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_service_that_dies_before_it_is_ready_shows_the_end_of_its_own_log(start: Start) -> None:
    service = python("broken", "print('earlier trouble')", ready=lambda _record: False)
    with pytest.raises(LocalStackError):
        processes.wait_until_ready(service, start(service))
    service = python("broken", "import sys; print('no such table'); sys.exit(3)", ready=lambda _record: False)
    with pytest.raises(LocalStackError, match=r"broken ended with status 3 before it was ready") as caught:
        processes.wait_until_ready(service, start(service))
    assert caught.value.log_tail == ("no such table",)
    assert "no such table" in str(caught.value)


def test_a_command_that_does_not_exist_is_said_so(start: Start) -> None:
    service = Service("nonsense", ("/no/such/program",), {}, ready=lambda _record: False)
    with pytest.raises(LocalStackError, match=r"/no/such/program.*not found"):
        processes.wait_until_ready(service, start(service))


def test_a_service_that_is_not_ready_in_time_is_reported_and_left_running(start: Start) -> None:
    service = python("slow", SLEEP, ready=lambda _record: False, deadline_seconds=0.2)
    record = start(service)
    with pytest.raises(LocalStackError, match=f"pid {record.pid}"):
        processes.wait_until_ready(service, record)
    assert processes.is_running(record)


def test_a_service_without_a_sign_of_health_is_refused() -> None:
    with pytest.raises(ValueError, match="no sign of health"):
        Service("mute", ("sleep", "1"), {})


def test_a_service_that_ignores_sigterm_is_killed(start: Start) -> None:
    record = start(
        python(
            "stubborn",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(60)",
            stop_seconds=0.2,
        )
    )
    wait_for_line(record, "deaf")
    assert processes.stop(record)
    assert not psutil.pid_exists(record.pid)


def test_a_process_that_took_over_the_id_is_neither_found_nor_stopped(start: Start) -> None:
    ours = start(python("ours", SLEEP))
    wait_for_line(ours, "asleep")
    with subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.DEVNULL) as stranger:
        try:
            taken_over = replace(ours, pid=stranger.pid)
            assert not processes.is_running(taken_over)
            # Ours carries the record's token and is ended; the stranger with the recorded id is not.
            processes.stop(taken_over)
            assert stranger.poll() is None
            assert not processes.stop(taken_over)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_later_start_of_the_same_service_is_not_taken_for_an_earlier_one(start: Start) -> None:
    earlier, later = (start(python(name, SLEEP)) for name in ("earlier", "later"))
    wait_for_line(later, "asleep")
    assert not processes.is_running(replace(earlier, pid=later.pid))
    processes.stop(earlier)
    assert processes.is_running(later)


def test_a_clock_that_was_set_does_not_make_a_service_foreign(start: Start) -> None:
    record = start(python("sleeper", SLEEP))
    wait_for_line(record, "asleep")
    assert processes.is_running(replace(record, created=record.created - 3600))


PARENT_WITH_CHILD = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-u", "-c", '''
import signal, sys, time
def end(*_):
    print("child ends")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("child runs")
time.sleep(60)
'''], start_new_session=True)
def end(*_):
    print("parent ends")
    sys.exit()
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(1)
"""


def test_children_are_ended_before_their_parent_even_in_a_session_of_their_own(start: Start) -> None:
    record = start(python("family", PARENT_WITH_CHILD))
    wait_for_line(record, "child runs")
    processes.stop(record)
    assert record.log.read_text().splitlines() == ["child runs", "child ends", "parent ends"]


def test_children_that_outlived_a_killed_service_are_ended_too(start: Start) -> None:
    record = start(python("family", PARENT_WITH_CHILD))
    wait_for_line(record, "child runs")
    os.kill(record.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while processes.is_running(record) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes.is_running(record)
    assert processes.stop(record)
    wait_for_line(record, "child ends")
