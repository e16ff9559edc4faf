"""A ledger as a bad night leaves it: a source that fails since yesterday, marts that are held back, tests that fail."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Warehouse

HOSTILE = "<script>document.title='taken over'</script>"
"""What must stay text, wherever it is a name."""
BACKSLASHED = "</script><img src=x onerror=alert(1)> & \u2028 'quoted' \"twice\""


def fill(warehouse: Warehouse) -> None:
    """Write a bad night into `ops`."""
    warehouse.execute((Path(__file__).parent / "bad_night.sql").read_text())


def make_hostile(warehouse: Warehouse) -> None:
    """Give things names that would run if a page took them for more than text."""
    warehouse.execute(
        f"""
        insert into ops.serving_marts (mart, mart_group, generation, rows) values ($a${HOSTILE}$a$, 'crew', 40, 1);
        update ops.incidents set title = $a${BACKSLASHED}$a$ where severity = 'error';
        update ops.loads set error = $a${HOSTILE}$a$ where status = 'failed';
        insert into ops.schema_changes (source, stream, load_id, column_name, change)
        select source, stream, load_id, $a${BACKSLASHED}$a$, 'removed' from ops.loads limit 1;
        """
    )
