"""Landing, in a folder and in S3: whole or absent, and never silently other than it was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from connectors.connections import StoreLocation
from connectors.destinations.encodings import records
from connectors.destinations.landing import Landing
from connectors.destinations.manifest import LoadPlace, Manifest
from connectors.errors import ConfigurationError, DestinationUnavailableError, LandingCorruptError
from connectors.formats.framing import PGCOPY_HEADER, PGCOPY_TRAILER
from connectors.model import Chunk, Column, FileVersion, LandingFormat
from tests.seaweedfs import _seaweedfs, seaweedfs

__all__ = ["_seaweedfs", "seaweedfs"]


@pytest.fixture(params=["folder", "s3", "seaweedfs"])
def landing(request: pytest.FixtureRequest, tmp_path: Path) -> Landing:
    if request.param == "folder":
        return Landing(StoreLocation((tmp_path / "landing").as_uri()))
    return Landing(request.getfixturevalue(request.param))


@pytest.fixture
def place() -> LoadPlace:
    return LoadPlace("shop", "orders", uuid4(), datetime(2024, 2, 3, 23, tzinfo=UTC))


def write(landing: Landing, place: LoadPlace, chunks: list[Chunk], *, attempt: int = 1) -> Manifest:
    with landing.writer(place, attempt, LandingFormat.JSONL) as writer:
        for chunk in chunks:
            writer.write(chunk)
        return writer.finish(columns=[Column("a", "bigint")], window=None, cursor_from="1", cursor_to="2")


def test_what_was_written_is_read_again(landing: Landing, place: LoadPlace) -> None:
    manifest = write(landing, place, [Chunk(b'{"a":1}\n{"a":2}\n', 2), Chunk(b'{"a":3}\n', 1)])
    assert place.manifest_key == f"shop/orders/dt=2024-02-03/load_id={place.load_id}/manifest.json"
    assert landing.manifest(place.manifest_key) == manifest
    assert manifest.rows == 3
    assert b"".join(chunk.data for chunk in landing.read(manifest)) == b'{"a":1}\n{"a":2}\n{"a":3}\n'
    assert sum(chunk.rows for chunk in landing.read(manifest)) == 3


def test_objects_without_a_manifest_are_no_load(landing: Landing, place: LoadPlace) -> None:
    with landing.writer(place, 1, LandingFormat.JSONL) as writer:
        writer.write(Chunk(b"{}\n", 1))
    assert landing.manifest(place.manifest_key) is None


def test_the_first_manifest_stays(landing: Landing, place: LoadPlace) -> None:
    first = write(landing, place, [Chunk(b'{"a":1}\n', 1)], attempt=1)
    second = write(landing, place, [Chunk(b'{"a":2}\n', 1)], attempt=2)
    assert second == first
    assert b"".join(chunk.data for chunk in landing.read(second)) == b'{"a":1}\n'


def test_each_file_is_an_object_of_its_own(landing: Landing, place: LoadPlace) -> None:
    files = [FileVersion("a.csv", "v1", 8), FileVersion("b.csv", "v2", 8)]
    with landing.writer(place, 1, LandingFormat.CSV) as writer:
        for file in files:
            writer.write(Chunk(b"x,y\n", 0, file))
            writer.write(Chunk(b"1,2\n", 1, file))
        manifest = writer.finish(columns=[], window=None, cursor_from=None, cursor_to=None)
    assert [(landed.file, landed.file_version, landed.rows) for landed in manifest.objects] == [
        ("a.csv", "v1", 1),
        ("b.csv", "v2", 1),
    ]
    assert [(chunk.file, chunk.data) for chunk in landing.read(manifest)] == [(file, b"x,y\n1,2\n") for file in files]


def test_more_than_a_part_becomes_several_objects(
    landing: Landing, place: LoadPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.destinations.landing._PART_BYTES", 1000)
    chunks = [Chunk(b'{"a":%d}\n' % number * 50, 50) for number in range(10)]
    manifest = write(landing, place, chunks)
    assert len(manifest.objects) > 2
    assert b"".join(chunk.data for chunk in landing.read(manifest)) == b"".join(chunk.data for chunk in chunks)


@pytest.mark.parametrize("damage", ["cut", "altered", "longer", "gone", "other"])
def test_a_damaged_object_is_refused_by_name(tmp_path: Path, place: LoadPlace, damage: str) -> None:
    landing = Landing(StoreLocation(tmp_path.as_uri()))
    manifest = write(landing, place, [Chunk(b'{"a":%d}\n' % number, 1) for number in range(2000)])
    path = tmp_path / manifest.objects[0].key
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "other":
        other = LoadPlace("shop", "orders", uuid4(), place.started_at)
        path.write_bytes((tmp_path / write(landing, other, [Chunk(b"{}\n", 1)]).objects[0].key).read_bytes())
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:-5], "altered": flipped, "longer": content + b"x"}[damage])
    with pytest.raises(LandingCorruptError, match=manifest.objects[0].key):
        list(landing.read(manifest))


def test_a_torn_manifest_is_refused_by_name(tmp_path: Path, place: LoadPlace) -> None:
    landing = Landing(StoreLocation(tmp_path.as_uri()))
    write(landing, place, [Chunk(b"{}\n", 1)])
    path = tmp_path / place.manifest_key
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LandingCorruptError, match=place.manifest_key):
        landing.manifest(place.manifest_key)


def test_the_manifest_names_what_is_stored(tmp_path: Path, place: LoadPlace) -> None:
    landing = Landing(StoreLocation(tmp_path.as_uri()))
    [landed] = write(landing, place, [Chunk(b"{}\n", 1)]).objects
    content = (tmp_path / landed.key).read_bytes()
    assert (landed.bytes, landed.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True, slots=True)
class SystemCall:
    """What the landing asked of the operating system, and of which file; a file with the size it had then."""

    name: str
    path: Path
    size: int


@pytest.fixture
def system_calls(monkeypatch: pytest.MonkeyPatch) -> list[SystemCall]:
    """The calls that make files last, as they come. They are carried out."""
    calls: list[SystemCall] = []
    fsync, link, replace, rename = os.fsync, os.link, os.replace, os.rename

    def note_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.append(SystemCall("fsync", path, path.stat().st_size if path.is_file() else 0))
        fsync(descriptor)

    def note_name(call: Callable[..., None]) -> Callable[..., None]:
        def noted(source: str | Path, target: str | Path, **options: Any) -> None:
            call(source, target, **options)
            calls.append(SystemCall("name", Path(target), Path(target).stat().st_size))

        return noted

    monkeypatch.setattr(os, "fsync", note_fsync)
    for name, call in {"link": link, "replace": replace, "rename": rename}.items():
        monkeypatch.setattr(os, name, note_name(call))
    return calls


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_the_disk_holds_all_objects_before_the_manifest_appears(
    tmp_path: Path, place: LoadPlace, system_calls: list[SystemCall]
) -> None:
    """A power cut can then leave a load without a manifest, never a manifest without its load."""
    landing = Landing(StoreLocation(tmp_path.as_uri()))
    with landing.writer(place, 1, LandingFormat.CSV) as writer:
        for number in range(3):
            writer.write(Chunk(b"a\n1\n" * 1000, 1000, FileVersion(f"{number}.csv", "v", 4000)))
        manifest = writer.finish(columns=[], window=None, cursor_from=None, cursor_to=None)
    final = tmp_path / place.manifest_key
    [appeared] = [at for at, call in enumerate(system_calls) if (call.name, call.path) == ("name", final)]
    before = [call for call in system_calls[:appeared] if call.name == "fsync"]
    after = [call.path for call in system_calls[appeared:] if call.name == "fsync"]
    for landed in manifest.objects:
        path = tmp_path / landed.key
        [flushed] = [at for at, call in enumerate(before) if (call.path, call.size) == (path, landed.bytes)]
        assert path.parent in [call.path for call in before[flushed:]], "the folder that names it"
    temporary = [
        call for call in before if call.path.parent == final.parent and call.path.name.startswith(".manifest-")
    ]
    assert [call.size for call in temporary] == [final.stat().st_size], "whole before it has its name"
    # Each folder's name is in the one above it, down from the landing's own.
    assert set(final.relative_to(tmp_path).parents) == {path.relative_to(tmp_path) for path in after}


def test_an_unknown_kind_of_store_is_refused() -> None:
    for url in ("ftp://x/y", "landing", "s3://", "file://host/x", "file:relative"):
        with pytest.raises(ConfigurationError):
            Landing(StoreLocation(url))


def test_a_store_that_does_not_answer_is_one_clear_error(place: LoadPlace) -> None:
    options = {"access_key_id": "a", "secret_access_key": "canary-9", "region": "x", "endpoint": "http://127.0.0.1:1"}
    location = StoreLocation("s3://landing", options)
    assert "canary-9" not in repr(location)
    with pytest.raises(DestinationUnavailableError, match="landing does not take or give") as caught:
        Landing(location).manifest(place.manifest_key)
    assert "canary-9" not in str(caught.value)


def cut(content: bytes, size: int) -> Iterator[bytes]:
    """As stored, in pieces. Nothing is compressed in it, so each piece comes out alone."""
    compressor = zstandard.ZstdCompressor().compressobj()
    for start in range(0, len(content), size):
        yield compressor.compress(content[start : start + size])
        yield compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    yield compressor.flush()


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 13))
def test_copy_data_survives_any_cut(rows: list[bytes], block: int) -> None:
    stored = PGCOPY_HEADER + b"".join(rows) + PGCOPY_TRAILER
    assert b"".join(chunk.data for chunk in records(cut(stored, block), LandingFormat.PGCOPY)) == b"".join(rows)


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b".")), max_size=8), st.integers(1, 13))
def test_lines_survive_any_cut(lines: list[bytes], block: int) -> None:
    stored = b"".join(line + b"\n" for line in lines)
    chunks = list(records(cut(stored, block), LandingFormat.JSONL))
    assert b"".join(chunk.data for chunk in chunks) == stored
    assert all(chunk.data.endswith(b"\n") and chunk.rows == chunk.data.count(b"\n") for chunk in chunks)
