"""What is wrong with Prefect, its workers and its runs: pure functions of what the server says.

Of each deployment there is at most one sign, under one key: what is late turns absent without a new incident. Runs that
wait because nobody is there to take them are the missing worker's trouble, not theirs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from connectors.incidents.kinds import Kind
from connectors.incidents.signs import Severity, Sign
from deployments.watcher.server import Deployment, Pool, Run, ServerState

_WAITS_ITS_TURN = frozenset({"AwaitingConcurrencySlot", "AwaitingRetry"})
"""Scheduled states of runs that nobody has forgotten."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each thing may last before it is a sign."""

    worker_silent: timedelta = timedelta(minutes=2)
    back: timedelta = timedelta(minutes=3)
    """How long what a server says of workers and runs is not judged once it is back: nobody could tell it anything."""
    late: timedelta = timedelta(minutes=10)
    waiting_its_turn: timedelta = timedelta(hours=6)
    pending: timedelta = timedelta(minutes=12)
    """A little longer than the server's own automation takes to end it, and than a server may be away."""
    running: timedelta = timedelta(hours=6)
    unscheduled_failure: timedelta = timedelta(hours=24)
    """How long a failure counts of what no schedule will run again."""


def worker_signs(state: ServerState, now: datetime, limits: Limits = Limits()) -> list[Sign]:
    """Work pools without a worker that was heard lately. Of those that nobody uses, none."""
    used = {each.pool: each for each in state.deployments if each.is_scheduled or each.waiting}
    return [_no_worker(pool, state, now) for pool in state.pools if pool.name in used and _is_alone(pool, now, limits)]


def run_signs(
    state: ServerState,
    now: datetime,
    limits: Limits = Limits(),
    nodes: Mapping[UUID, str] | None = None,
) -> list[Sign]:
    """Deployments whose latest run failed, or whose runs do not begin, end, or come.

    Args:
        nodes: by the id that the ledger knows a run by, where in the lineage the ledger says that it failed.
    """
    alone = {pool.name for pool in state.pools if _is_alone(pool, now, limits)}
    signs = []
    for each in state.deployments:
        found = next(_of(each, now, limits, nodes or {}, is_alone=each.pool in alone), None)
        if found is not None:
            signs.append(found)
    return signs


def stuck_runs(state: ServerState, now: datetime, limits: Limits = Limits()) -> list[Run]:
    """Runs that nobody begins, and that the server has not ended: it was away, or was stopped before it could note
    that they were taken."""
    return [run for each in state.deployments for run in each.pending if now - run.since > limits.pending]


def server_sign(why: str, since: datetime) -> Sign:
    """That the Prefect server does not answer."""
    return Sign(
        key="prefect server",
        kind=Kind.SERVER_SILENT,
        severity=Severity.CRITICAL,
        title="The Prefect server does not answer: nothing is scheduled.",
        cause=f"Since {since:%Y-%m-%d %H:%M} UTC: {why}",
        next_command="headwater status",
    )


def warehouse_sign(why: str, since: datetime) -> Sign:
    """That the warehouse does not answer."""
    return Sign(
        key="warehouse",
        kind=Kind.WAREHOUSE_SILENT,
        severity=Severity.CRITICAL,
        title="The warehouse does not answer: nothing is loaded, and nobody can read.",
        cause=f"Since {since:%Y-%m-%d %H:%M} UTC: {why}",
        next_command="headwater status",
    )


def _no_worker(pool: Pool, state: ServerState, now: datetime) -> Sign:
    waiting = sum(len(each.waiting) for each in state.deployments if each.pool == pool.name)
    heard = f"The last one was heard {_ago(pool.heard_at, now)}." if pool.heard_at else "None was ever heard."
    return Sign(
        key=f"worker/{pool.name}",
        kind=Kind.WORKER_SILENT,
        severity=Severity.CRITICAL,
        title=f"No worker is there for the work pool {pool.name}: nothing runs.",
        cause=f"{heard} {waiting} run{'s wait' if waiting != 1 else ' waits'} for one. "
        "Its process was ended, or its machine does not reach the Prefect server.",
        next_command=f"prefect worker start --pool {shlex.quote(pool.name)}",
    )


