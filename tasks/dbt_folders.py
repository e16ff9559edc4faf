"""Where dbt's project is, and where it leaves what it made; for those who read that and have no need of dbt itself."""

from __future__ import annotations

import os
from pathlib import Path

DBT_PROJECT = Path(os.environ.get("HEADWATER_DBT_PROJECT") or Path(__file__).resolve().parent.parent / "dbt")
DBT_TARGET = Path(os.environ.get("HEADWATER_DBT_TARGET") or DBT_PROJECT / "target")
"""Where dbt leaves its artifacts: apart from those of a developer who runs dbt by hand, if the variable is set."""
