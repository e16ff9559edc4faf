"""The flow that reconciles, on a Prefect server of its own: it fails when raw is not what the source is."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError, DataError
from connectors.ingest import LANDING, WAREHOUSE_LOADER, Destination, ingest
from connectors.model import Cursor, Deletes, Windows
from connectors.registry import SOURCES
from connectors.sources.weather_files import weather_files
from flows.reconcile import reconcilable_streams, reconcile
from tasks.credentials import register
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare, erp

TABLE = """
create table t (id int primary key, at timestamptz not null, v text, changed timestamptz not null);
insert into t select n, '2024-03-01Z'::timestamptz + n * interval '1 hour', 'v' || n,
    '2024-04-01Z'::timestamptz + n * interval '1 second' from generate_series(0, 99) n
"""


@pytest.mark.usefixtures("prefect_server")
def test_a_run_fails_with_the_rows_that_differ_and_one_that_heals_them_does_not(
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = source_database(TABLE)
    source = erp(
        name="t",
        primary_key=("id",),
        cursor=Cursor("changed"),
        event_time="at",
        windows=Windows(first="2024-03-01", until="2024-03-05"),
        deletes=Deletes(),
    )
    monkeypatch.setitem(SOURCES, "erp", source)
    loader = warehouse.url("loader").render_as_string(hide_password=False)
    erp_url = warehouse.server.url.set(database=connection.info.dbname).render_as_string(hide_password=False)
    environment = EnvironmentConnections(
        {
            "HEADWATER_ERP_URL": erp_url,
            "HEADWATER_WAREHOUSE_LOADER_URL": loader,
            "HEADWATER_LANDING_URL": landing_folder.as_uri(),
        }
    )
    register(environment, [*source.requirements, WAREHOUSE_LOADER, LANDING])
    ingest(source, source.streams[0], environment, destination)
    warehouse.execute("delete from raw_erp.t where id = 30")
    connection.execute("delete from t where id = 60")
    said = r"2 rows of raw .* erp.t \[2024-03-02, 2024-03-03\) key 30 missing; erp.t \[2024-03-03, .* key 60 deleted"
    with pytest.raises(DataError, match=said):
        reconcile("erp", streams=["t"])
    with get_client(sync_client=True) as client:
        shown = [artifact for artifact in client.read_artifacts() if artifact.key == "differences-erp"]
    assert '"key": "30"' in str(shown[0].data)

    healed = reconcile("erp", start="2024-03-01", end="2024-03-05", heal=True)
    assert [(len(each.findings.differences), each.findings.open) for each in healed] == [(2, [])]


def test_streams_that_cannot_be_compared_are_refused_by_name_and_left_out_otherwise() -> None:
    operations = SOURCES["operations_db"]
    assert [each.name for each in reconcilable_streams(operations, None, by_window=False)] == [
        "planes",
        "airports",
        "airlines",
    ]
    with pytest.raises(ConfigurationError, match="planes, airports, airlines cannot be compared .* event_time"):
        reconcilable_streams(operations, None, by_window=True)
    with pytest.raises(ConfigurationError, match="weather cannot be compared with weather_files.*files do not"):
        reconcilable_streams(weather_files, ["weather"], by_window=False)
