"""Prefect's automations, as code: what the server does when the one concerned cannot say anything any more.

Two kinds:

- **Mending**, always on: a run whose process is gone, or that never left PENDING, is set to Crashed. Otherwise it would
  count as running for ever and keep its deployment's slot.
- **Speaking**, in the watcher's stead. As a rule `headwater watch` tells of failed, crashed, late, stuck, endless and
  absent runs, once each, together with what else belongs to the same trouble. If the watcher falls silent, the server
  says so and switches on automations that tell of each by themselves; the watcher's return switches them off.

`apply` makes the server's automations those of this file: each once, by name, under one tag; what was taken out of the
file goes. Those that the team has made itself are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import (
    ActionTypes,
    ChangeFlowRunState,
    PauseAutomation,
    ResumeAutomation,
    SendNotification,
)
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from connectors.alerts.routing import Routing
from tasks.alerts import notification_blocks

TAG = "headwater"
BEAT = "headwater.watcher.beat"
"""The event by which the watcher says that it is alive, once a round."""
STOPPED = "headwater.watcher.stopped"
"""The event of a watcher that somebody stops: its silence is meant."""
RETURNED = "headwater.watcher.returned"
"""The event of a watcher that has begun, or was not heard for longer than it may be silent."""
WATCHER_RESOURCE = "headwater.watcher"
WATCHER_SILENCE = timedelta(minutes=5)
"""How long the watcher may be silent before the server says so."""
PROCESS_SILENCE = timedelta(seconds=120)
"""How long a running process may be silent; it gives a sign of life every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""
LONGEST_PENDING = timedelta(minutes=10)
"""How long a run may take from the worker's hands to its first line."""
LONGEST_RUN = timedelta(hours=6)
"""From when on a run is said to take too long. It is not ended: a first load may."""
LONGEST_ABSENCE = timedelta(hours=26)
"""Within which each deployment with a schedule has completed at least once: a day, and some."""

_RUNS = ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})
_ENDS = frozenset(f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed"))
_RUN = "{{ flow_run.name }}"
_LINK = "{{ flow_run|ui_url }}"


@dataclass(frozen=True, slots=True)
class _Telling:
    """An automation that tells of a run, while the watcher is silent."""

    name: str
    trigger: EventTrigger
    subject: str
    body: str = f"{{{{ flow_run.state.message }}}}\n\n{_LINK}"


def _each_run(expect: Iterable[str], after: Iterable[str] = (), within: timedelta = timedelta(0)) -> EventTrigger:
    """Of each run: that one of these events comes or, with `within`, that none of them does after another has come."""
    return EventTrigger(
        match=_RUNS,
        for_each={"prefect.resource.id"},
        after=set(after),
        expect=set(expect),
        posture=Posture.Proactive if within else Posture.Reactive,
        within=within,
    )


def _mending() -> list[AutomationCore]:
    return [
        AutomationCore(
            name="headwater: a run whose process is gone has crashed",
            description="Its process gives no sign of life any more: it was killed, or its machine is gone.",
            trigger=_each_run(
                {"prefect.flow-run.heartbeat", *_ENDS}, after={"prefect.flow-run.heartbeat"}, within=PROCESS_SILENCE
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    name="Crashed",
                    force=False,
                    message=f"Its process has given no sign of life for {PROCESS_SILENCE.seconds} s:"
                    " it was killed, or its machine is gone. The next run takes up what it left.",
                )
            ],
        ),
        AutomationCore(
            name="headwater: a run that stays pending has crashed",
            description="Its worker took it and never began it; it would keep the slot of its deployment.",
            trigger=_each_run(
                {"prefect.flow-run.Running", *_ENDS}, after={"prefect.flow-run.Pending"}, within=LONGEST_PENDING
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    name="Crashed",
                    force=False,
                    message=f"It was pending for {LONGEST_PENDING.seconds // 60} minutes: its worker never began it."
                    " See the worker's log.",
                )
            ],
        ),
    ]


def _telling() -> list[_Telling]:
    return [
        _Telling("headwater: failed", _each_run({"prefect.flow-run.Failed"}), f"{_RUN} failed"),
        _Telling("headwater: crashed", _each_run({"prefect.flow-run.Crashed"}), f"{_RUN} crashed"),
        _Telling(
            "headwater: late",
            _each_run({"prefect.flow-run.Late"}),
            f"{_RUN} should have begun by now",
            f"No worker has taken it.\n\n{_LINK}",
        ),
        _Telling(
            "headwater: stuck",
            _each_run({"prefect.flow-run.Running", *_ENDS}, after={"prefect.flow-run.Pending"}, within=LONGEST_PENDING),
            f"{_RUN} does not begin",
            f"It has been pending for {LONGEST_PENDING.seconds // 60} minutes.\n\n{_LINK}",
        ),
        _Telling(
            "headwater: takes too long",
            _each_run(_ENDS, after={"prefect.flow-run.Running"}, within=LONGEST_RUN),
            f"{_RUN} takes too long",
            f"It has been running for {LONGEST_RUN.seconds // 3600} hours.\n\n{_LINK}",
        ),
        _Telling(
            "headwater: absent",
            EventTrigger(
                match=_RUNS,
                match_related=ResourceSpecification.model_validate(
                    {"prefect.resource.role": "deployment", "prefect.resource.id": "prefect.deployment.*"}
                ),
                for_each={"related:deployment:prefect.resource.id"},
                after={"prefect.flow-run.Completed"},
                expect={"prefect.flow-run.Completed"},
                posture=Posture.Proactive,
                within=LONGEST_ABSENCE,
            ),
            "{{ flow.name }}/{{ deployment.name }} has not completed for more than a day",
            f"This was its last run that did.\n\n{_LINK}",
        ),
    ]


