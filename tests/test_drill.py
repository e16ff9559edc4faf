"""The restore drill on the demo as it is, by the commands of docs/operations.md: `make drill`, some minutes.

The warehouse is backed up; half a day passes, which is loaded, built and served; a plane is forgotten; the database is
dropped. From the backup and the landing all is as it was: what is served, watermarks, history, and nobody is back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from deployments.local.stack import LocalStack
from tests.test_demo import MARTS, Demo

pytestmark = pytest.mark.chaos

LOADED = "select load_id, rows_extracted from ops.loads where status = 'loaded'"
_WHEN = "'{loaded_at,weather_loaded_at,seen_at,valid_from,valid_to,version_id,published_at}'"


@pytest.mark.parametrize("kind", ["--no-raw", "--raw"])
def test_the_demo_comes_back_from_backup_and_landing(tmp_path: Path, kind: str, record_property: Any) -> None:
    demo = Demo(tmp_path / "home")
    try:
        run(demo, ".venv/bin/headwater demo")
        run(demo, f". .headwater/env && headwater backup run {kind}")
        run(demo, ". .headwater/env && headwater backup check")
        run(demo, ".venv/bin/headwater advance 12h")
        [(plane,)] = demo.query("select tailnum from raw_operations_db.planes order by tailnum limit 1")
        run(demo, f". .headwater/env && headwater forget operations_db.planes --key tailnum={plane} --yes --why drill")
        before, loaded = _state(demo), demo.query(LOADED)
        run(demo, ".venv/bin/headwater down")

        stack = LocalStack(demo.home)
        server = stack.start_postgres()
        with server.connect() as connection:
            connection.execute(sql.SQL("drop database headwater with (force)"))
        stack.start_postgres()  # an empty one, as docs/roles.md has it
        said = run(demo, ". .headwater/env && headwater restore")
        assert "were taken over from the landing" in said
        assert "1 requests to forget of after the backup were repeated" in said
        run(demo, ".venv/bin/headwater up")
        run(demo, ". .headwater/env && prefect deployment run 'transform/nyc' --watch && headwater forget --resume")
        assert _state(demo) == before
        # Those that found nothing landed nothing, and are known to the warehouse alone.
        assert {rows for _, rows in set(loaded) - set(demo.query(LOADED))} <= {0}
        assert demo.query("select from snapshots.snap_operations_db__planes where tail_number = '" + plane + "'") == []
        record_property("said", said)
    finally:
        LocalStack(demo.home).destroy()


def run(demo: Demo, script: str) -> str:
    """As `Demo.run`, with time enough for a machine that has other things to do."""
    outcome = demo.shell(script, timeout=1200)
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]
    return outcome.stdout


def _state(demo: Demo) -> list[list[tuple[Any, ...]]]:
    """What is served, but for when it was loaded, and how far each stream is."""
    rows = "select (to_jsonb(t) - {}::text[])::text from serving.{} t"
    digest = "select md5(string_agg(r, '' order by r)), count(*) from ({}) s (r)"
    found = [demo.query(digest.format(rows.format(_WHEN, mart))) for mart in MARTS]
    return [*found, demo.query("select source, stream, value from ops.watermarks order by 1, 2")]
