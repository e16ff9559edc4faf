"""A round of the watcher: look at everything once, write down what is wrong, and have it told.

What a round sees goes through incidents like all else, so one trouble is one message, whoever notices it first. Only
while the warehouse does not answer does the watcher speak for itself, of that alone: the ledger, the incidents and the
outbox are in it.

Each part of a round is bounded in time, and none keeps the others from being looked at.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4, uuid5

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from sqlalchemy.engine import URL

from connectors.alerts.deliver import SEND_SECONDS, deliver
from connectors.alerts.known_secrets import known_secrets
from connectors.alerts.message import Kind, Message, Outgoing
from connectors.alerts.routing import Routing
from connectors.connections import Connections, Database
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.errors import HeadwaterError
from connectors.incidents.announcing import announcer
from connectors.incidents.checks import take_stock
from connectors.incidents.observe import observe
from connectors.incidents.signs import Sign
from connectors.incidents.watching import beat, failed_nodes, write_down
from deployments.automations import BEAT, RETURNED, STOPPED, WATCHER_RESOURCE, WATCHER_SILENCE
from deployments.watcher.judgement import Limits, run_signs, server_sign, stuck_runs, warehouse_sign, worker_signs
from deployments.watcher.memory import Memory
from deployments.watcher.server import ServerState, give_up, read_server

LOOKS = 2
"""How often in a row something must not answer before it is a trouble: a restart is none."""
DELIVERY_SECONDS = 30.0
_SERVER_SECONDS = 10.0
_NAMESPACE = UUID("5b0e2c54-9d0f-4a57-8d2e-6f0b7c1f9e10")
"""For the ids of what is told without the outbox: the same message has the same id."""
_WATCHER = Database("warehouse_watcher")
_RUN = "headwater watch"

_log = logging.getLogger("headwater.watcher")


@dataclass(slots=True)
class Round:
    """What a round has found."""

    at: datetime
    warehouse: str = "answers"
    server: str = "answers"
    signs: list[Sign] = field(default_factory=list)
    """Of the server, its workers and its runs."""
    delivery: str = ""
    problems: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""

    @property
    def is_bad(self) -> bool:
        """Whether something does not answer, was not looked at, or is wrong with the server, its workers or runs."""
        return bool(self.signs or self.problems) or {self.warehouse, self.server} != {"answers"}

    def __str__(self) -> str:
        said = [f"warehouse {self.warehouse}", f"Prefect server {self.server}"]
        said += [f"{sign.kind}: {sign.title}" for sign in self.signs]
        said += [f"alerts: {self.delivery}"] if self.delivery else []
        return "; ".join([*said, *self.problems])


class Watcher:
    """Looks, round by round.

    Args:
        connections: where the warehouse (`HEADWATER_WAREHOUSE_WATCHER_URL`) and the channels' secrets are.
        memory: of troubles that the warehouse cannot keep.
        api_url: of the Prefect server; `auth` is what it wants to hear, if anything.
        ping_url: is asked for (GET) after each round that could look at everything: for a service that tells somebody
            when nothing comes any more.
    """

    def __init__(
        self,
        connections: Connections,
        routing: Routing,
        memory: Memory,
        *,
        api_url: str,
        auth: str | None = None,
        limits: Limits | None = None,
        ping_url: str | None = None,
    ) -> None:
        self._connections = connections
        self._routing = routing
        self._announce = announcer(routing)
        self._memory = memory
        self._limits = limits or Limits()
        self._ping_url = ping_url
        self._channels = routing.open(connections.secret)
        self._server = partial(
            SyncPrefectClient, api_url, auth_string=auth, httpx_settings={"timeout": _SERVER_SECONDS}
        )
        self._silence: timedelta | None = None
        """How long the warehouse had not heard of a watcher, when it last answered."""
        self._has_returned = False
        self._server_back_at: datetime | None = None
        """Since when the server answers again; None if it always did."""
        self._said = ""

    def round(self) -> Round:
        """Look at everything once. Nothing that a later round could mend is raised."""
        found = Round(datetime.now(UTC))
        warehouse = self._connections.database(_WATCHER)
        is_there = self._look_at_warehouse(warehouse, found)
        with self._guarded("the Prefect server", found):
            self._look_at_server(warehouse if is_there else None, found)
        if is_there:
            with self._guarded("the ledger", found):
                found.problems += take_stock(warehouse, announce=self._announce, run_id=_RUN).problems
            with self._guarded("the outbox", found):
                found.delivery = str(
                    deliver(
                        warehouse,
                        self._channels,
                        DELIVERY_SECONDS,
                        secrets=lambda: known_secrets(self._connections),
                    )
                )
        if found.server == "answers":
            with self._guarded("the watcher's own sign of life", found):
                self._say_so(found.at)
        self._said = str(found)
        if self._ping_url and not found.problems:
            with self._guarded("the ping", found):
                httpx.get(self._ping_url, timeout=_SERVER_SECONDS).raise_for_status()
        return found

    def stop(self) -> None:
        """Tell the server that the silence from now on is meant."""
        try:
            self._emit([STOPPED], datetime.now(UTC))
        except (httpx.HTTPError, OSError) as error:
            _log.info("The Prefect server was not told that the watcher is stopped: %s", error)

    def _look_at_warehouse(self, warehouse: URL, found: Round) -> bool:
        """Whether the warehouse answers. If it does not for long, tell so, past the outbox."""
        try:
            with translated_errors(), connect(warehouse, "watcher", autocommit=True) as connection:
                connection.execute("select 1")
        except HeadwaterError as error:
            found.warehouse = "does not answer"
            trouble = self._memory.look("warehouse", error.what, found.at)
            if trouble.looks >= LOOKS:
                sign = warehouse_sign(trouble.why, trouble.since)
                names = self._routing.channels_for(None, sign.severity)
                untold = [name for name in names if name not in trouble.told]
                trouble.told += self._tell(sign, trouble.since, untold)
                self._memory.save()
            return False
        # What cannot be written there, as before an upgrade, does not mean that it is gone.
        with (
            self._guarded("the watcher's own tables", found),
            translated_errors(),
            connect(warehouse, "watcher", autocommit=True) as connection,
        ):
            self._silence = beat(connection, {"host": platform.node(), "pid": os.getpid(), "found": self._said})
            over = self._memory.troubles.get("warehouse")
            if over is not None and over.looks >= LOOKS:
                sign = warehouse_sign(over.why, over.since)
                times = {"opened_at": over.since, "closed_at": found.at}
                write_down(connection, sign, self._announce, **times, told=over.told)
            self._memory.forget("warehouse")
        return True

    def _look_at_server(self, warehouse: URL | None, found: Round) -> None:
        """What the Prefect server says, as signs; that it says nothing is one too."""
        state, why = self._server_state(found.at)
        if state is None:
            found.server = "does not answer"
            self._has_returned = False
            trouble = self._memory.look("server", why, found.at)
            if trouble.looks >= LOOKS:
                found.signs = [server_sign(trouble.why, trouble.since)]
        elif self._memory.forget("server") is not None:
            self._server_back_at = found.at
        if warehouse is None:
            return
        if state is None:
            # What the server last said of workers and runs stands until it says something else.
            if found.signs:
                observe(warehouse, "prefect server", found.signs, announce=self._announce, run_id=_RUN)
            return
        observe(warehouse, "prefect server", [], announce=self._announce, run_id=_RUN)
        if self._server_back_at is not None and found.at - self._server_back_at < self._limits.back:
            return
        workers = worker_signs(state, found.at, self._limits)
        runs = run_signs(state, found.at, self._limits, _nodes(warehouse, state))
        found.signs = [*workers, *runs]
        with self._guarded("runs that do not begin", found):
            self._give_up_stuck_runs(state, found.at)
        observe(warehouse, "workers", workers, announce=self._announce, run_id=_RUN)
        observe(warehouse, "runs", runs, announce=self._announce, run_id=_RUN)

    def _give_up_stuck_runs(self, state: ServerState, now: datetime) -> None:
        """What the server's own automation does, where it has missed it."""
        if runs := stuck_runs(state, now, self._limits):
            with self._server() as client:
                for run in runs:
                    give_up(
                        client, run, "It was pending for too long: its worker never began it. See the worker's log."
                    )

    def _tell(self, sign: Sign, since: datetime, names: Iterable[str]) -> list[str]:
        """Tell channels of something that has begun, past the outbox; returns those that took it."""
        message = Message(
            kind=Kind.OPENED,
            severity=sign.severity,
            title=sign.title,
            cause=sign.cause,
            next_command=sign.next_command,
            opened_at=since,
            written_at=datetime.now(UTC),
            links=self._routing.links.of(None),
        )
        told = []
        for name in names:
            alert_id = uuid5(_NAMESPACE, f"{sign.key} {since.isoformat()} {name}")
            try:
                self._channels[name].send(Outgoing(alert_id, message), SEND_SECONDS)
                told.append(name)
            except HeadwaterError as error:
                _log.warning("%s did not take the message about the %s: %s", name, sign.key, error)
        return told

    def _say_so(self, now: datetime) -> None:
        """Say to the server, for its automations, that the watcher is alive, or back."""
        is_back = not self._has_returned or (self._silence is not None and self._silence > WATCHER_SILENCE)
        self._emit([RETURNED, BEAT] if is_back else [BEAT], now)
        self._has_returned = True

    def _server_state(self, now: datetime) -> tuple[ServerState | None, str]:
        """What the server says, or why it says nothing."""
        try:
            with self._server() as client:
                return read_server(client, now), ""
        except PrefectHTTPStatusError as error:
            return None, f"it answers {error.response.status_code}."
        except (httpx.HTTPError, OSError) as error:
            return None, f"{' '.join(str(error).split()) or type(error).__name__}."

    def _emit(self, names: Iterable[str], now: datetime) -> None:
        """Give the server events, in order.

        Raises:
            httpx.HTTPError: it does not take them.
        """
        events = [
            {
                "id": str(uuid4()),
                "event": name,
                "occurred": (now + timedelta(microseconds=number)).isoformat(),
                "resource": {"prefect.resource.id": WATCHER_RESOURCE, "prefect.resource.name": platform.node()},
            }
            for number, name in enumerate(names)
        ]
        with self._server() as client:
            client.request("POST", "/events", json=events)

    @contextmanager
    def _guarded(self, what: str, found: Round) -> Iterator[None]:
        """Whatever goes wrong is a line of the round, and the next part is looked at."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a watcher that falls over sees nothing
            said = " ".join(str(error).split()) or type(error).__name__
            found.problems.append(f"{what} could not be looked at: {said}")
            _log.warning("%s could not be looked at: %s", what, said, exc_info=not isinstance(error, HeadwaterError))


def _nodes(warehouse: URL, state: ServerState) -> dict[UUID, str]:
    """Where in the lineage the latest runs failed, as the ledger knows it."""
    runs = [str(each.latest.known_as) for each in state.deployments if each.latest is not None and not each.is_good]
    if not runs:
        return {}
    with translated_errors(), connect(warehouse, "watcher", autocommit=True) as connection:
        return {UUID(run): node for run, node in failed_nodes(connection, runs).items()}
