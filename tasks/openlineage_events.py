"""What OpenLineage is told of loads and builds. Imported only where it is on: it takes the extra `openlineage`.

Datasets are named as its naming rules say, so that other tools mean the same by the same name: a table is
`postgres://host:port` and `database.schema.table`, at the source as in the warehouse; what an API or files hold is the
source's and the stream's name. Jobs are of the namespace `OPENLINEAGE_NAMESPACE`, `headwater` without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState, set_producer
from openlineage.client.facet_v2 import (
    column_lineage_dataset,
    data_quality_assertions_dataset,
    error_message_run,
    execution_parameters_run,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    schema_dataset,
)
from sqlalchemy.engine import URL
from uuid_utils.compat import uuid7

from connectors.connections import Connections
from connectors.destinations.warehouse.columns import column_name
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.history import NodeResult
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.model import Source, Stream, Window
from connectors.postgres import PostgresSource, TableStream
from connectors.privacy import Hashed
from tasks.dbt_results import plain
from tasks.history import BuildHistory
from tasks.transform import manifest_of

Event = RunEvent
Facets = dict[str, Any]
Columns = Mapping[str, Mapping[str, str]]
"""Types by column, by `schema.table`."""

PRODUCER = "urn:headwater"
_BUILT = ("model", "seed", "snapshot")
_GOOD = ("success", "pass", "no-op")
_PORT = 5432

set_producer(PRODUCER)


def client() -> OpenLineageClient:
    """Sends events where the environment says."""
    return OpenLineageClient()


@dataclass(frozen=True, slots=True)
class Load:
    """A load, from its start to its end."""

    run_id: str
    source: Source
    stream: Stream
    connections: Connections
    window: Window | None
    parent: tuple[str, str] | None
    begun_at: datetime

    def started(self) -> Iterator[Event]:
        yield self._event(RunState.START, self.begun_at, {})

    def failed(self, message: str) -> Iterator[Event]:
        yield self._event(RunState.FAIL, datetime.now(UTC), {"errorMessage": _error(message)})

    def completed(self, reports: Iterable[LoadReport], warehouse: URL) -> Iterator[Event]:
        """That it is in raw, with raw's columns and where each comes from."""
        reports = list(reports)
        table = f"raw_{self.source.name}.{self.stream.name}"
        columns = columns_of(warehouse, [table]).get(table, {})
        raw = output(warehouse, table, columns)
        raw.facets = {**(raw.facets or {}), "columnLineage": self._column_lineage(columns)}
        if reports:
            moved = sum(report.inserted + report.updated for report in reports)
            raw.outputFacets = {
                "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=moved)
            }
        loads = [
            execution_parameters_run.ExecutionParameter(key="load_id", value=str(report.load_id)) for report in reports
        ]
        facets = {"executionParameters": execution_parameters_run.ExecutionParametersRunFacet(loads)} if loads else {}
        yield self._event(RunState.COMPLETE, datetime.now(UTC), facets, [raw])

    def _event(
        self, state: RunState, at: datetime, facets: Facets, outputs: list[OutputDataset] | None = None
    ) -> Event:
        if self.window is not None:
            facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(
                self.window.start.isoformat(), self.window.end.isoformat()
            )
        job = f"{self.source.name}.{self.stream.name}"
        namespace, name = self._read()
        return _event(
            state, at, self.run_id, job, "LOAD", self.parent, facets, [InputDataset(namespace, name)], outputs or []
        )

    def _read(self) -> tuple[str, str]:
        """Namespace and name of what is read."""
        if isinstance(self.source, PostgresSource) and isinstance(self.stream, TableStream):
            url = self.connections.database(self.source.database)
            return namespace_of(url), f"{url.database}.{self.stream.schema}.{self.stream.table_name}"
        return self.source.name, self.stream.name

    def _column_lineage(self, columns: Mapping[str, str]) -> column_lineage_dataset.ColumnLineageDatasetFacet:
        namespace, name = self._read()
        hashed = {column_name(each) for each, treatment in self.stream.privacy.items() if isinstance(treatment, Hashed)}
        return column_lineage_dataset.ColumnLineageDatasetFacet(
            {
                column: column_lineage_dataset.Fields(
                    [
                        column_lineage_dataset.InputField(
                            namespace,
                            name,
                            column,
                            [
                                column_lineage_dataset.Transformation(
                                    "DIRECT",
                                    "TRANSFORMATION" if column in hashed else "IDENTITY",
                                    masking=column in hashed,
                                )
                            ],
                        )
                    ]
                )
                for column in columns
                if not column.startswith("_")  # our own
            }
        )


