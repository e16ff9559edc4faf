"""Looking for texts that nobody may see: in logs, in the landing, in every table of the warehouse."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import zstandard

from tests.conftest import Warehouse


@contextmanager
def heard() -> Iterator[list[str]]:
    """All that is logged meanwhile, by anyone, at any level."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(logging.Formatter().format(record))

    root, ear = logging.getLogger(), Ear()
    level = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    try:
        yield said
    finally:
        root.setLevel(level)
        root.removeHandler(ear)


def landed(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file of a landing, decompressed."""
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".zst":
                content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
            if path.suffix == ".parquet":  # compressed in itself
                content += str(pq.read_table(path).to_pylist()).encode()
            yield path, content


def landing_telling(folder: Path, texts: Iterable[str]) -> list[str]:
    """The names of a landing's files that have one of the texts."""
    wanted = [text.encode() for text in texts]
    return [path.name for path, content in landed(folder) if any(text in content for text in wanted)]


def tables_telling(warehouse: Warehouse, texts: Iterable[str]) -> list[str]:
    """The tables of a warehouse, whatever their schema, that have one of the texts."""
    patterns = ["%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%" for text in texts]
    tables = warehouse.query(
        "select format('%I.%I', schemaname, tablename) from pg_tables"
        " where schemaname not in ('pg_catalog', 'information_schema')"
    )
    return [
        table
        for (table,) in tables
        if warehouse.query(f"select from {table} t where t::text like any(%s) limit 1", [patterns])
    ]
