"""The BI tool's files against a real serving schema: they name what is there; the reader's rights are enough."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy.engine import make_url

from connectors.destinations.warehouse.changes import prepare
from connectors.destinations.warehouse.publish import DATA_STATUS, publish
from deployments.bi.service import ASSETS, DASHBOARD
from tasks.dbt_graph import Graph
from tests.dbt.conftest import Dbt, Outcome, bad
from tests.deployments.bi.assets import Asset, Chart, assets, charts, relation


@pytest.fixture(scope="module")
def reader(dbt: Dbt, of_good_data: dict[str, Outcome]) -> Iterator[psycopg.Connection]:
    """The reader, once what dbt has built is published."""
    assert bad(of_good_data) == {}
    marts = Graph(json.loads((dbt.target / "manifest.json").read_text())).marts()
    prepare(dbt.warehouse.url("transformer"), marts)
    report = publish(dbt.warehouse.url("publisher"), marts, invocation_id="test")
    assert report.held_back == {}
    with dbt.warehouse.connect("reader") as connection:
        yield connection


def types(reader: psycopg.Connection, relation: str) -> dict[str, str]:
    """Type by column, in PostgreSQL's words."""
    described = reader.execute(f"select * from {relation} as dataset limit 0".encode()).description or ()
    return {
        column.name: reader.execute("select upper(format_type(%s, null))", [column.type_code]).fetchall()[0][0]
        for column in described
    }


@pytest.mark.parametrize("dataset", list(assets("datasets").values()), ids=lambda each: each["table_name"])
def test_a_dataset_has_the_columns_that_serving_has_with_their_types(
    reader: psycopg.Connection, dataset: Asset
) -> None:
    assert {each["column_name"]: each["type"] for each in dataset["columns"]} == types(reader, relation(dataset))
    assert dataset["database_uuid"] in assets("databases")
    dates = {each["column_name"] for each in dataset["columns"] if each["is_dttm"]}
    assert dates == {
        name for name, kind in types(reader, relation(dataset)).items() if kind.startswith(("DATE", "TIME"))
    }
    assert dataset["main_dttm_col"] in {None, *dates}


@pytest.mark.parametrize("chart", list(charts()), ids=lambda each: each.name)
def test_a_chart_names_what_its_dataset_has_and_the_reader_gets_rows(reader: psycopg.Connection, chart: Chart) -> None:
    columns = {each["column_name"] for each in chart.dataset["columns"]}
    metrics = {each["metric_name"] for each in chart.dataset["metrics"]}
    params = chart.asset["params"]
    assert set(chart.columns) <= columns
    assert set(chart.metrics) <= metrics
    assert {each["subject"] for each in params["adhoc_filters"] if each["expressionType"] == "SIMPLE"} <= columns
    assert params.get("x_axis_sort") in {None, *columns, *metrics}
    assert {rule["column"] for rule in params.get("conditional_formatting", ())} <= {*chart.columns, *chart.metrics}
    assert {column for column, _ in map(json.loads, params.get("order_by_cols", ()))} <= columns
    # These flights are too few for "at least 20"; that the condition is SQL is seen all the same.
    reader.execute(chart.query().encode())
    assert reader.execute(chart.query(having="").encode()).fetchall()


def test_the_dashboard_places_every_chart_and_its_filters_name_columns() -> None:
    [dashboard] = assets("dashboards").values()
    assert dashboard["slug"] == DASHBOARD
    position = dashboard["position"]
    placed = {
        each["meta"]["uuid"]: each["meta"]
        for each in position.values()
        if isinstance(each, dict) and each["type"] == "CHART"
    }
    assert {uuid: meta["sliceName"] for uuid, meta in placed.items()} == {
        uuid: chart["slice_name"] for uuid, chart in assets("charts").items()
    }
    for row in (each for each in position.values() if isinstance(each, dict) and each["type"] == "ROW"):
        assert sum(position[child]["meta"]["width"] for child in row["children"]) == 12, "a row is full"
    datasets = assets("datasets")
    numbers = {meta["chartId"]: uuid for uuid, meta in placed.items()}
    for each in dashboard["metadata"]["native_filter_configuration"]:
        unfiltered = {
            datasets[assets("charts")[numbers[n]]["dataset_uuid"]]["table_name"] for n in each["scope"]["excluded"]
        }
        assert unfiltered == {DATA_STATUS}, "what can be trusted does not depend on what is looked at"
        for target in filter(None, each["targets"]):
            columns = {column["column_name"] for column in datasets[target["datasetUuid"]]["columns"]}
            assert target["column"]["name"] in columns


