"""Memory is flat in the size of a file, of every format, read and read again from the landing, and exported."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from sqlalchemy.engine import make_url

from connectors.connections import StoreLocation
from connectors.destinations.landing import Landing
from connectors.export import ExportFormat, export
from connectors.files import CsvStream, JsonLinesStream, JsonStream, ParquetStream
from connectors.formats.file_streams import FileStream
from connectors.ingest import Destination, ingest
from connectors.rebuild import rebuild
from tests.conftest import Warehouse
from tests.connectors.examples import met

ROW_BYTES = 2000


def stream_of(kind: str, name: str) -> FileStream:
    definition: dict[str, Any] = {"name": name, "primary_key": ("id",), "pattern": f"{name}.*"}
    if kind == "json":
        return JsonStream(records="result.items", **definition)
    return {"csv": CsvStream, "jsonl": JsonLinesStream, "parquet": ParquetStream}[kind](**definition)


def rows(megabytes: float) -> Iterator[dict[str, Any]]:
    """Records that compress to about half."""
    choose = random.Random(3)
    for number in range(int(megabytes * (1 << 20) / ROW_BYTES)):
        yield {"id": str(number), "text": choose.randbytes(ROW_BYTES // 2).hex()}


def write(folder: Path, kind: str, name: str, megabytes: float) -> None:
    """A file of some size, without holding it."""
    if kind == "parquet":
        schema = pa.schema({"id": pa.string(), "text": pa.string()})
        with pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd") as writer:
            writer.write_table(pa.Table.from_pylist(list(rows(megabytes)), schema))
        return
    if kind == "csv":
        with gzip.open(folder / f"{name}.csv.gz", "wt", compresslevel=1) as file:
            file.write("id,text\n")
            file.writelines(f'{row["id"]},"{row["text"]}"\n' for row in rows(megabytes))
    elif kind == "jsonl":
        with zstandard.open(folder / f"{name}.jsonl.zst", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(megabytes))
    else:
        with (folder / f"{name}.json").open("w") as file:
            file.write('{"result": {"items": [')
            file.writelines(("" if row["id"] == "0" else ",") + json.dumps(row) for row in rows(megabytes))
            file.write("]}}")


def peak() -> int:
    """The most memory that this program has had; what `getrusage` says begins with that of its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measure(kind: str, folder: str, loader: str, landing: str) -> None:
    """In a process of its own: print by how many bytes the greatest memory grew from a small file to a large one."""
    destination = Destination(make_url(loader), Landing(StoreLocation(landing)))
    peaks = []
    for name in ("small", "large"):
        stream = stream_of(kind, name)
        source, where = met(stream, folder)
        loaded = ingest(source, stream, where, destination)[-1]
        rebuild(source, stream, destination)
        done = export(
            source,
            stream,
            destination.landing,
            Path(f"{name}.{kind}.out"),
            ExportFormat.PARQUET if kind == "csv" else ExportFormat.JSONL,
            warehouse=lambda: destination.warehouse,
        )
        assert done.rows == loaded.inserted
        peaks.append(peak())
    print(json.dumps({"rows": loaded.inserted, "growth": peaks[1] - peaks[0]}))  # noqa: T201


def grown(kind: str, megabytes: float, warehouse: Warehouse, folder: Path) -> dict[str, int]:
    (folder / "files").mkdir()
    write(folder / "files", kind, "small", 16)
    write(folder / "files", kind, "large", megabytes)
    loader = warehouse.url("loader").render_as_string(hide_password=False)
    arguments = [kind, (folder / "files").as_uri(), loader, (folder / "landing").as_uri()]
    program = "import sys; from tests.connectors.files.test_file_memory import measure; measure(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == int(megabytes * (1 << 20) / ROW_BYTES)
    return found


def test_memory_does_not_grow_with_a_file(warehouse: Warehouse, tmp_path: Path) -> None:
    assert grown("parquet", 80, warehouse, tmp_path)["growth"] < 48 << 20


@pytest.mark.chaos
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_memory_does_not_grow_with_a_large_file(kind: str, warehouse: Warehouse, tmp_path: Path) -> None:
    assert grown(kind, 300, warehouse, tmp_path)["growth"] < 48 << 20
