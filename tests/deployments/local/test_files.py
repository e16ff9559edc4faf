from __future__ import annotations

import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.local.errors import LocalStackError
from deployments.local.files import SharedLock, locked, rotate, tail, write_atomically


def test_a_file_is_replaced_whole_with_the_mode_asked_for_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "content"
    write_atomically(path, "first")
    write_atomically(path, b"second", mode=0o640)
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["content"]


def test_a_reader_sees_one_of_the_contents_and_never_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "content"
    contents = {letter * 50_000 for letter in "abc"}
    write_atomically(path, "a" * 50_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(20):
            for content in contents:
                write_atomically(path, content, durable=False)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_text() in contents
    writer.join()


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "content"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lock_that_cannot_be_had_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        locked(path, doing="baking bread", timeout_seconds=1),
        pytest.raises(LocalStackError, match=r"Gave up eating.*baking bread"),
        locked(path, doing="eating", timeout_seconds=0.1),
    ):
        pass
    with locked(path, doing="eating", timeout_seconds=0.1):
        pass


def test_threads_of_one_process_share_a_lock_that_others_wait_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ours, theirs = SharedLock(path, timeout_seconds=0.1), SharedLock(path, timeout_seconds=0.1)
    both_inside = threading.Barrier(2, timeout=5)

    def enter() -> None:
        with ours.hold("a step"):
            both_inside.wait()

    with ours.hold("the whole"):
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(enter) for _ in range(2)]:
                future.result()
        with pytest.raises(LocalStackError, match="the whole"), theirs.hold("another whole"):
            pass
    with theirs.hold("another whole"):
        pass


def test_waiting_for_a_lock_ends_when_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def hold_for_a_moment() -> None:
        with locked(path, doing="holding", timeout_seconds=1):
            held.set()
            time.sleep(0.2)

    held = threading.Event()
    holder = threading.Thread(target=hold_for_a_moment)
    holder.start()
    held.wait(5)
    with locked(path, doing="waiting", timeout_seconds=5):
        pass
    holder.join()


def test_the_tail_of_a_log_begins_where_it_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ()
    log.write_text("old\n")
    size = log.stat().st_size
    log.write_text("old\n" + "".join(f"{number}\n" for number in range(30)))
    assert tail(log, lines=2, from_byte=size) == ("28", "29")
    assert tail(log, lines=100, from_byte=size)[0] == "0"


def test_a_large_log_is_put_aside_and_a_small_one_stays(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    log.write_text("small")
    rotate(log)
    assert log.exists()
    with log.open("wb") as file:
        file.truncate(11 * 1024 * 1024)
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "service.log.1").stat().st_size == 11 * 1024 * 1024
