"""The demo as a newcomer meets it: every command of the README, in its order, on a real stack.

One stack for the whole file: starting it is most of the time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from deployments.local.layout import PROJECT_ROOT
from deployments.local.stack import LocalStack

pytestmark = pytest.mark.demo

MARTS = ("dim_airlines", "dim_airports", "dim_planes", "fct_daily_airport_operations")
MARTS += ("fct_daily_carrier_performance", "fct_flights", "fct_weather_impact")


@dataclass(slots=True)
class Demo:
    """A home of its own, and shells in it."""

    home: Path

    def shell(self, script: str, *, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run commands as the README has them; its state folder is ours."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "DBT_", "MAKE", "MFLAGS"))
        }
        return subprocess.run(
            ["bash", "-c", script.replace(". .headwater/env", f". {self.home}/env")],  # noqa: S607
            cwd=PROJECT_ROOT,
            env={**environment, "HEADWATER_HOME": str(self.home), "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(self, script: str) -> str:
        outcome = self.shell(script)
        assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]
        return outcome.stdout

    def variables(self) -> dict[str, str]:
        return LocalStack(self.home).environment()

    def query(self, statement: str, *, database: str = "headwater") -> list[tuple[Any, ...]]:
        server = LocalStack(self.home).postgres.server()
        assert server is not None
        with server.connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def prefect(self, path: str, content: dict[str, Any] | None = None, *, method: str = "POST") -> Any:
        response = httpx.request(method, f"{self.variables()['PREFECT_API_URL']}/{path}", json=content, timeout=30)
        response.raise_for_status()
        return response.json() if response.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.prefect(f"deployments/name/{name}", method="GET")
        return found

    def start(self, name: str, **parameters: Any) -> str:
        run = self.prefect(f"deployments/{self.deployment(name)['id']}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def ended(self, run_id: str, *, timeout: float = 180) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            run: dict[str, Any] = self.prefect(f"flow_runs/{run_id}", method="GET")
            if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return run
            assert time.monotonic() < deadline, run["state_name"]
            time.sleep(0.5)

    def fingerprints(self, schema: str = "serving") -> dict[str, str]:
        """A hash of each mart's rows, whatever their order."""
        return {
            mart: self.query(f"select md5(string_agg(md5(t::text), '' order by md5(t::text))) from {schema}.{mart} t")[
                0
            ][0]
            for mart in MARTS
        }


def readme_commands() -> list[str]:
    readme = (PROJECT_ROOT / "README.md").read_text()
    return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    home = tmp_path_factory.mktemp("demo") / "home"
    try:
        yield Demo(home)
    finally:
        LocalStack(home).destroy()


@pytest.fixture(scope="module")
def shown(demo: Demo) -> str:
    """What the first `make demo` shows."""
    return demo.run("make demo")


def test_the_readme_has_the_commands_that_are_tested_here() -> None:
    assert [block.splitlines()[-1] for block in readme_commands()] == [
        "make demo",
        "make advance BY=12h",
        "headwater sources",
        "make down",
        "make test",  # what runs this file
    ]


def test_the_first_demo_loads_all_of_it(demo: Demo, shown: str) -> None:
    expected = {
        "raw_flights_api.flights": 336_776,
        "raw_weather_files.weather": 26_115,
        "raw_operations_db.planes": 3_322,
        "raw_operations_db.airports": 1_458,
        "raw_operations_db.airlines": 16,
        "serving.fct_flights": 336_776,
    }
    for table, rows in expected.items():
        assert demo.query(f"select count(*) from {table}") == [(rows,)]
        assert re.search(rf"{table} +{rows:,}\n", shown), f"{table} with its rows is shown"
    assert demo.query("select count(distinct flight_id) from serving.fct_flights") == [(336_776,)]


