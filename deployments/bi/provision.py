"""Bring Superset's own database up to date, and its assets in or out. Run by Superset's Python, not by ours.

    provision.py import <folder>    schema, roles, the administrator, and every asset of the folder
    provision.py export <folder>    the assets of the folder's dashboards, as they are now, into the folder

Promises: `import` is idempotent and overwrites what was changed by hand in assets of the folder; everything else in
Superset is left alone. One process, because starting Superset takes longer than all that it does here.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

_ADMINISTRATOR = "admin"


def main(action: str, folder: Path) -> None:
    """Do one of the two."""
    from superset.app import create_app

    with create_app().app_context():
        if action == "import":
            _migrate()
            _import(folder)
        else:
            _export(folder)


def _migrate() -> None:
    from flask_migrate import upgrade
    from superset import appbuilder, security_manager

    upgrade()
    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    password = os.environ["HEADWATER_BI_ADMIN_PASSWORD"]
    user = security_manager.find_user(_ADMINISTRATOR)
    if user is None:
        role = security_manager.find_role("Admin")
        user = security_manager.add_user(
            _ADMINISTRATOR, "Headwater", "Administrator", "admin@headwater.example", role, password
        )
        if not user:
            sys.exit("Superset did not make its administrator; its log has the reason.")
    elif not _has_password(user, password):
        security_manager.reset_password(user.id, password)


def _has_password(user: Any, password: str) -> bool:
    from werkzeug.security import check_password_hash

    return bool(check_password_hash(user.password, password))


def _import(folder: Path) -> None:
    from superset import security_manager
    from superset.commands.importers.v1.assets import ImportAssetsCommand
    from superset.utils.core import override_user

    contents = {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.yaml"))}
    with override_user(security_manager.find_user(_ADMINISTRATOR)):
        ImportAssetsCommand(contents).run()


def _export(folder: Path) -> None:
    from superset import db, security_manager
    from superset.commands.dashboard.export import ExportDashboardsCommand
    from superset.models.dashboard import Dashboard
    from superset.utils.core import override_user

    known = [yaml.safe_load(path.read_text())["uuid"] for path in (folder / "dashboards").glob("*.yaml")]
    numbers = [number for (number,) in db.session.query(Dashboard.id).filter(Dashboard.uuid.in_(known))]
    if not numbers:
        sys.exit("Superset has none of the dashboards of the folder. Import them first.")
    with override_user(security_manager.find_user(_ADMINISTRATOR)):
        exported = [(name, yaml.safe_load(content())) for name, content in ExportDashboardsCommand(numbers).run()]
    for kind, simplified in _KINDS.items():
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir()
        for name, asset in exported:
            if name.startswith(f"{kind}/"):
                title, content = simplified(asset)
                file = folder / kind / f"{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_')}.yaml"
                file.write_text(yaml.dump(content, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=110))


class _Readable(yaml.SafeDumper):
    """Text of several lines, SQL above all, as a block of lines."""


_Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


# An asset of each kind, as a name for its file and without what is of one installation or one session: numbers, which
# the import gives anew, and orders that are those of the numbers.


def _database(asset: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return asset["database_name"], asset


def _dataset(asset: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    for part, name in (("columns", "column_name"), ("metrics", "metric_name")):
        asset[part].sort(key=lambda each: each[name])
    return asset["table_name"], asset


def _chart(asset: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    for name in ("datasource", "dashboards", "slice_id", "extra_form_data", "dashboardId"):
        asset["params"].pop(name, None)
    asset["params"] = dict(sorted(asset["params"].items()))
    # The page makes it from the params; what is saved would be a second truth.
    asset["query_context"] = None
    return asset["slice_name"], asset


def _dashboard(asset: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    placed = [each["meta"] for each in asset["position"].values() if isinstance(each, dict) and "meta" in each]
    charts = sorted((meta for meta in placed if "chartId" in meta), key=lambda meta: str(meta["sliceName"]))
    numbers = {meta["chartId"]: number for number, meta in enumerate(charts, 1)}
    for meta in charts:
        meta["chartId"] = numbers[meta["chartId"]]
    metadata = asset["metadata"]
    metadata["chart_configuration"] = {}
    for each in (metadata.get("global_chart_configuration", {}), *metadata.get("native_filter_configuration", ())):
        each.pop("chartsInScope", None)
        each.pop("tabsInScope", None)
        scope = each.get("scope", {})
        scope["excluded"] = sorted(numbers[number] for number in scope.get("excluded", ()) if number in numbers)
    asset["position"] = dict(sorted(asset["position"].items()))
    asset["metadata"] = dict(sorted(metadata.items()))
    return asset["slug"], asset


_KINDS: dict[str, Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "databases": _database,
    "datasets": _dataset,
    "charts": _chart,
    "dashboards": _dashboard,
}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
