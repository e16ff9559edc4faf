"""Superset's assets as the files have them, and the queries that its charts come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from deployments.bi.service import ASSETS

Asset = dict[str, Any]


def assets(kind: str) -> dict[str, Asset]:
    """Those of a kind (databases, datasets, charts, dashboards), by UUID."""
    found = [yaml.safe_load(path.read_text()) for path in sorted((ASSETS / kind).glob("*.yaml"))]
    assert found, kind
    return {asset["uuid"]: asset for asset in found}


def relation(dataset: Asset) -> str:
    """What a dataset stands for, to be written after `from`."""
    return f"({dataset['sql']})" if dataset["sql"] else f"{dataset['schema']}.{dataset['table_name']}"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its dataset."""

    asset: Asset
    dataset: Asset

    @property
    def name(self) -> str:
        return str(self.asset["slice_name"])

    @property
    def columns(self) -> list[str]:
        """What it groups by or lists."""
        params = self.asset["params"]
        named = [params.get("x_axis"), *params.get("groupby", ()), *params.get("all_columns", ())]
        return list(dict.fromkeys(filter(None, named)))

    @property
    def metrics(self) -> list[str]:
        params = self.asset["params"]
        named = [params.get("metric"), *params.get("metrics", ()), params.get("timeseries_limit_metric")]
        return list(dict.fromkeys(filter(None, named)))

    @property
    def filters(self) -> list[Asset]:
        """Its own, without the place that it has for dates of the dashboard."""
        return [each for each in self.asset["params"]["adhoc_filters"] if each.get("operator") != "TEMPORAL_RANGE"]

    @property
    def having(self) -> str:
        return " and ".join(each["sqlExpression"] for each in self.filters if each["clause"] == "HAVING")

    def query(self, *, where: str = "true", having: str | None = None) -> str:
        """SQL as Superset writes it for this chart, in essence."""
        expressions = {each["metric_name"]: each["expression"] for each in self.dataset["metrics"]}
        own = (each for each in self.filters if each["clause"] == "WHERE")
        conditions = [where, *(f"{each['subject']} {each['operator']} '{each['comparator']}'" for each in own)]
        selected = [*self.columns, *(f"{expressions[name]} as {name}" for name in self.metrics)]
        query = f"select {', '.join(selected)} from {relation(self.dataset)} as dataset"
        query += f" where {' and '.join(conditions)}"
        if self.metrics:
            query += f" group by {', '.join(self.columns)}"
        if self.metrics and (condition := self.having if having is None else having):
            query += f" having {condition}"
        return query


def charts() -> Iterator[Chart]:
    """All of them."""
    datasets = assets("datasets")
    for asset in assets("charts").values():
        yield Chart(asset, datasets[asset["dataset_uuid"]])