def test_the_demo_shows_where_to_look(demo: Demo, shown: str) -> None:
    [dashboard] = re.findall(r"Dashboard +(http://127\.0\.0\.1:\d+)", shown)
    assert httpx.get(dashboard, timeout=10).status_code == 200
    [status] = re.findall(r"Status page +file://(\S+)", shown)
    assert "fct_weather_impact" in Path(status).read_text()
    found = json.loads(Path(status).with_name("status.json").read_text())
    assert {mart["mart"]: mart["rows"] for mart in found["marts"]} == dict(
        demo.query("select mart, rows from serving.data_status")
    )
    assert len(found["lineage"]["nodes"]) > len(MARTS)
    [docs] = re.findall(r"dbt docs +file://(\S+)", shown)
    assert "fct_weather_impact" in Path(docs).read_text()
    [warehouse] = re.findall(r"Warehouse, to read +(postgresql://\S+)", shown)
    with psycopg.connect(warehouse) as connection:
        assert connection.execute(
            "select count(*) from serving.data_status where mart_group = 'flight_operations'"
        ).fetchone() == (len(MARTS),)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from raw_flights_api.flights")
    assert "Where weather costs most" in shown
    assert re.search(r"LGA +heavy rain", shown)


def test_every_load_accounts_for_its_rows_and_is_in_the_landing(demo: Demo, shown: str) -> None:
    loads = demo.query(  # the first of each stream: a schedule may have fired since
        "select distinct on (source, stream) source || '.' || stream, rows_extracted, manifest_key from ops.loads"
        " order by source, stream, started_at"
    )
    assert [(name, rows) for name, rows, _ in loads] == [
        ("flights_api.flights", 336_776),
        ("operations_db.airlines", 16),
        ("operations_db.airports", 1_458),
        ("operations_db.planes", 3_322),
        ("weather_files.weather", 26_115),
    ]
    assert all((demo.home / "landing" / key).is_file() for *_, key in loads)


def transform_tasks(demo: Demo, order: str, state: str) -> list[dict[str, Any]]:
    """The task runs of the first or last transform that ended so."""
    runs = {"flows": {"name": {"any_": ["transform"]}}, "flow_runs": {"state": {"type": {"any_": [state]}}}}
    transform, *_ = demo.prefect("flow_runs/filter", {**runs, "sort": order})
    found: list[dict[str, Any]] = demo.prefect("task_runs/filter", {"flow_runs": {"id": {"any_": [transform["id"]]}}})
    return found


def test_every_model_is_a_task_run_with_its_log_and_every_test_is_in_that_of_the_flow_run(
    demo: Demo, shown: str
) -> None:
    tasks = {task["name"]: task for task in transform_tasks(demo, "START_TIME_ASC", "COMPLETED")}
    nodes = json.loads((demo.home / "dbt" / "manifest.json").read_text())["nodes"].values()
    built = {f"{node['resource_type']} {node['name']}" for node in nodes if node["resource_type"] != "test"}
    built = {name for name in built if not name.startswith("operation")}
    assert len(built) > 15
    assert {name for name in tasks if name.startswith(("model ", "snapshot ", "test ", "unit_test "))} == built
    facts = tasks["model fct_flights"]
    logs = demo.prefect("logs/filter", {"logs": {"task_run_id": {"any_": [facts["id"]]}}})
    assert any("START sql incremental model marts.fct_flights" in log["message"] for log in logs)
    assert any("OK created sql incremental model marts.fct_flights" in log["message"] for log in logs)
    before = {given["id"] for inputs in facts["task_inputs"].values() for given in inputs if "id" in given}
    assert tasks["model int_flights_delay_classified"]["id"] in before, "an edge of the graph"
    logs = demo.prefect("logs/filter", {"logs": {"flow_run_id": {"any_": [facts["flow_run_id"]]}}})
    assert len({match for log in logs for match in re.findall(r"PASS (\S+)", log["message"])}) > 50
    assert not [log for log in logs if log["task_run_id"] is None and "fct_flights ..." in log["message"]]


def test_no_secret_is_in_a_parameter_an_artifact_or_a_log(demo: Demo, shown: str) -> None:
    secrets = re.findall(r': "([^"]{16,})"', (demo.home / "secrets.json").read_text())
    assert len(secrets) >= 8
    seen = [str(demo.prefect(f"{kind}/filter", {})) for kind in ("flow_runs", "task_runs", "artifacts", "logs")]
    seen.append(str(demo.prefect("block_documents/filter", {})))
    seen += [path.read_text() for path in (demo.home / "logs").glob("*.log")]
    seen += [path.read_text() for path in (demo.home / "landing").rglob("manifest.json")]
    for table in ("loads", "streams", "publishes", "dbt_invocations", "dbt_results", "lineage_nodes"):
        seen.append(str(demo.query(f"select * from ops.{table}")))
    assert not [secret[:3] for secret in secrets for text in seen if secret in text]


