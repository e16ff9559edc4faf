"""Landing: what a load read, untouched but for what is private, as immutable objects that raw can be rebuilt from.

Layout::

    <source>/<stream>/dt=2013-12-31/load_id=<uuid>/a1-00001.jsonl.zst
                                                  /a1-00002.jsonl.zst
                                                  /manifest.json

Objects are zstd frames, or Parquet as it is. Their names carry the attempt, so that two attempts never write the same
key. The manifest is written last, and only if there is none: an object that no manifest lists is no data. One thing
alone ever changes a load that has landed: rows that are to be forgotten (`connectors.erasure`).

In a local folder every object is flushed to disk before the manifest is, and the manifest appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from connectors.aside import new_aside, put_aside
from connectors.connections import StoreLocation
from connectors.destinations.encodings import Encoder, Encoding, Untouched, file_chunks, records, rows_of_parquet
from connectors.destinations.manifest import MANIFEST, LandedColumn, LandedObject, LoadPlace, Manifest, encoded
from connectors.durable_files import create_durably, write_durably
from connectors.errors import DestinationUnavailableError, LandingCorruptError
from connectors.formats.compression import BadCompressionError
from connectors.model import Chunk, Column, FileVersion, LandingFormat, SourcePosition
from connectors.object_store import flush, local_folder, open_store
from connectors.privacy import Treatment

_PART_BYTES = 64 << 20
"""Bytes before compression after which a new object is begun (files excepted: a file is one object)."""


_UPLOAD_BYTES = 8 << 20
"""Bytes held in memory for one upload; S3 takes no smaller parts than 5 MiB."""


_READ_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A file or object below the landing, whatever it is."""

    key: str
    bytes: int
    modified_at: datetime