def _spoken(telling: _Telling, blocks: Iterable[UUID]) -> AutomationCore:
    """One that tells of a run; off until the watcher falls silent."""
    return AutomationCore(
        name=telling.name,
        description="Tells of this while `headwater watch`, which does so otherwise, is silent.",
        enabled=False,
        trigger=telling.trigger,
        actions=_notify(blocks, telling.subject, telling.body),
    )


def _switches(blocks: Iterable[UUID], stand_ins: Sequence[UUID]) -> list[AutomationCore]:
    """Those that turn the stand-ins on when the watcher falls silent, and off when it is back."""
    watcher = ResourceSpecification.model_validate({"prefect.resource.id": WATCHER_RESOURCE})
    minutes = WATCHER_SILENCE.seconds // 60
    silent: list[ActionTypes] = _notify(
        blocks,
        "Headwater's watcher is silent",
        f"`headwater watch` has not been heard for {minutes} minutes. Until it is, stale data and silent channels go "
        "unnoticed; runs that fail, crash, or do not come are told of one by one. On its machine: `headwater status`.",
    )
    return [
        AutomationCore(
            name="headwater: the watcher is silent",
            description="Says so, and has the server tell of runs itself.",
            trigger=EventTrigger(
                match=watcher,
                # Without it the server would fire again after each further span of silence, until it is over.
                for_each={"prefect.resource.id"},
                after={BEAT},
                expect={BEAT, STOPPED},
                posture=Posture.Proactive,
                within=WATCHER_SILENCE,
            ),
            actions=[*silent, *(ResumeAutomation(source="selected", automation_id=each) for each in stand_ins)],
        ),
        AutomationCore(
            name="headwater: the watcher is back",
            description="The server need not tell of runs any more.",
            trigger=EventTrigger(match=watcher, expect={RETURNED}, posture=Posture.Reactive),
            actions=[PauseAutomation(source="selected", automation_id=each) for each in stand_ins],
        ),
    ]


def _notify(blocks: Iterable[UUID], subject: str, body: str) -> list[ActionTypes]:
    return [SendNotification(block_document_id=block, subject=subject, body=body) for block in blocks]


def apply(routing: Routing) -> list[str]:
    """Make the server's automations those of this file. Safe to repeat.

    Args:
        routing: says who hears of errors. If nobody does by a block that `headwater register` has written, only the
            mending automations exist.

    Returns:
        The names of all of them, in order.
    """
    with get_client(sync_client=True) as client:
        blocks = _block_ids(client, routing)
        existing = {each.name: each for each in client.read_automations() if TAG in each.tags}
        wanted = _mending()
        applied = {each.name: _ensure(client, each, existing.get(each.name)) for each in wanted}
        if blocks:
            spoken = [_spoken(each, blocks) for each in _telling()]
            stand_ins = {each.name: _ensure(client, each, existing.get(each.name), keep_switch=True) for each in spoken}
            applied |= stand_ins
            for each in _switches(blocks, list(stand_ins.values())):
                applied[each.name] = _ensure(client, each, existing.get(each.name))
        for name in existing.keys() - applied.keys():
            client.delete_automation(existing[name].id)
        return list(applied)


def _ensure(
    client: SyncPrefectClient, wanted: AutomationCore, existing: Automation | None, *, keep_switch: bool = False
) -> UUID:
    """Create or correct an automation. One that is as it should be is left alone: it keeps what it has counted.

    Args:
        keep_switch: whether one that exists stays on or off, as it is.
    """
    wanted = wanted.model_copy(update={"tags": [TAG]})
    if existing is None:
        return client.create_automation(wanted)
    if keep_switch:
        wanted = wanted.model_copy(update={"enabled": existing.enabled})
    fields = set(AutomationCore.model_fields)
    if existing.model_dump(include=fields) != wanted.model_dump():
        # The server refuses an update that names an owner, even none.
        client.update_automation(existing.id, AutomationCore(**wanted.model_dump(exclude={"owner_resource"})))
    return existing.id


def _block_ids(client: SyncPrefectClient, routing: Routing) -> list[UUID]:
    """The blocks of the channels that hear of errors, as far as `headwater register` has written them."""
    found = []
    for kind, name in notification_blocks(routing):
        try:
            found.append(client.read_block_document_by_name(name, kind, include_secrets=False).id)
        except ObjectNotFound:
            continue
    return found