def test_the_readme_commands_for_a_shell_work_and_a_second_run_moves_nothing(demo: Demo, shown: str) -> None:
    rows = "select id, _load_id, _loaded_at from raw_flights_api.flights order by id"
    watermarks = "select source, stream, value from ops.watermarks order by 1, 2"
    before = demo.fingerprints(), demo.query(rows), demo.query(watermarks)
    block = next(block for block in readme_commands() if "headwater status" in block)
    text = demo.run(f"set -e\n{block}")
    assert "pipeline/nyc" in text
    assert "flights_api" in text
    assert (demo.fingerprints(), demo.query(rows), demo.query(watermarks)) == before
    last = "select sum(rows_inserted + rows_updated + rows_deleted) from ops.published_marts where generation > 1"
    last += " and mart_group = 'flight_operations'"  # the others have the runs themselves, so that each moves them
    assert demo.query(last) == [(0,)]
    window = "between '2013-07-01Z' and '2013-07-02Z'::timestamptz - interval '1 microsecond'"
    [(there,)] = demo.query(f"select count(*) from raw_flights_api.flights where time_hour {window}")
    loads = "select status, rows_extracted, rows_unchanged from ops.loads where window_start = '2013-07-01Z'"
    assert demo.query(loads) == [("loaded", there, there)]
    assert there > 900


def test_when_time_passes_only_new_and_changed_rows_move(demo: Demo, shown: str) -> None:
    before = demo.query("select now()")[0][0]
    text = demo.run("make advance BY=12h")
    assert "It is now 2014-01-01 05:00 UTC in the demo." in text
    moved = demo.query(
        f"select source || '.' || stream, sum(rows_inserted), sum(rows_updated) from ops.loads"
        f" where started_at > '{before}' group by 1 having sum(rows_inserted + rows_updated) > 0 order by 1"
    )
    [(flights, inserted, updated), *others] = moved
    assert (flights, inserted) == ("flights_api.flights", 0)
    changed = f"select count(*) from raw_flights_api.flights where _loaded_at > '{before}'"
    assert demo.query(changed) == [(updated,)]
    assert 0 < updated < 1_000
    assert {name for name, *_ in others} <= {"operations_db.planes"}
    assert demo.query("select count(*) from serving.fct_flights where flight_status = 'scheduled'")[0][0] < 100


def test_raw_is_rebuilt_from_the_landing_alone(demo: Demo, shown: str) -> None:
    rows = "select md5(string_agg(md5(t::text), '' order by id)) from raw_flights_api.flights t"
    before = demo.query(rows)
    demo.query("delete from raw_flights_api.flights where month = 7")
    text = demo.run(". .headwater/env; headwater rebuild flights_api.flights")
    assert re.fullmatch(r"raw_flights_api\.flights has 336,776 rows, from \d+ loads\.\n", text)
    assert demo.query(rows) == before


