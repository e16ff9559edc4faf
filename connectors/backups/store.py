"""Where backups are kept: a folder or a bucket, each backup a folder in it.

::

    2026-03-01T020004Z_<backup_id>/ledger.dump.zst
                                   raw.dump.zst
                                   models.dump.zst
                                   serving.dump.zst
                                   manifest.json

The manifest is written last: a folder without one is no backup. It has the SHA-256 of each dump, and of each table how
many rows it had and a checksum over them. Encryption is the store's: have the bucket or the disk do it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from uuid import UUID

import msgspec
import obstore
import zstandard
from obstore.exceptions import BaseError

from connectors.connections import ObjectStore, StoreLocation
from connectors.errors import BackupCorruptError, ConfigurationError, DestinationUnavailableError
from connectors.object_store import check_not_refused, flush, local_folder, open_store

BACKUPS = ObjectStore("backups")
MANIFEST = "manifest.json"
_UPLOAD_BYTES = 8 << 20
_READ_BYTES = 4 << 20
_LEVEL = 3
FORMAT = 1


class Fingerprint(msgspec.Struct, frozen=True):
    """What a table held."""

    table: str
    rows: int
    checksum: str
    """A sum over the hashes of its rows, which does not depend on their order."""


class Dump(msgspec.Struct, frozen=True):
    """One of the dumps of a backup."""

    part: str
    key: str
    sha256: str
    """Of the object as stored."""
    bytes: int
    """As stored."""
    tables: list[Fingerprint]


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of a backup."""

    format_version: int = FORMAT
    backup_id: UUID
    kind: str
    """`full`, or `without raw`: raw tables have no rows in it, the landing has them."""
    as_of: datetime
    """The instant that it shows."""
    revision: str
    """The migration that the warehouse had."""
    postgres: int
    """The server's major version."""
    database: str
    roles: list[str] = []
    """All that anything is granted to: they must be there before it is restored."""
    grants: list[tuple[str, str]] = []
    """Schema of the owner's, and a role of yours that may use it."""
    settings: list[str] = []
    """Of the database: `name=value`."""
    dumps: list[Dump]
    left_out: list[str] = []

    @property
    def folder(self) -> str:
        return self.dumps[0].key.rpartition("/")[0]

    @property
    def bytes(self) -> int:
        return sum(dump.bytes for dump in self.dumps)

    @property
    def fingerprints(self) -> list[Fingerprint]:
        return [each for dump in self.dumps for each in dump.tables]


