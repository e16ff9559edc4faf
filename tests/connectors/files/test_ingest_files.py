"""CSV files in raw: each once, again when it changes, byte for byte in the landing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.errors import (
    ConfigurationError,
    MalformedResponseError,
)
from connectors.ingest import Destination, ingest
from connectors.model import Window
from tests.conftest import Warehouse
from tests.connectors.examples import (
    counts,
    drop,
    raw,
    weather,
)


def test_files_are_read_once_and_again_only_when_they_change(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    folder = tmp_path / "files"
    one = 'station,hour,temp,note\nEWR,2013-01-01T00:00Z,1.50,"a, ""b""\nc"\nJFK,2013-01-01T00:00Z,NA,\n'
    drop(folder, {"weather-2013-01-01.csv": one, "other.csv": "x\n1\n", "weather-2013-01-02.csv.part": "half"})
    source, where = weather(folder)
    stream = source.streams[0]
    assert counts(ingest(source, stream, where, destination)[-1]) == (2, 2, 0, 0, 0, 0)
    assert raw(warehouse, "station, temp::text, note", "raw_met.weather") == [
        ("EWR", "1.50", 'a, "b"\nc'),
        ("JFK", None, None),
    ]
    assert ingest(source, stream, where, destination)[-1].extracted == 0
    drop(folder, {"weather-2013-01-01.csv": one.replace("1.50", "2.75")})
    drop(folder, {"weather-2013-01-02.csv": "station,hour,temp\nEWR,2013-01-02T00:00Z,3\n"})
    assert counts(ingest(source, stream, where, destination)[-1]) == (3, 1, 1, 1, 0, 0)
    assert raw(warehouse, "count(*), min(temp)::text", "raw_met.weather") == [(3, "2.75")]


def test_a_window_reads_the_files_of_its_days(tmp_path: Path, destination: Destination) -> None:
    folder = tmp_path / "files"
    days = [f"2013-01-{day:02}" for day in range(1, 11)]
    drop(folder, {f"weather-{day}.csv": f"station,hour,temp\nEWR,{day}T12:00Z,1\n" for day in days})
    source, where = weather(folder)
    ingest(source, source.streams[0], where, destination)
    window = Window.parse("2013-01-05", "2013-01-06")
    report = ingest(source, source.streams[0], where, destination, window=window)[-1]
    assert report.extracted == 3, "the day, and the two whose local day may reach into it"
    assert report.unchanged == 3


def test_a_ragged_record_is_quarantined_and_a_broken_file_is_refused(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    folder = tmp_path / "files"
    source, where = weather(folder, reject_limit=0.5)
    drop(folder, {"weather-2013-01-01.csv": "station,hour,temp\nEWR,2013-01-01T00:00Z,1\nJFK,2013-01-01T00:00Z\n"})
    assert counts(ingest(source, source.streams[0], where, destination)[-1]) == (2, 1, 0, 0, 0, 1)
    [(reason,)] = warehouse.query("select reason from ops.quarantine")
    assert reason == "weather-2013-01-01.csv, record 3: 2 values under 3 columns"
    (folder / "weather-2013-01-02.csv").write_bytes(b"station,hour,temp\nEWR,2013-01-02T00:00Z,\xff\n")
    with pytest.raises(MalformedResponseError, match="weather-2013-01-02.csv is not UTF-8"):
        ingest(source, source.streams[0], where, destination)
    assert len(raw(warehouse, "*", "raw_met.weather")) == 1


def test_the_landing_holds_files_byte_for_byte(tmp_path: Path, destination: Destination, landing_folder: Path) -> None:
    import zstandard  # only here

    folder = tmp_path / "files"
    text = 'station,hour,temp\r\n"E\nWR",2013-01-01T00:00Z,1\r\n'
    drop(folder, {"weather-2013-01-01.csv": text})
    source, where = weather(folder)
    ingest(source, source.streams[0], where, destination)
    [landed] = landing_folder.rglob("*.csv.zst")
    assert zstandard.ZstdDecompressor().decompressobj().decompress(landed.read_bytes()) == text.encode()
    [manifest] = landing_folder.rglob("manifest.json")
    content = json.loads(manifest.read_bytes())
    assert content["objects"][0]["file"] == "weather-2013-01-01.csv"
    assert content["rows"] == content["objects"][0]["rows"] == 1


def test_a_missing_folder_is_named(tmp_path: Path, destination: Destination) -> None:
    source, where = weather(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="nowhere does not exist"):
        ingest(source, source.streams[0], where, destination)