def test_a_backfill_brings_back_what_was_lost_and_builds_on_it(demo: Demo, shown: str) -> None:
    """Some days of raw, a manifest of the landing, and beside them nothing: not the watermark, not another row."""
    own = "_load_id _loaded_at load_id loaded_at weather_loaded_at"
    raw = f"select md5(string_agg(md5((to_jsonb(t) - '{{{','.join(own.split())}}}'::text[])::text), '' order by id))"
    raw += " from raw_flights_api.flights t"
    facts = raw.replace("order by id", "order by flight_id").replace("raw_flights_api.flights", "serving.fct_flights")
    marts = {name: mark for name, mark in demo.fingerprints().items() if name != "fct_flights"}
    watermarks = "select * from ops.watermarks order by source, stream"
    before = demo.query(raw), demo.query(facts), marts, demo.query(watermarks)
    assert demo.ended(demo.start("ingest/flights-api", start="2013-09-09T04:00Z", end="2013-09-10T04:00Z"))
    [(key,)] = demo.query("select manifest_key from ops.loads where window_start = '2013-09-09T04:00Z'")
    (demo.home / "landing" / key).unlink()
    demo.query(
        "delete from raw_flights_api.flights where make_date(year::int, month::int, day::int) in"
        " ('2013-02-03', '2013-02-04', '2013-06-05', '2013-12-31')"
    )
    command = ". .headwater/env; headwater backfill plan flights_api.flights"
    plan = json.loads(demo.run(f"{command} --json"))
    assert [(each["start"][:10], each["from"]) for each in plan["windows"]] == [
        ("2013-02-03", "landing"),
        ("2013-02-04", "landing"),
        ("2013-06-05", "landing"),
        ("2013-12-31", "landing"),
    ], "the day whose manifest is gone is in the first load too, which the landing has"
    assert {each["model"] for each in plan["downstream"]} >= {
        "stg_flights_api__flights",
        "fct_flights",
        "fct_weather_impact",
    }
    assert "From the landing: 4 of them" in demo.run(command)
    text = demo.run(". .headwater/env; headwater backfill run flights_api.flights")
    assert "4 of 4 windows loaded" in text
    assert "Generation" in text
    marts = {name: mark for name, mark in demo.fingerprints().items() if name != "fct_flights"}
    assert (demo.query(raw), demo.query(facts), marts, demo.query(watermarks)) == before
    generation = demo.query("select max(generation) from ops.publishes")
    again = demo.run(". .headwater/env; headwater backfill run flights_api.flights --start 2013-03-01 --end 2013-04-01")
    assert "Nothing to do: no window is failed or missing." in again
    assert demo.ended(demo.start("catch-up/nyc"))["state_type"] == "COMPLETED"
    assert demo.query("select max(generation) from ops.publishes") == generation, "nothing to build either"
    assert "365 loaded" in demo.run(". .headwater/env; headwater windows flights_api.flights --state failed")


@pytest.mark.chaos
def test_a_year_by_daily_windows_is_the_year_by_one_load_with_one_worker_and_with_two(demo: Demo, shown: str) -> None:
    """Raw, landing and ledger know nothing of the flights at first. The second worker is a run that helps."""
    own = ["_load_id", "_loaded_at", "load_id", "loaded_at", "weather_loaded_at"]
    mark = f"md5(string_agg(h, '' order by h)) from (select md5((to_jsonb(t) - array{own})::text) as h from"
    tables = ("raw_flights_api.flights", *(f"serving.{mart}" for mart in MARTS))

    def marks() -> list[Any]:
        return [demo.query(f"select {mark} {table} t) m") for table in tables]

    assert demo.ended(demo.start("transform/nyc"))["state_type"] == "COMPLETED"
    before = marks()
    took = {}
    for workers in (1, 2):
        demo.query("drop schema raw_flights_api cascade")
        for table in ("window_changes", "windows", "quarantine", "schema_changes", "watermarks", "loads"):
            demo.query(f"delete from ops.{table} where source = 'flights_api'")
        shutil.rmtree(demo.home / "landing" / "flights_api")
        text = demo.run(f". .headwater/env; headwater backfill run flights_api.flights --at-once {workers}")
        assert "365 of 365 windows loaded" in text
        assert marks() == before
        holders, seconds = demo.query(
            "select count(distinct holder), extract(epoch from max(f.ended_at) - max(f.started_at))::float"
            " from ops.backfills f join ops.backfill_windows w using (backfill_id)"
            " where f.started_at = (select max(started_at) from ops.backfills)"
        )[0]
        assert holders <= workers
        took[workers] = seconds
    print(f"a year by one worker in {took[1]:.1f} s, by two in {took[2]:.1f} s")  # noqa: T201 - for whoever measures
    assert demo.ended(demo.start("ingest/flights-api"))["state_type"] == "COMPLETED"


@pytest.mark.chaos
def test_a_row_deleted_at_the_source_leaves_the_marts_until_it_is_back(demo: Demo, shown: str) -> None:
    def compare_and_build(**parameters: Any) -> None:
        for name, given in (("deletions/operations-db", parameters), ("transform/nyc", {})):
            run = demo.ended(demo.start(name, **given))
            assert run["state_type"] == "COMPLETED", run["state"]["message"]

    before = demo.fingerprints()
    [(airport,)] = demo.query(
        "select min(airport_code) from (select airport_code from serving.dim_airports where not is_inferred"
        " except select airport_code from serving.fct_daily_airport_operations) unserved"
    )
    [(plane,)] = demo.query("select min(tail_number) from serving.dim_planes where not is_inferred")
    demo.query(
        f"create table kept_airports as select * from airports where faa = '{airport}';"
        f"create table kept_planes as select * from planes where tailnum = '{plane}';"
        f"delete from airports where faa = '{airport}'; delete from planes where tailnum = '{plane}'",
        database="operations",
    )
    compare_and_build()
    assert demo.query(f"select * from serving.dim_airports where airport_code = '{airport}'") == []
    inferred = f"select is_inferred, plane_type from serving.dim_planes where plane_key = '{plane}'"
    assert demo.query(inferred) == [(True, None)], "its flights are still there"
    kept = "select count(*), count(_deleted_at) from raw_operations_db.planes"
    assert demo.query(kept) == [(3_322, 1)]
    demo.query(
        "insert into airports select * from kept_airports; insert into planes select * from kept_planes;"
        "drop table kept_airports, kept_planes",
        database="operations",
    )
    compare_and_build(streams=["planes", "airports"])
    assert demo.fingerprints() == before