class BackupStore:
    """The backups at a place."""

    def __init__(self, location: StoreLocation) -> None:
        self._store = open_store(location, create=True)
        self._local = local_folder(location.url) if location.url.startswith("file:") else None
        self.url = location.url

    def write(self, key: str, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Store what is given, compressed; its SHA-256 and size as stored.

        Raises:
            DestinationUnavailableError: the store does not answer, or is full.
        """
        digest, size = hashlib.sha256(), 0
        try:
            writer = obstore.open_writer(self._store, key, buffer_size=_UPLOAD_BYTES)
            compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=1).compressobj()
            for piece in _compressed(compressor, pieces):
                digest.update(piece)
                size += len(piece)
                writer.write(piece)
            writer.close()
            self._make_durable(key)
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error
        return digest.hexdigest(), size

    def finish(self, backup: Backup) -> None:
        """Write the manifest: from here on it is a backup.

        Raises:
            DestinationUnavailableError: the store does not answer, or is full.
        """
        key = f"{backup.folder}/{MANIFEST}"
        try:
            obstore.put(self._store, key, msgspec.json.format(msgspec.json.encode(backup), indent=1) + b"\n")
            self._make_durable(key)
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def verify(self, dump: Dump) -> None:
        """Read a dump to its end, and see that it is what was written.

        Raises:
            BackupCorruptError: it is missing, cut or altered.
            DestinationUnavailableError: the store does not answer.
        """
        digest = hashlib.sha256()
        for block in self._blocks(dump.key):
            digest.update(block)
        if digest.hexdigest() != dump.sha256:
            raise _corrupt(dump.key, "is not what its manifest says")

    def read(self, dump: Dump) -> Iterator[bytes]:
        """What pg_dump gave out.

        Raises:
            As `verify`.
        """
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            for block in self._blocks(dump.key):
                yield decompressor.decompress(block)
        except zstandard.ZstdError as error:
            raise _corrupt(dump.key, f"cannot be decompressed: {error}") from error

    def all(self) -> list[Backup]:
        """The backups that there are, the latest first.

        Raises:
            BackupCorruptError: a manifest cannot be read.
            DestinationUnavailableError: the store does not answer.
        """
        found = [self._manifest(folder) for folder in self.folders()]
        return sorted((each for each in found if each is not None), key=lambda each: each.as_of, reverse=True)

    def named(self, backup_id: str | None) -> Backup:
        """The backup whose id begins so; the latest, without one.

        Raises:
            ConfigurationError: there is none, or there are several.
        """
        there = self.all()
        found = [each for each in there if str(each.backup_id).startswith(backup_id or "")]
        if not found or (backup_id and len(found) > 1):
            raise ConfigurationError(
                f"There is no backup {backup_id or 'at all'} in {self.url}."
                if not found
                else f"Several backups begin with {backup_id}.",
                remedy=f"Take one of: {', '.join(str(each.backup_id) for each in there[:5])}."
                if there
                else "See whether HEADWATER_BACKUPS_URL is right; `headwater backup run` makes one.",
            )
        return found[0]

    def folders(self) -> list[str]:
        """All folders, those of backups that were never finished too, the oldest first."""
        try:
            return sorted(obstore.list_with_delimiter(self._store)["common_prefixes"])
        except BaseError as error:
            raise self._unavailable(error) from error

    def delete(self, folder: str) -> None:
        """Delete a folder, its manifest first: half of a backup is none."""
        try:
            if self._local is not None:
                (self._local / folder / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(self._local / folder, ignore_errors=True)
                return
            keys = [found["path"] for batch in obstore.list(self._store, prefix=f"{folder}/") for found in batch]
            for key in sorted(keys, key=lambda each: not each.endswith(f"/{MANIFEST}")):
                obstore.delete(self._store, key)
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def _manifest(self, folder: str) -> Backup | None:
        try:
            body = bytes(obstore.get(self._store, f"{folder}/{MANIFEST}").bytes())
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise self._unavailable(error) from error
        try:
            backup = msgspec.json.decode(body, type=Backup)
        except msgspec.DecodeError as error:
            raise _corrupt(f"{folder}/{MANIFEST}", f"cannot be read: {error}") from error
        if backup.format_version > FORMAT:
            raise ConfigurationError(
                f"The backup in {folder} was made by a newer Headwater.", remedy="Install that one here too."
            )
        return backup

    def _blocks(self, key: str) -> Iterator[bytes]:
        try:
            for block in obstore.get(self._store, key).stream(min_chunk_size=_READ_BYTES):
                yield bytes(block)
        except FileNotFoundError:
            raise _corrupt(key, "is missing") from None
        except BaseError as error:
            raise self._unavailable(error) from error

    def _make_durable(self, key: str) -> None:
        if self._local is not None:
            for path in ((self._local / key), (self._local / key).parent, self._local):
                flush(path)

    def _unavailable(self, error: Exception) -> DestinationUnavailableError:
        if isinstance(error, BaseError):
            check_not_refused(error)
        return DestinationUnavailableError(
            f"The store of backups, {self.url}, does not take or give objects: {' '.join(str(error).split())}",
            remedy="Check its address, its space and what the credentials allow, then run the command again.",
        )


def _compressed(compressor: zstandard.ZstdCompressionObj, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if data := compressor.compress(piece):
            yield data
    yield compressor.flush()


def _corrupt(key: str, what: str) -> BackupCorruptError:
    return BackupCorruptError(
        f"The backup's object {key} {what}.",
        remedy="Take an older backup (`headwater backup list`), or restore the object from the bucket's versions.",
    )