def _of(
    each: Deployment, now: datetime, limits: Limits, nodes: Mapping[UUID, str], *, is_alone: bool
) -> Iterator[Sign]:
    """The signs of a deployment, the one that says most first."""
    latest = each.latest
    if (
        latest is not None
        and not each.is_good
        and (each.is_scheduled or now - latest.since < limits.unscheduled_failure)
    ):
        yield _failed(each, latest, nodes.get(latest.known_as))
    for run in each.running:
        if now - run.since > limits.running:
            yield _sign(
                each,
                Kind.RUN_TOO_LONG,
                Severity.WARNING,
                f"A run of {each.name} has not ended for {_span(now - run.since)}.",
                f"{run.name} is still running. It may wait for a source or a lock; its log says at what it is.",
                f"prefect flow-run logs {run.id}",
                run,
            )
    for run in each.pending:
        if now - run.since > limits.pending:
            yield _sign(
                each,
                Kind.RUN_PENDING,
                Severity.ERROR,
                f"A run of {each.name} does not begin.",
                f"A worker took {run.name} {_ago(run.since, now)} and has not begun it.",
                f"prefect flow-run cancel {run.id}",
                run,
            )
    if is_alone:
        return
    for run in each.waiting:
        patience = limits.waiting_its_turn if run.state in _WAITS_ITS_TURN else limits.late
        if run.expected_at is not None and now - run.expected_at > patience and not each.running:
            yield _sign(
                each,
                Kind.RUN_LATE,
                Severity.ERROR,
                f"A run of {each.name} is late.",
                f"{run.name} should have begun {_ago(run.expected_at, now)}; it is {run.state}. "
                "Its work pool or queue is paused or full.",
                f"prefect work-pool inspect {shlex.quote(each.pool or '')}",
                run,
            )
    if each.due and not each.running and now > each.due[0] + _grace(each):
        last = f"since {latest.since:%Y-%m-%d %H:%M} UTC" if latest is not None else "at all"
        yield _sign(
            each,
            Kind.RUN_ABSENT,
            Severity.ERROR,
            f"{each.name} does not run.",
            f"No run of it has completed {last}; one was due {_ago(each.due[0], now)}. "
            "The server makes no runs of it, or they are cancelled.",
            f"prefect deployment inspect {shlex.quote(each.name)}",
        )


def _failed(each: Deployment, run: Run, node: str | None) -> Sign:
    how = "crashed" if run.state == "Crashed" else "failed"
    again = f"prefect deployment run {shlex.quote(each.name)}"
    return _sign(
        each,
        Kind.RUN_CRASHED if how == "crashed" else Kind.RUN_FAILED,
        Severity.ERROR,
        f"The latest run of {each.name} {how}.",
        run.message or f"{run.name} says nothing of why.",
        again if how == "crashed" else f"prefect flow-run logs {run.id}",
        run,
        node,
    )


def _sign(
    each: Deployment,
    kind: Kind,
    severity: Severity,
    title: str,
    cause: str,
    command: str,
    run: Run | None = None,
    node: str | None = None,
) -> Sign:
    return Sign(
        key=f"deployment/{each.name}",
        kind=kind,
        severity=severity,
        title=title,
        cause=cause,
        next_command=command,
        node=node,
        run_id=str(run.known_as) if run is not None else None,
    )


def _is_alone(pool: Pool, now: datetime, limits: Limits) -> bool:
    return not pool.is_paused and (pool.heard_at is None or now - pool.heard_at > limits.worker_silent)


def _grace(each: Deployment) -> timedelta:
    """How long after a date a deployment is absent: as long as to the next one, within an hour and six."""
    apart = each.due[1] - each.due[0] if len(each.due) > 1 else timedelta(hours=1)
    return min(max(apart, timedelta(hours=1)), timedelta(hours=6))


def _ago(when: datetime, now: datetime) -> str:
    return f"{_span(now - when)} ago"


def _span(span: timedelta) -> str:
    minutes = int(span.total_seconds()) // 60
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"