def test_orphans_in_the_landing_are_swept_by_night_and_by_hand(demo: Demo, shown: str) -> None:
    [(key,)] = demo.query("select min(manifest_key) from ops.loads where stream = 'flights' and status = 'loaded'")
    folder = (demo.home / "landing" / key).parent
    there = {path.name for path in folder.iterdir()}
    then = time.time() - timedelta(days=8).total_seconds()
    said = ""
    for by_hand in (False, True):
        orphan = folder / "a99-00001.jsonl.zst"
        orphan.write_bytes(b"left behind")
        os.utime(orphan, (then, then))
        if by_hand:
            said = demo.run(". .headwater/env; headwater sweep --older-than 2")
        else:
            assert demo.ended(demo.start("housekeeping/nyc"))["state_type"] == "COMPLETED"
        assert {path.name for path in folder.iterdir()} == there
    assert re.search(r"flights_api\.flights +1 +11", said)


def test_a_failing_test_fails_the_run_and_readers_keep_what_they_had(demo: Demo, shown: str) -> None:
    before = demo.fingerprints()
    [(origin, loaded_at)] = demo.query("select origin, _loaded_at::text from raw_flights_api.flights where id = 4242")
    demo.query("update raw_flights_api.flights set origin = 'LAX', _loaded_at = now() where id = 4242")
    try:
        outcome = demo.shell("make demo")
    finally:
        demo.query(
            f"update raw_flights_api.flights set origin = '{origin}', _loaded_at = '{loaded_at}' where id = 4242"
        )
    assert outcome.returncode != 0
    assert re.search(r"error: .*pipeline/nyc ended Failed: .*dbt node.? failed: .*origin", outcome.stderr)
    # The pipeline's own history is another group, and moves.
    assert re.search(
        r"Readers of `pipeline` have generation \d+; those of `flight_operations` keep the last good one",
        outcome.stderr,
    )
    assert demo.fingerprints() == before
    tasks = transform_tasks(demo, "START_TIME_DESC", "FAILED")
    failed = {task["name"]: task for task in tasks if task["state_type"] == "FAILED"}
    assert failed
    assert all(re.match(r"test \w*origin", name) for name in failed), failed
    assert all("Got 1 result" in task["state"]["message"] for task in failed.values())
    assert "model fct_flights" not in {task["name"] for task in tasks}, "what was skipped was not run"


def test_marts_built_step_by_step_equal_a_fresh_build(demo: Demo, shown: str) -> None:
    """After the first build, the changes of half a day, and a build that failed half-way."""
    before = demo.fingerprints()
    run = demo.ended(demo.start("transform/nyc", full_refresh=True))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert demo.fingerprints() == before