def test_shares_are_those_of_the_marts(reader: psycopg.Connection) -> None:
    [flights] = [each for each in assets("datasets").values() if each["table_name"] == "flights"]
    metric = {each["metric_name"]: each["expression"] for each in flights["metrics"]}
    shares = ", ".join(f"({metric[name]})::numeric(5, 4)" for name in ("on_time_share", "cancelled_share"))
    rows = f"select airline_name, event_date, {metric['flights']}, {shares} from {relation(flights)} d group by 1, 2"
    mart = (
        "select airline_name, event_date, scheduled_flights, on_time_share, cancelled_share"
        " from serving.fct_daily_carrier_performance join serving.dim_airlines using (carrier_code)"
    )
    found = reader.execute(f"{rows} order by 1, 2".encode()).fetchall()
    assert len(found) > 100
    assert found == reader.execute(f"{mart} order by 1, 2".encode()).fetchall()


@pytest.mark.parametrize("condition", ["event_date = '2013-02-01'", "origin = 'EWR' and event_date = '2013-02-01'"])
def test_a_filter_of_the_dashboard_finds_an_index_of_what_is_served(reader: psycopg.Connection, condition: str) -> None:
    [chart] = [each for each in charts() if each.name == "On time by day and origin"]
    with reader.transaction():
        reader.execute("set local enable_seqscan = off")  # there are too few rows here for an index to pay
        plan = "\n".join(row for (row,) in reader.execute(f"explain {chart.query(where=condition)}".encode()))
    assert re.search(r"(on|using) index_\w+", plan, re.IGNORECASE), plan
    assert re.search(r"Index Cond: .*event_date", plan), plan
    assert "dim_planes" not in plan, "a join that the chart does not need is not made"


def test_every_view_of_serving_and_each_of_its_columns_has_a_comment(dbt: Dbt, reader: psycopg.Connection) -> None:
    described = dbt.warehouse.query(
        "select c.relname, a.attname, num_nulls(obj_description(c.oid), col_description(c.oid, a.attnum)) = 0"
        " from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0"
        " where c.relnamespace = 'serving'::regnamespace"
    )
    assert len({view for view, *_ in described}) == 13
    assert [(view, column) for view, column, is_described in described if not is_described] == []


def test_the_exposure_depends_on_what_the_datasets_read(dbt: Dbt, reader: psycopg.Connection) -> None:
    assert dbt.manifest is not None
    [dashboard] = assets("dashboards").values()
    [exposure] = [each for each in dbt.manifest.exposures.values() if each.label == dashboard["dashboard_title"]]
    read = {
        name for dataset in assets("datasets").values() for name in re.findall(r"serving\.(\w+)", relation(dataset))
    }
    assert DATA_STATUS in read
    assert {node.rpartition(".")[2] for node in exposure.depends_on.nodes} == read - {DATA_STATUS}
    assert (exposure.url or "").endswith(f"/superset/dashboard/{dashboard['slug']}/")
    assert exposure.owner.email


def test_the_files_name_the_reader_and_hold_no_secret() -> None:
    for database in assets("databases").values():
        url = make_url(database["sqlalchemy_uri"])
        assert (url.username, url.password) == ("headwater_reader", None)
        assert not [
            database[right]
            for right in ("allow_dml", "allow_ctas", "allow_cvas", "allow_file_upload")
            if database[right]
        ]
    for path in ASSETS.rglob("*.yaml"):
        assert not re.search(r"password|secret|encrypted_extra", path.read_text(), re.IGNORECASE), path