class Landing:
    """The object store that loads land in."""

    def __init__(self, location: StoreLocation) -> None:
        self._store = open_store(location, create=True)
        self._folder = local_folder(location.url) if location.url.startswith("file:") else None

    def writer(
        self,
        place: LoadPlace,
        attempt: int,
        records: LandingFormat,
        landing_format: LandingFormat | None = None,
        columns: Sequence[Column] = (),
    ) -> LandingWriter:
        """Where an attempt's records go; see `connectors.model.Extraction` for what they are."""
        return LandingWriter(self, place, attempt, Encoding(records, landing_format or records, columns))

    def manifest(self, key: str) -> Manifest | None:
        """The manifest at a key, or None when the load never finished landing.

        Raises:
            LandingCorruptError: there is one and it cannot be read.
            DestinationUnavailableError: the store does not answer.
        """
        body = self.get_whole(key)
        if body is None:
            return None
        try:
            return msgspec.json.decode(body, type=Manifest)
        except msgspec.DecodeError as error:
            raise LandingCorruptError(
                f"The manifest {key} cannot be read: {error}.",
                remedy="Restore it from a backup of the landing, or extract the load again.",
            ) from error

    def manifest_of_loaded(self, key: str) -> Manifest:
        """The manifest of a load that is in raw.

        Raises:
            LandingCorruptError: it is missing or cannot be read.
            DestinationUnavailableError: the store does not answer.
        """
        manifest = self.manifest(key)
        if manifest is None:
            raise LandingCorruptError(
                f"The manifest {key} is missing.", remedy="Restore it from a backup of the landing; raw is as it was."
            )
        return manifest

    def manifests(self, source: str, stream: str) -> Iterator[Manifest]:
        """Those of a stream's loads, the latest begun first.

        Raises:
            LandingCorruptError: one cannot be read.
            DestinationUnavailableError: the store does not answer.
        """
        for day in self._folders(f"{source}/{stream}"):
            for load in self._folders(day):
                if (manifest := self.manifest(f"{load}/{MANIFEST}")) is not None:
                    yield manifest

    def _folders(self, prefix: str) -> list[str]:
        """The folders in a folder, from the last on: days, and ids that grow with time."""
        try:
            return sorted(obstore.list_with_delimiter(self._store, prefix)["common_prefixes"], reverse=True)
        except BaseError as error:
            raise _unavailable(error) from error

    def put_manifest(self, place: LoadPlace, manifest: Manifest) -> Manifest:
        """Write the manifest if there is none yet; the one that counts is returned.

        Raises:
            DestinationUnavailableError: the store does not answer or is full.
        """
        body = encoded(manifest)
        try:
            if self._folder is not None:
                create_durably(self._folder / place.manifest_key, body, self._folder)
            else:
                obstore.put(self._store, place.manifest_key, body, mode="create")
        except (AlreadyExistsError, FileExistsError):
            existing = self.manifest(place.manifest_key)
            assert existing is not None  # noqa: S101 - manifests are never deleted while their load is open
            return existing
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return manifest

    def put_object(self, key: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Write an object under a key that nothing has; its SHA-256, and its size in bytes.

        Raises:
            DestinationUnavailableError: the store does not answer or is full.
        """
        opened = _OpenObject(key, obstore.open_writer(self._store, key, buffer_size=_UPLOAD_BYTES), None, Untouched())
        try:
            for piece in pieces:
                opened.store(piece)
            landed = opened.close()
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        self._flush_object(key)
        return landed.sha256, landed.bytes

    def replace_manifest(self, key: str, manifest: Manifest) -> None:
        """Put a manifest in the place of another, in one step. The caller sees to it that nobody else does.

        Raises:
            DestinationUnavailableError: the store does not answer or is full.
        """
        self.put_whole(key, encoded(manifest))

    def put_whole(self, key: str, body: bytes) -> None:
        """Write a small object in one step, over another one if there is.

        Raises:
            DestinationUnavailableError: the store does not answer or is full.
        """
        try:
            if self._folder is not None:
                path = self._folder / key
                path.parent.mkdir(parents=True, exist_ok=True)
                write_durably(path, body, replaces=True)
                flush(path.parent)
            else:
                obstore.put(self._store, key, body)
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    def get_whole(self, key: str) -> bytes | None:
        """A small object; None if there is none.

        Raises:
            DestinationUnavailableError: the store does not answer.
        """
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise _unavailable(error) from error

    def _flush_object(self, key: str) -> None:
        if self._folder is not None:
            path = self._folder / key
            flush(path)
            flush(path.parent)

    def streams(self) -> Iterator[tuple[str, str]]:
        """Source and stream of every folder that loads may be in."""
        try:
            for source in obstore.list_with_delimiter(self._store)["common_prefixes"]:
                for stream in obstore.list_with_delimiter(self._store, source)["common_prefixes"]:
                    yield source, stream.rpartition("/")[2]
        except BaseError as error:
            raise _unavailable(error) from error

    def stored(self, source: str, stream: str) -> Iterator[Stored]:
        """All that is below a stream's folder: in a local one also what writers that died have left half done."""
        prefix = f"{source}/{stream}"
        try:
            if self._folder is not None:
                yield from _files_below(self._folder, prefix)
                return
            for batch in obstore.list(self._store, prefix=prefix):
                for found in batch:
                    yield Stored(found["path"], found["size"], found["last_modified"])
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. The caller knows that they are no data: `connectors.sweep` finds out."""
        try:
            if self._folder is not None:
                for key in keys:
                    (self._folder / key).unlink(missing_ok=True)
                return
            obstore.delete(self._store, list(keys))
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    def read(self, manifest: Manifest) -> Iterator[Chunk]:
        """The load's records again, as they were when it landed.

        Raises:
            LandingCorruptError: an object is missing, cut or altered; named. Chunks before it have been given out, so
                nothing may be committed until the iterator has ended.
            DestinationUnavailableError: the store does not answer.
        """
        for landed in manifest.objects:
            yield from self.read_object(landed, manifest)

    def read_object(self, landed: LandedObject, manifest: Manifest) -> Iterator[Chunk]:
        """The records of one object of a load; see `read`."""
        file = (
            FileVersion(landed.file, landed.file_version or "", landed.file_bytes or 0)
            if landed.file is not None
            else None
        )
        digest = hashlib.sha256()
        try:
            blocks = self._blocks(landed, digest)
            if file is not None:
                yield from file_chunks(blocks, manifest.landing_format, file, landed.refused)
            elif manifest.landing_format is LandingFormat.PARQUET:
                with new_aside() as aside:
                    for block in blocks:
                        put_aside(aside, block)
                    _check(landed, digest)  # before it is read: it cannot be cut in the middle
                    yield from rows_of_parquet(aside, manifest.record_format)
            else:
                yield from records(blocks, manifest.landing_format)
        except FileNotFoundError:
            raise _corrupt(landed, "is missing") from None
        except BadCompressionError as error:
            raise _corrupt(landed, str(error)) from None
        except BaseError as error:
            raise _unavailable(error) from error
        _check(landed, digest)

    def blocks(self, landed: LandedObject) -> Iterator[bytes]:
        """The bytes of an object as they are stored; errors as of `read`."""
        digest = hashlib.sha256()
        try:
            yield from self._blocks(landed, digest)
        except FileNotFoundError:
            raise _corrupt(landed, "is missing") from None
        except BaseError as error:
            raise _unavailable(error) from error
        _check(landed, digest)

    def _blocks(self, landed: LandedObject, digest: hashlib._Hash) -> Iterator[bytes]:
        try:
            found = obstore.get(self._store, landed.key)
        except ValueError:  # it leads out of the landing
            raise _corrupt(landed, "has a key that no object can have") from None
        for stored in found.stream(min_chunk_size=_READ_BYTES):
            block = bytes(stored)
            digest.update(block)
            yield block


class LandingWriter:
    """Writes one attempt's objects. Use as a context manager; leaving it without `finish` leaves no manifest."""

    def __init__(self, landing: Landing, place: LoadPlace, attempt: int, encoding: Encoding) -> None:
        self._landing = landing
        self._place = place
        self._attempt = attempt
        self._encoding = encoding
        self._objects: list[LandedObject] = []
        self._open: _OpenObject | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = None

    def write(self, chunk: Chunk) -> None:
        """Add records; `chunk.rows` is what the manifest will count.

        Raises:
            DestinationUnavailableError: the store does not answer or is full.
        """
        try:
            content = self._encoding.shaped(chunk)
            current = self._open
            if current is not None and (
                current.file != chunk.file
                or (chunk.file is None and current.size >= _PART_BYTES)
                or not current.encoder.takes(content)
            ):
                self._close()
                current = None
            if current is None:
                current = self._open = self._begin(chunk.file, self._encoding.begin(content))
            current.refused = current.refused or chunk.refused
            current.size += len(chunk.data)
            current.rows += chunk.rows
            current.store(current.encoder.add(content))
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    def finish(
        self,
        *,
        columns: Sequence[Column],
        typed_fields: Sequence[Column] = (),
        window: tuple[datetime, datetime] | None,
        cursor_from: str | None,
        cursor_to: str | None,
        position: SourcePosition | None = None,
        kind: str = "rows",
        privacy: Mapping[str, Treatment] = {},
        full_refresh: bool = False,
    ) -> Manifest:
        """Close the last object and write the manifest.

        Returns:
            The load's manifest: another attempt's, if that one was first.

        Raises:
            DestinationUnavailableError: the store does not answer or is full.
        """
        try:
            self._close()
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return self._landing.put_manifest(
            self._place,
            Manifest(
                load_id=self._place.load_id,
                source=self._place.source,
                stream=self._place.stream,
                attempt=self._attempt,
                kind=kind,
                landing_format=self._encoding.landing_format,
                records=self._encoding.records if self._encoding.is_translated else None,
                window_start=window[0] if window else None,
                window_end=window[1] if window else None,
                cursor_from=cursor_from,
                cursor_to=cursor_to,
                rows=sum(landed.rows for landed in self._objects),
                columns=[LandedColumn(column.name, column.type) for column in columns],
                typed_fields=[LandedColumn(field.name, field.type) for field in typed_fields],
                objects=self._objects,
                landed_at=datetime.now(UTC),
                position=position,
                privacy={field: treatment.word for field, treatment in privacy.items()},
                full_refresh=full_refresh,
            ),
        )

    def _begin(self, file: FileVersion | None, encoder: Encoder) -> _OpenObject:
        key = f"{self._place.prefix}/a{self._attempt}-{len(self._objects) + 1:05}.{self._encoding.ending}"
        writer = obstore.open_writer(self._landing._store, key, buffer_size=_UPLOAD_BYTES)
        return _OpenObject(key, writer, file, encoder)

    def _close(self) -> None:
        opened, self._open = self._open, None
        if opened is None:
            return
        self._objects.append(opened.close())
        self._landing._flush_object(opened.key)


@dataclass(slots=True)
class _OpenObject:
    key: str
    writer: obstore.WritableFile
    file: FileVersion | None
    encoder: Encoder
    size: int = 0
    """Of what it was made from, in bytes."""
    rows: int = 0
    refused: str | None = None
    stored: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def close(self) -> LandedObject:
        self.store(self.encoder.end())
        self.writer.close()
        return LandedObject(
            key=self.key,
            sha256=self.digest.hexdigest(),
            bytes=self.stored,
            rows=self.rows,
            file=self.file.path if self.file else None,
            file_version=self.file.version if self.file else None,
            file_bytes=self.file.size if self.file else None,
            refused=self.refused,
        )

    def store(self, data: bytes) -> None:
        if data:
            self.digest.update(data)
            self.stored += len(data)
            self.writer.write(data)


def _files_below(folder: Path, prefix: str) -> Iterator[Stored]:
    """The regular files; links are neither followed nor named."""
    for parent, _, names in os.walk(folder / prefix):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):  # a writer has just given it its name
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    key = path.relative_to(folder).as_posix()
                    yield Stored(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _check(landed: LandedObject, digest: hashlib._Hash) -> None:
    if digest.hexdigest() != landed.sha256:
        raise _corrupt(landed, "is not what its manifest says")


def _corrupt(landed: LandedObject, what: str) -> LandingCorruptError:
    return LandingCorruptError(
        f"The landing object {landed.key} {what}.",
        remedy="Restore it from a backup of the landing, or extract the load again.",
    )


def _unavailable(error: Exception) -> DestinationUnavailableError:
    text = " ".join(str(error).split())
    full = "No space left" in text or getattr(error, "errno", None) == 28
    return DestinationUnavailableError(
        f"The landing's disk is full: {text}" if full else f"The landing does not take or give objects: {text}",
        remedy="Free space there, then run again: nothing was lost."
        if full
        else "Check its address, permissions and credentials, then run again: nothing was lost.",
    )