BAD_PARAMETERS = [
    ("ingest", {"source": "trains_api"}, "no source `trains_api`. Use one of those registered"),
    ("ingest", {"source": "flights_api", "streams": ["trains"]}, "no stream `trains` in source `flights_api`"),
    ("ingest", {"source": "flights_api", "start": "last week", "end": "2013-07-02"}, "`last week`, is not a date"),
    ("ingest", {"source": "flights_api", "start": "2013-07-02", "end": "2013-07-01"}, "The end is exclusive"),
    ("ingest", {"source": "flights_api", "start": "2013-07-02"}, "only start was given"),
    ("ingest", {"source": "operations_db", "start": "2013-07-01", "end": "2013-07-02"}, "no event_time is defined"),
    (
        "ingest",
        {"source": "flights_api", "start": "2013-07-01", "end": "2013-07-02", "full_refresh": True},
        "A full refresh reads everything",
    ),
    ("deletions", {"source": "operations_db", "streams": ["airlines"]}, "not looked for in airlines: no `deletes` is"),
    ("deletions", {"source": "flights_api"}, "not looked for in flights: no `deletes` is defined"),
    ("deletions", {"source": "operations_db", "limit": 30}, "give a number from 0 to 1"),
    ("backfill", {"source": "operations_db"}, "cannot be filled by window: no event_time is defined"),
    ("backfill", {"source": "flights_api", "start": "2013-07-02", "end": "soon"}, "`soon`, is not a date"),
    ("backfill", {"source": "flights_api", "mode": "all", "at_once": 0}, "by 0 workers cannot be"),
    ("transform", {"select": "fct_trains"}, "dbt selected nothing by `fct_trains`"),
]


def test_bad_parameters_and_a_source_that_is_down_get_one_clear_error_each_and_change_nothing(
    demo: Demo, shown: str
) -> None:
    """The source is asked again for some time, and meanwhile: one run as a person would start it, through a deployment;
    the others in one process, whose start is most of the time."""
    variable = demo.prefect("variables/name/flights_api_url", method="GET")
    demo.prefect(f"variables/{variable['id']}", {"value": "http://127.0.0.1:1"}, method="PATCH")
    try:
        without_source = demo.start("pipeline/nyc")
        through_deployment = demo.start("ingest/flights-api", start="2013-07-02", end="2013-07-01")
        script = f"""
from flows.backfill import backfill
from flows.deletions import find_deletions
from flows.ingest import ingest
from flows.transform import transform
flows = dict(backfill=backfill, ingest=ingest, deletions=find_deletions, transform=transform)
for name, parameters, _ in {BAD_PARAMETERS!r}:
    print("run", flows[name](**parameters, return_state=True).state_details.flow_run_id)
"""
        outcome = demo.shell(f". .headwater/env; python - <<'END'\n{script}\nEND")
        stopped = demo.ended(without_source)
    finally:
        demo.prefect(f"variables/{variable['id']}", {"value": variable["value"]}, method="PATCH")
    runs = re.findall(r"^run (\S+)$", outcome.stdout, re.MULTILINE)
    assert len(runs) == len(BAD_PARAMETERS), outcome.stderr
    cases = [*zip(runs, [says for *_, says in BAD_PARAMETERS], strict=True), (through_deployment, "is empty")]
    for run_id, says in cases:
        run = demo.ended(run_id)
        assert run["state_type"] == "FAILED"
        assert says in run["state"]["message"]
        for table in ("loads", "publishes"):
            assert demo.query(f"select * from ops.{table} where run_id like '%{run_id}%'") == []
    assert stopped["state_type"] == "FAILED"
    for part in (
        "http://127.0.0.1:1 did not answer",
        "source flights_api, stream flights",
        "check that the source runs",
    ):
        assert part in stopped["state"]["message"]


def test_the_single_commands_of_the_readme_work_again_and_again(demo: Demo, shown: str) -> None:
    commands = sorted(set(re.findall(r"`(headwater [a-z]+)`", (PROJECT_ROOT / "README.md").read_text())))
    *commands, watch = commands
    deploy, doctor, *others = commands
    assert (deploy, doctor) == ("headwater deploy", "headwater doctor")
    assert others == ["headwater migrate", "headwater register", "headwater sources"]
    assert watch == "headwater watch", "which the stack runs"
    before = demo.prefect("deployments/filter", {})
    demo.run("set -e; . .headwater/env\n" + "\n".join(commands))
    after = demo.prefect("deployments/filter", {})
    assert {each["id"] for each in after} == {each["id"] for each in before}
    assert len(after) == 13


def test_dbt_runs_by_hand_beside_the_real_schemas(demo: Demo, shown: str) -> None:
    folder = demo.home / "dbt" / "by_hand"
    demo.run(
        ". .headwater/env; cd dbt; HEADWATER_SCHEMA_PREFIX=me dbt --quiet build"
        " --select stg_operations_db__airlines --indirect-selection cautious"
        f" --target-path {folder} --log-path {folder}"
    )
    assert demo.query("select count(*) from me_staging.stg_operations_db__airlines") == [(16,)]


