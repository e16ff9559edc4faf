"""What Prefect shows of a dbt build: who listens to dbt as it builds, and makes task runs of its nodes.

Models, seeds and snapshots are task runs from their start to their end, with edges as in the project's graph. Tests are
many, and most pass in no time: they are lines of the flow run's log, and one that warns, fails or breaks is a task run
too. What a node says is in the log of its task run.

Each task run costs Prefect's server some 45 ms of CPU. prefect-dbt's runner, left to itself, makes one of every test
as well, and reads all of Prefect's settings anew for each: 30 s of CPU for the demo's 127 nodes, dbt itself taking 8 s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

from dbt.artifacts.schemas.results import NodeStatus
from prefect import allow_failure, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.utilities import engine
from prefect_dbt import PrefectDbtRunner, PrefectDbtSettings

from connectors.errors import DataError
from tasks.dbt_results import message_of

_BUILT = {"model", "seed", "snapshot"}
_FAILED = {NodeStatus.Error, NodeStatus.Fail, NodeStatus.RuntimeErr, NodeStatus.PartialSuccess}
_TROUBLE = {"warn", "error"}
_LOGGED = {"info": "info", "warn": "warning", "error": "error"}
"""dbt's levels, as Python's loggers have them; what is finer is not logged."""


@task(name="dbt node", cache_policy=NO_CACHE, persist_result=False)
def run_node(events: SimpleQueue[Any]) -> None:
    """A node, as long as dbt is at it: says what dbt says, and ends as it ends.

    Args:
        events: dbt's, of this node, to the one that it has finished; `None` if there will be no such one.

    Raises:
        DataError: the node has failed, or dbt was stopped before it had finished.
    """
    while (event := events.get()) is not None:
        if event.info.name != "NodeFinished":
            _say(get_run_logger(), event)
        elif event.data.node_info.node_status not in _FAILED:
            return
        else:
            said = message_of(event.data.run_result.message)
            raise DataError(f"{event.data.node_info.unique_id}: {said}", remedy="This task run's log says more.")
    raise DataError("dbt was stopped before this node had finished.", remedy="See the flow run's log.")


class NodeRunner(PrefectDbtRunner):  # type: ignore[misc]  # prefect-dbt ships no types
    """prefect-dbt's runner, which resolves profiles and settings and invokes dbt, with task runs as above.

    Args:
        read_parents: the names of the nodes that each node needs; asked for when dbt has begun to build.
    """

    def __init__(self, settings: PrefectDbtSettings, read_parents: Callable[[], Mapping[str, Sequence[str]]]) -> None:
        super().__init__(settings=settings, raise_on_failure=False, disable_assets=True)
        self._read_parents = read_parents
        self._task_runs: NodeTaskRuns | None = None

    def invoke(self, args: list[str], **kwargs: Any) -> Any:
        """See `PrefectDbtRunner.invoke`; returns when the task runs have ended too. One invocation at a time.

        Raises:
            TerminationSignal: this process was told to stop; no statement of dbt's is left.
        """
        self._task_runs = NodeTaskRuns(self._read_parents)
        with interrupted_when_told_to_stop():
            try:
                return super().invoke(args, **kwargs)
            finally:
                self._task_runs.end()

    def _create_unified_callback(self, *_: Any, **__: Any) -> Callable[[Any], None]:
        """What the runner has dbt call: where it decides what becomes a task run. Not public; tests watch over it."""
        assert self._task_runs is not None  # noqa: S101 - `invoke` has made it
        return self._task_runs


@contextmanager
def interrupted_when_told_to_stop() -> Iterator[None]:
    """SIGTERM comes as Ctrl-C does: dbt ends its statements at the server then, before it closes their connections.
    Otherwise it would first wait for those that wait for a lock.

    What Prefect's handler of the signal raises is a KeyboardInterrupt too, for so long. The handler stays Prefect's:
    with another one in its place, a run that is cancelled would count as crashed. Not public; a test watches over it.

    Raises:
        TerminationSignal: when dbt has returned, however, if a signal came.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal is heard there
        yield
        return
    told: list[int] = []

    class Interrupt(TerminationSignal, KeyboardInterrupt):
        def __init__(self, signal: int) -> None:
            told.append(signal)
            super().__init__(signal)

    engine.TerminationSignal = Interrupt  # type: ignore[attr-defined]  # where the handler looks it up
    try:
        yield
    except BaseException:
        if not told:
            raise
    finally:
        engine.TerminationSignal = TerminationSignal  # type: ignore[attr-defined]
    if told:
        raise TerminationSignal(told[0])


class NodeTaskRuns:
    """What dbt calls as it builds, of one invocation, inside a flow. Call `end` when dbt has returned.

    Args:
        read_parents: the names of the nodes that each node needs; asked for when dbt has begun to build.
    """

    def __init__(self, read_parents: Callable[[], Mapping[str, Sequence[str]]]) -> None:
        # dbt calls from threads of its own, which know nothing of the flow run.
        self._context = copy_context()
        self._log = get_run_logger()
        self._read_parents = read_parents
        self._parents: Mapping[str, Sequence[str]] | None = None
        self._started: set[str] = set()
        self._events: dict[str, SimpleQueue[Any]] = {}
        self._runs: dict[str, PrefectFuture[None]] = {}

    def __call__(self, event: Any) -> None:
        """Take an event of dbt's; those of a node come one after the other."""
        info = getattr(event.data, "node_info", None)
        if info is None:
            _say(self._log, event)
            return
        node, is_end = info.unique_id, event.info.name == "NodeFinished"
        if event.info.name == "LogStartLine":  # nodes that are skipped, and ephemeral ones, say none
            self._started.add(node)
        if node not in self._started:
            _say(self._log, event)
            return
        is_trouble = event.info.level in _TROUBLE or (is_end and info.node_status in _FAILED)
        if node not in self._events and (info.resource_type in _BUILT or is_trouble):
            self._begin(node, f"{info.resource_type} {info.node_name}")
        if node not in self._events:
            _say(self._log, event)
        elif is_end or event.info.level in _LOGGED:
            self._events[node].put(event)
        if is_end:
            self._started.remove(node)

    def _begin(self, node: str, name: str) -> None:
        if self._parents is None:
            self._parents = self._read_parents()
        self._events[node] = SimpleQueue()
        # A node that dbt builds is built: one before it that has failed is no reason for Prefect not to show it.
        before = [allow_failure(self._runs[each]) for each in self._parents.get(node, ()) if each in self._runs]
        submit = partial(run_node.with_options(task_run_name=name).submit, self._events[node], wait_for=before)
        self._runs[node] = self._context.copy().run(submit)

    def end(self) -> None:
        """Wait for the task runs. Those of nodes that have not finished, because dbt was stopped, fail."""
        for events in self._events.values():
            events.put(None)
        for run in self._runs.values():
            run.wait()


def _say(log: Any, event: Any) -> None:
    if event.info.level in _LOGGED and event.info.msg.strip():
        getattr(log, _LOGGED[event.info.level])(event.info.msg)
