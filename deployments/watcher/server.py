"""What Prefect's API says: deployments, their latest runs, the runs that should be moving, and who could run them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

_PAGE = 200
"""Objects that are read at once, which is the most that the server gives."""
_SCHEDULES: Mapping[str, type[CronSchedule | IntervalSchedule | RRuleSchedule]] = {
    "cron": CronSchedule,
    "interval": IntervalSchedule,
    "rrule": RRuleSchedule,
}
_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
"""How a run ends by itself; one that somebody cancels says nothing of the deployment."""

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as it is now."""

    id: UUID
    name: str
    state: str
    """The state's name: Failed, Late, AwaitingConcurrencySlot …"""
    since: datetime
    """When it came into this state."""
    message: str = ""
    expected_at: datetime | None = None
    stage: UUID | None = None
    """Of one that failed or crashed: the run within it that it had come to, which the ledger knows it by."""

    @property
    def known_as(self) -> UUID:
        """By what id the ledger knows what it did last."""
        return self.stage or self.id


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment, and how its runs went."""

    name: str
    """`flow/deployment`, as `prefect deployment run` takes it."""
    pool: str | None
    is_scheduled: bool
    """Whether runs of it should come by themselves: it has an active schedule and is not paused."""
    latest: Run | None
    """The latest run that completed, failed or crashed."""
    is_good: bool
    """Whether that one completed."""
    due: tuple[datetime, ...] = ()
    """The first two dates of its schedules after its last completed run (or its creation, if there is none)."""
    waiting: tuple[Run, ...] = ()
    """Runs that should have begun by now, the oldest first."""
    pending: tuple[Run, ...] = ()
    running: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool, and when a worker of it was last heard."""

    name: str
    is_paused: bool
    heard_at: datetime | None


@dataclass(frozen=True, slots=True)
class ServerState:
    """All that there is to judge."""

    deployments: tuple[Deployment, ...]
    pools: tuple[Pool, ...]


def read_server(client: SyncPrefectClient, now: datetime) -> ServerState:
    """How the server, its deployments and its workers are.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses to.
    """
    flows = {flow.id: flow.name for flow in _all(lambda page: client.read_flows(limit=_PAGE, offset=page))}
    moving = _moving(client, now)
    deployments = [
        _deployment(client, each, flows.get(each.flow_id, "?"), moving.get(each.id, []))
        for each in _all(lambda page: client.read_deployments(limit=_PAGE, offset=page))
    ]
    pools = []
    for pool in _all(lambda page: client.read_work_pools(limit=_PAGE, offset=page)):
        workers = client.read_workers_for_work_pool(pool.name, limit=_PAGE)
        beats = [worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time is not None]
        pools.append(Pool(pool.name, bool(pool.is_paused), max(beats, default=None)))
    return ServerState(tuple(deployments), tuple(pools))


def give_up(client: SyncPrefectClient, run: Run, why: str) -> None:
    """Set a run to Crashed, unless it is over by now: it keeps the slot of its deployment no longer.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses to.
    """
    client.set_flow_run_state(run.id, State(type=StateType.CRASHED, name="Crashed", message=why))


def _deployment(
    client: SyncPrefectClient, found: DeploymentResponse, flow: str, moving: Sequence[FlowRun]
) -> Deployment:
    ended = _latest(client, found.id, _ENDED)
    completed = ended if _is(ended, StateType.COMPLETED) else _latest(client, found.id, [StateType.COMPLETED])
    schedules = [each.schedule for each in found.schedules if each.active]
    is_scheduled = bool(schedules) and not found.paused
    last = completed.end_time if completed is not None else found.created
    return Deployment(
        name=f"{flow}/{found.name}",
        pool=found.work_pool_name,
        is_scheduled=is_scheduled,
        latest=_run(ended, _stage(client, ended)) if ended is not None else None,
        is_good=_is(ended, StateType.COMPLETED),
        due=_due(schedules, last) if is_scheduled and last is not None else (),
        waiting=_of(moving, StateType.SCHEDULED),
        pending=_of(moving, StateType.PENDING),
        running=_of(moving, StateType.RUNNING),
    )


def _latest(client: SyncPrefectClient, deployment: UUID, states: list[StateType]) -> FlowRun | None:
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
        ),
        sort=FlowRunSort.END_TIME_DESC,
        limit=1,
    )
    return found[0] if found else None


def _stage(client: SyncPrefectClient, run: FlowRun) -> UUID | None:
    """The latest run within one that did not end well: the transform of a pipeline."""
    if _is(run, StateType.COMPLETED):
        return None
    within = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    return within[0].id if within else None


def _moving(client: SyncPrefectClient, now: datetime) -> dict[UUID, list[FlowRun]]:
    """Runs that are under way, or should be, by deployment."""
    states = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
    runs = _all(
        lambda page: client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
                expected_start_time=FlowRunFilterExpectedStartTime(
                    before_=now  # type: ignore[arg-type]  # pydantic makes it what it is to be
                ),
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=_PAGE,
            offset=page,
        )
    )
    found: dict[UUID, list[FlowRun]] = {}
    for run in runs:
        if run.deployment_id is not None:
            found.setdefault(run.deployment_id, []).append(run)
    return found


def _all(read: Callable[[int], Sequence[Read]]) -> Iterator[Read]:
    """All objects of a kind, page by page."""
    offset = 0
    while True:
        page = read(offset)
        yield from page
        if len(page) < _PAGE:
            return
        offset += _PAGE


def _of(runs: Sequence[FlowRun], kind: StateType) -> tuple[Run, ...]:
    return tuple(_run(each) for each in runs if _is(each, kind))


def _is(run: FlowRun | None, kind: StateType) -> bool:
    return run is not None and run.state is not None and run.state.type is kind


def _run(found: FlowRun, stage: UUID | None = None) -> Run:
    state = found.state
    assert state is not None  # noqa: S101 - each run that was asked for by its state has one
    return Run(
        found.id,
        found.name,
        state.name or str(state.type),
        state.timestamp,
        state.message or "",
        found.expected_start_time,
        stage,
    )


def _due(schedules: Sequence[Any], after: datetime) -> tuple[datetime, ...]:
    """The first two dates of some schedules after an instant."""
    dates: set[datetime] = set()
    for schedule in schedules:
        kind = next(kind for name, kind in _SCHEDULES.items() if hasattr(schedule, name))
        dates |= set(asyncio.run(kind(**schedule.model_dump()).get_dates(n=2, start=after + timedelta(seconds=1))))
    return tuple(sorted(dates)[:2])
