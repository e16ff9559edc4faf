"""What the local stack remembers between commands: ports and processes, in `state.json`. No secrets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from deployments.local.errors import LocalStackError
from deployments.local.files import locked, write_atomically
from deployments.local.processes import ProcessRecord


@dataclass(frozen=True, slots=True)
class State:
    """The content of `state.json`."""

    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, ProcessRecord] = field(default_factory=dict)
    postgres_data: Path | None = None

    def with_port(self, name: str, port: int) -> State:
        return replace(self, ports={**self.ports, name: port})

    def with_process(self, record: ProcessRecord) -> State:
        return replace(self, processes={**self.processes, record.name: record})

    def without_process(self, name: str) -> State:
        return replace(self, processes={each: record for each, record in self.processes.items() if each != name})


class StateFile:
    """`state.json` of one home. Readers need no lock; updates from any thread or process follow one another."""

    def __init__(self, home: Path) -> None:
        self._path = home / "state.json"

    def read(self) -> State:
        try:
            content = self._path.read_bytes()
            return msgspec.json.decode(content, type=State, dec_hook=_decode_path)
        except FileNotFoundError:
            return State()
        except (msgspec.DecodeError, OSError) as error:
            raise LocalStackError(
                f"The state of the local stack cannot be read: {error}",
                where=str(self._path),
                remedy="Stop what still runs by hand, remove the file and start again; the data are not in it.",
            ) from error

    def update(self, change: Callable[[State], State]) -> State:
        """Apply `change` to the current content and save the result."""
        with locked(self._path.with_suffix(".lock"), doing="saving the state", timeout_seconds=10):
            before = self.read()
            after = change(before)
            if after != before:
                encoded = msgspec.json.encode(after, enc_hook=_encode_path)
                write_atomically(self._path, msgspec.json.format(encoded), mode=0o600)
            return after


def _encode_path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in state.json")


def _decode_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} has no place in state.json")
