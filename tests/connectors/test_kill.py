"""A load killed at any instant: raw is as it was or as it should be, no reader sees more or less, a rerun mends it.

`make test` kills at each named instant; `make chaos` does so for every write disposition, and at random instants.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from connectors.failpoints import FAILPOINTS
from tests.connectors.scene import COMMITTED, WRITES, Scene, Watcher


def instants() -> list[object]:
    """Every instant for `merge`; for the others, in the short form, those where they differ."""
    differs = ("chunk-landed", "rows-written", "load-recorded", "committed")
    return [
        pytest.param(write, name, marks=() if write == "merge" or name in differs else pytest.mark.chaos)
        for write in ("first", *WRITES)
        for name in FAILPOINTS
    ]


@pytest.mark.parametrize(("scene", "name"), instants(), indirect=["scene"])
def test_a_kill_at_a_named_instant_leaves_all_or_nothing(scene: Scene, name: str) -> None:
    with Watcher(scene):
        process = scene.process(HEADWATER_FAILPOINT=name)
        assert process.wait() == -signal.SIGKILL, process.said
        scene.check_after_kill(committed=FAILPOINTS.index(name) >= COMMITTED)
        scene.check_after_rerun()


@pytest.mark.chaos
@pytest.mark.parametrize("part", range(7))
@pytest.mark.parametrize("scene", WRITES, indirect=True)
def test_kills_at_random_instants_lose_nothing_and_double_nothing(
    scene: Scene, part: int, record_property: Callable[[str, object], None]
) -> None:
    seconds = scene.seconds()
    killed = 0
    with Watcher(scene) as watcher:
        begun = time.monotonic()
        for number in range(10):
            scene.change()
            process = scene.process()
            time.sleep(random.random() * seconds)
            killed += process.kill() == -signal.SIGKILL
            if number % 5 == 4:
                scene.check_after_rerun()
        scene.check_after_rerun()
        elapsed = time.monotonic() - begun
    record_property("killed", killed)
    record_property("looks a second", round(watcher.looks / elapsed))
    assert killed, "they were all too late"
