"""What schedules have missed while nobody could run it: done once, not as often as it was missed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import Flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import PrefectHTTPStatusError

_MOST = 200
"""Runs that are read at once, which is the most that the server gives."""


def do_missed_runs_at_once(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:  # noqa: ARG001 - Prefect's signature
    """Cancel the scheduled runs of this deployment that should have begun by now: this one does their work.

    Each of our flows brings everything up to date that is not, so after an outage one run does what all that were
    missed would have done. Runs that somebody started, or that have other parameters, are left alone. For `on_running`
    of a flow; trouble with it is logged and keeps no run from its work.
    """
    if flow_run.deployment_id is None:
        return
    try:
        missed = _cancel_missed(flow_run, flow_run.deployment_id)
    except PrefectHTTPStatusError as error:
        get_run_logger().warning("Whether runs were missed could not be found out: %s", error)
        return
    if missed:
        get_run_logger().info("This run stands for %s more that were missed: they are cancelled.", missed)


def _cancel_missed(run: FlowRun, deployment_id: UUID) -> int:
    with get_client(sync_client=True) as client:
        due = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
                expected_start_time=FlowRunFilterExpectedStartTime(
                    before_=datetime.now(UTC)  # type: ignore[arg-type]  # pydantic makes it what it is to be
                ),
            ),
            limit=_MOST,
        )
        missed = [each for each in due if each.auto_scheduled and each.parameters == run.parameters]
        for each in missed:
            client.set_flow_run_state(
                each.id, State(type=StateType.CANCELLED, message=f"It was missed; the run {run.name} does its work.")
            )
    return len(missed)