def test_a_bucket_and_its_credentials_are_kept_by_blocks(demo: Demo, shown: str) -> None:
    script = """
from connectors.connections import EnvironmentConnections, ObjectStore
from tasks.credentials import PrefectConnections, register
probe = ObjectStore("probe_bucket")
print(register(EnvironmentConnections(), [probe]))
location = PrefectConnections().object_store(probe)
assert location == EnvironmentConnections().object_store(probe), location.url
print(location)
"""
    variables = "HEADWATER_PROBE_BUCKET_URL=s3://lake/below AWS_ACCESS_KEY_ID=id AWS_SECRET_ACCESS_KEY=canary-5 "
    variables += "AWS_REGION=eu-central-1 AWS_ENDPOINT_URL=http://127.0.0.1:9"
    text = demo.run(f". .headwater/env; {variables} python -c '{script}'")
    assert "variable/probe_bucket" in text
    assert "canary-5" not in text
    assert "canary-5" not in str(demo.prefect("block_documents/filter", {}))


def test_a_block_that_is_missing_is_named_with_the_way_to_make_it(demo: Demo, shown: str) -> None:
    script = """
from connectors.connections import Database, Secret, Setting
from connectors.errors import ConfigurationError
from tasks.credentials import PrefectConnections
connections = PrefectConnections()
for ask, need in [(connections.secret, Secret("no_key")), (connections.database, Database("no_db")),
                  (connections.setting, Setting("no_url"))]:
    try:
        ask(need)
    except ConfigurationError as error:
        print(error)
"""
    text = demo.run(f". .headwater/env; python -c '{script}'")
    assert "Prefect has no block secret/no-key. Set HEADWATER_NO_KEY in the environment and run" in text
    assert "Prefect has no block sqlalchemy-connector/no-db. Set HEADWATER_NO_DB_URL" in text
    assert "Prefect has no variable no_url. Set HEADWATER_NO_URL" in text


def test_a_schedule_fires_without_hands_and_what_it_misses_is_done_once(demo: Demo, shown: str) -> None:
    """A run takes longer than the time between two: those that were missed meanwhile become one."""
    deployment = demo.deployment("ingest/operations-db")
    scheduled = demo.prefect(
        "flow_runs/filter",
        {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        },
    )
    assert scheduled, "the schedule of prefect.yaml has made runs to come"
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    [made] = demo.prefect(
        f"deployments/{deployment['id']}/schedules",
        [{"schedule": {"interval": 2, "anchor_date": soon}, "active": True}],
    )
    try:
        deadline = time.monotonic() + 120
        by_state: dict[str, list[dict[str, Any]]] = {}
        while not (by_state.get("COMPLETED") and by_state.get("CANCELLED")) and time.monotonic() < deadline:
            time.sleep(1)
            runs = demo.prefect("flow_runs/filter", {"deployments": {"id": {"any_": [deployment["id"]]}}})
            by_state = {}
            for run in runs:
                if run["auto_scheduled"]:
                    by_state.setdefault(run["state_type"], []).append(run)
        assert by_state.get("COMPLETED"), "a run that nobody started has completed"
        messages = {run["state"]["message"] for run in by_state["CANCELLED"]}
        assert all(re.fullmatch(r"It was missed; the run .+ does its work\.", message) for message in messages)
    finally:
        demo.prefect(f"deployments/{deployment['id']}/schedules/{made['id']}", method="DELETE")


def test_what_keeps_the_stack_from_starting_is_one_message_and_no_traceback(demo: Demo, shown: str) -> None:
    """The causes are tested with the stack (tests/deployments/local); here, how the command ends."""
    outcome = demo.shell("HEADWATER_HOME=/proc/nowhere make demo")
    assert outcome.returncode != 0
    assert outcome.stderr.startswith("error: The state folder cannot be made or written")
    assert "What to do:" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_down_stops_everything_and_data_stays(demo: Demo, shown: str) -> None:
    pids = [service.pid for service in LocalStack(demo.home).status() if service.pid]
    assert len(pids) >= 4
    demo.run("make down")
    assert not any(service.is_healthy for service in LocalStack(demo.home).status())
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert demo.run("make down") == "Nothing was running.\n"
    LocalStack(demo.home).start_postgres()
    assert demo.query("select count(*) from serving.fct_flights") == [(336_776,)]
    demo.run("make destroy")
    assert not demo.home.exists()