@dataclass(frozen=True, slots=True)
class Build:
    """A build by dbt, from its start to its end, with the models and tests in it."""

    run_id: str
    history: BuildHistory
    parent: tuple[str, str] | None

    def started(self) -> Iterator[Event]:
        yield self._event(RunState.START, self.history.started_at, {})

    def ended(self, warehouse: URL) -> Iterator[Event]:
        """Each model that ran, from start to end, then the build; tests are assertions on what it has read.

        Args:
            warehouse: to name tables by, and to look up their columns.
        """
        build = self.history.build
        if build is None:
            yield self._event(
                RunState.FAIL, datetime.now(UTC), {"errorMessage": _error(self.history.error or "dbt did not start")}
            )
            return
        manifest = manifest_of(build)
        nodes = {**manifest["sources"], **manifest["nodes"]}
        relations = {name: plain(node["relation_name"]) for name, node in nodes.items() if node.get("relation_name")}
        columns = columns_of(warehouse, {relation for relation in relations.values() if relation})
        for result in build.results:
            if result.resource_type in _BUILT and result.started_at is not None and result.ended_at is not None:
                inputs = [
                    InputDataset(*table(warehouse, relation))
                    for each in nodes[result.node]["depends_on"]["nodes"]
                    if (relation := relations.get(each))
                ]
                yield from self._model(result, inputs, warehouse, columns)
        asserted = [
            InputDataset(*table(warehouse, relation), inputFacets={"dataQualityAssertions": assertions})
            for node, assertions in _assertions(build.results).items()
            if (relation := relations.get(node))
        ]
        problem = {"errorMessage": _error("; ".join(map(str, build.failed[:5])))} if build.failed else {}
        yield self._event(RunState.FAIL if build.failed else RunState.COMPLETE, build.ended_at, problem, asserted)

    def _model(
        self, result: NodeResult, inputs: list[InputDataset], warehouse: URL, columns: Columns
    ) -> Iterator[Event]:
        run_id, parent = str(uuid7()), (self.run_id, "dbt build")
        assert result.started_at is not None  # noqa: S101 - the caller has looked
        assert result.ended_at is not None  # noqa: S101 - likewise
        outputs = []
        if result.relation:
            made = output(warehouse, result.relation, columns.get(result.relation, {}))
            if result.rows_affected is not None:
                made.outputFacets = {
                    "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                        rowCount=result.rows_affected
                    )
                }
            outputs = [made]
        is_good = result.status in _GOOD
        problem: Facets = {} if is_good else {"errorMessage": _error(result.message or result.status)}
        state = RunState.COMPLETE if is_good else RunState.FAIL
        yield _event(RunState.START, result.started_at, run_id, result.node, "MODEL", parent, {}, inputs, outputs)
        yield _event(state, result.ended_at, run_id, result.node, "MODEL", parent, problem, inputs, outputs)

    def _event(self, state: RunState, at: datetime, facets: Facets, inputs: list[InputDataset] | None = None) -> Event:
        return _event(state, at, self.run_id, "dbt build", "DBT_BUILD", self.parent, facets, inputs or [], [])


def namespace_of(url: URL) -> str:
    """The namespace of a PostgreSQL server's tables."""
    return f"postgres://{url.host}:{url.port or _PORT}"


def table(url: URL, relation: str) -> tuple[str, str]:
    """Namespace and name of a table, given as `schema.table`."""
    return namespace_of(url), f"{url.database}.{relation}"


def output(url: URL, relation: str, columns: Mapping[str, str]) -> OutputDataset:
    """A table as what something has made, with its columns."""
    fields = [
        schema_dataset.SchemaDatasetFacetFields(name, kind, ordinal_position=number + 1)
        for number, (name, kind) in enumerate(columns.items())
    ]
    facets: Facets = {"schema": schema_dataset.SchemaDatasetFacet(fields)} if fields else {}
    return OutputDataset(*table(url, relation), facets=facets)


def columns_of(warehouse: URL, relations: Iterable[str]) -> dict[str, dict[str, str]]:
    """The columns of tables and views, in their order.

    Raises:
        DestinationUnavailableError: the warehouse does not answer.
    """
    found: dict[str, dict[str, str]] = {}
    with translated_errors(), connect(warehouse, "openlineage", autocommit=True) as connection:
        connection.execute("set statement_timeout = '5s'")
        for relation, name, kind in connection.execute(
            """
            select n.nspname || '.' || c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            where n.nspname || '.' || c.relname = any(%s) and c.relkind in ('r', 'p', 'v', 'm')
            order by 1, a.attnum
            """,
            [list(relations)],
        ):
            found.setdefault(relation, {})[name] = kind
    return found


def _assertions(
    results: Iterable[NodeResult],
) -> dict[str, data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet]:
    """What the tests that ran have found, by the node that they test."""
    found: dict[str, list[data_quality_assertions_dataset.Assertion]] = {}
    for result in results:
        if result.started_at is None:
            continue
        for node in result.tests:
            found.setdefault(node, []).append(
                data_quality_assertions_dataset.Assertion(
                    assertion=result.name,
                    success=result.status in _GOOD,
                    severity=result.severity,
                    name=result.node,
                    actual=None if result.failures is None else str(result.failures),
                )
            )
    return {
        node: data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(assertions)
        for node, assertions in found.items()
    }


def _error(message: str) -> error_message_run.ErrorMessageRunFacet:
    return error_message_run.ErrorMessageRunFacet(message, "Python")


def _event(
    state: RunState,
    at: datetime,
    run_id: str,
    job: str,
    kind: str,
    parent: tuple[str, str] | None,
    facets: Facets,
    inputs: list[InputDataset],
    outputs: list[OutputDataset],
) -> Event:
    namespace = os.environ.get("OPENLINEAGE_NAMESPACE") or "headwater"
    if parent is not None:
        facets["parent"] = parent_run.ParentRunFacet(parent_run.Run(parent[0]), parent_run.Job(namespace, parent[1]))
    return RunEvent(
        eventType=state,
        eventTime=at.isoformat(),
        run=Run(run_id, facets),
        job=Job(namespace, job, {"jobType": job_type_job.JobTypeJobFacet("BATCH", "HEADWATER", kind)}),
        inputs=inputs,
        outputs=outputs,
        producer=PRODUCER,
    )
