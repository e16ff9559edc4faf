"""The kinds of trouble that checks and the watcher see; docs/incidents.md says what each means and what to do."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """In the words of the runbook."""

    LOAD_FAILED = "load failed"
    LOAD_KILLED = "load killed"
    WINDOWS_FAILED = "windows failed"
    BACKFILL_KILLED = "backfill killed"
    STREAM_LATE = "stream late"
    STREAM_STALE = "stream stale"
    ROWS_QUARANTINED = "rows quarantined"
    COLUMNS_REMOVED = "columns removed"
    MODEL_FAILED = "model failed"
    TEST_FAILED = "test failed"
    TEST_WARNED = "test warned"
    BUILD_FAILED = "build failed"
    BUILD_KILLED = "build killed"
    GROUP_HELD_BACK = "group held back"
    GROUP_ON_HOLD = "group on hold"
    ROWS_DIFFER = "rows differ"
    RECONCILIATION_FAILED = "reconciliation failed"
    BACKUP_LATE = "backup late"
    BACKUP_DAMAGED = "backup damaged"
    WATCHER_SILENT = "watcher silent"
    WAREHOUSE_SILENT = "warehouse silent"
    SERVER_SILENT = "server silent"
    WORKER_SILENT = "worker silent"
    RUN_FAILED = "run failed"
    RUN_CRASHED = "run crashed"
    RUN_PENDING = "run pending"
    RUN_TOO_LONG = "run too long"
    RUN_LATE = "run late"
    RUN_ABSENT = "run absent"
