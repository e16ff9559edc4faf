"""What the watcher makes of what the server says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from deployments.watcher.judgement import Limits, run_signs, worker_signs
from deployments.watcher.server import Deployment, Pool, Run, ServerState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIMITS = Limits()
HEARD = Pool("machines", is_paused=False, heard_at=NOW - timedelta(seconds=20))


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def run(state: str, since: datetime, **more: object) -> Run:
    return Run(uuid4(), "clever-otter", state, since, **more)  # type: ignore[arg-type]


def deployment(**facts: object) -> Deployment:
    usual: dict[str, object] = {
        "name": "ingest/orders",
        "pool": "machines",
        "is_scheduled": True,
        "latest": run("Completed", ago(minutes=10)),
        "is_good": True,
        "due": (NOW + timedelta(minutes=5), NOW + timedelta(minutes=20)),
    }
    return Deployment(**{**usual, **facts})  # type: ignore[arg-type]


def kinds(*deployments: Deployment, pools: tuple[Pool, ...] = (HEARD,)) -> list[str]:
    return [sign.kind for sign in run_signs(ServerState(deployments, pools), NOW, LIMITS)]


def test_all_is_well_when_runs_come_and_go() -> None:
    busy = deployment(running=(run("Running", ago(minutes=3)),), pending=(run("Pending", ago(seconds=5)),))
    waiting = deployment(waiting=(run("Scheduled", ago(minutes=1), expected_at=ago(minutes=1)),))

    assert kinds(deployment(), busy, waiting) == []
    assert worker_signs(ServerState((deployment(),), (HEARD,)), NOW, LIMITS) == []


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"latest": run("Failed", ago(minutes=3), message="no route"), "is_good": False}, "run failed"),
        ({"latest": run("Crashed", ago(minutes=3)), "is_good": False}, "run crashed"),
        ({"running": (run("Running", ago(hours=7)),)}, "run too long"),
        ({"pending": (run("Pending", ago(minutes=13)),)}, "run pending"),
        ({"waiting": (run("Late", ago(minutes=11), expected_at=ago(minutes=11)),)}, "run late"),
        ({"due": (ago(minutes=61), ago(minutes=46))}, "run absent"),
    ],
)
def test_each_trouble_of_a_run_is_a_sign_of_its_own_kind(facts: dict[str, object], kind: str) -> None:
    [sign] = run_signs(ServerState((deployment(**facts),), (HEARD,)), NOW, LIMITS)

    assert sign.kind == kind
    assert sign.key == "deployment/ingest/orders"
    assert "ingest/orders" in sign.title


def test_a_deployment_has_one_sign_whatever_is_wrong_with_it() -> None:
    late = run("Late", ago(hours=8), expected_at=ago(hours=8))
    everything = deployment(
        latest=run("Failed", ago(hours=9)),
        is_good=False,
        pending=(run("Pending", ago(hours=9)),),
        waiting=(late,),
        due=(ago(hours=8), ago(hours=7)),
    )

    assert kinds(everything) == ["run failed"]


def test_runs_that_wait_for_a_worker_are_the_workers_trouble() -> None:
    late = deployment(
        waiting=(run("Late", ago(minutes=40), expected_at=ago(minutes=40)),), due=(ago(hours=3), ago(hours=2))
    )
    silent = Pool("machines", is_paused=False, heard_at=ago(minutes=30))
    state = ServerState((late,), (silent,))

    assert run_signs(state, NOW, LIMITS) == []
    [sign] = worker_signs(state, NOW, LIMITS)
    assert sign.key == "worker/machines"
    assert "30 min ago" in sign.cause
    assert "1 run waits" in sign.cause
    assert sign.next_command == "prefect worker start --pool machines"


@pytest.mark.parametrize(
    "pool",
    [
        Pool("machines", is_paused=True, heard_at=ago(days=2)),
        Pool("somebody else's", is_paused=False, heard_at=None),
    ],
)
def test_nobody_misses_the_worker_of_a_pool_that_is_paused_or_not_used(pool: Pool) -> None:
    assert worker_signs(ServerState((deployment(),), (pool,)), NOW, LIMITS) == []


def test_runs_that_wait_their_turn_are_not_late() -> None:
    queued = run("AwaitingConcurrencySlot", ago(hours=1), expected_at=ago(hours=1))

    assert kinds(deployment(waiting=(queued,), running=(run("Running", ago(hours=1)),))) == []
    assert kinds(deployment(waiting=(queued,))) == []


def test_a_failure_that_no_schedule_will_mend_is_forgotten_after_a_day() -> None:
    manual = {"is_scheduled": False, "due": (), "is_good": False}

    assert kinds(deployment(**manual, latest=run("Failed", ago(hours=23)))) == ["run failed"]
    assert kinds(deployment(**manual, latest=run("Failed", ago(hours=25)))) == []


@pytest.mark.parametrize(
    ("apart", "patience"),
    [
        (timedelta(minutes=15), timedelta(hours=1)),
        (timedelta(hours=2), timedelta(hours=2)),
        (timedelta(days=1), timedelta(hours=6)),
    ],
)
def test_how_long_a_run_may_stay_away_depends_on_how_often_it_comes(apart: timedelta, patience: timedelta) -> None:
    just = NOW - patience + timedelta(seconds=1)
    over = NOW - patience - timedelta(seconds=1)

    assert kinds(deployment(due=(just, just + apart))) == []
    assert kinds(deployment(due=(over, over + apart))) == ["run absent"]


def test_a_failed_run_is_where_the_ledger_says_that_it_failed() -> None:
    failed = run("Failed", ago(minutes=1))
    state = ServerState((deployment(latest=failed, is_good=False),), (HEARD,))

    [sign] = run_signs(state, NOW, LIMITS, {failed.id: "stream.shop.orders"})

    assert sign.node == "stream.shop.orders"
    assert sign.run_id == str(failed.id)


def test_a_failed_pipeline_is_known_by_the_run_within_it_that_it_had_come_to() -> None:
    transform = uuid4()
    failed = run("Crashed", ago(minutes=1), stage=transform)
    state = ServerState((deployment(latest=failed, is_good=False),), (HEARD,))

    [sign] = run_signs(state, NOW, LIMITS, {transform: "model.p.orders"})

    assert (sign.run_id, sign.node) == (str(transform), "model.p.orders")
