"""The conformance suite itself: a source that keeps every promise passes, and each that breaks one is found out."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from connectors.connections import Connections, Requirement, Secret, Setting
from connectors.errors import ConfigurationError, NotFoundError, SourceUnavailableError
from connectors.model import Chunk, Cursor, Deletes, Extraction, ExtractRequest, LandingFormat, Stream, check_window
from connectors.privacy import Dropped, Hashed
from tests.conftest import Server, Warehouse, empty_warehouse
from tests.sources import conduct_checks
from tests.sources.case import Case
from tests.sources.conduct_checks import (
    CONDUCT_CHECKS,
    a_missing_setting_is_named,
    a_system_that_is_down_is_unavailable,
    nothing_is_held_after_a_read_is_given_up,
    nothing_private_is_told,
    nothing_secret_is_told,
    only_what_is_required_is_asked_for,
    what_does_not_exist_is_a_configuration_error,
    wrong_credentials_are_a_configuration_error,
)
from tests.sources.row_checks import (
    ROW_CHECKS,
    a_second_load_writes_nothing,
    a_second_read_gives_the_same,
    chunks_are_bounded,
    columns_and_types_are_stable,
    every_row_is_read,
    keys_are_unique_and_never_null,
    no_row_is_taken_for_deleted,
    raw_can_be_rebuilt,
    the_definition_names_what_is_there,
    watermarks_are_honoured,
    windows_are_honoured,
)
from tests.sources.stand_in import StandIn

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingStream(Stream):
    """Things of a register."""

    path: str = "/things"

    @property
    def has_documents(self) -> bool:
        return True


class Register:
    """A source that keeps every promise: twenty things, a day between them, ten at a time."""

    where: ClassVar[Setting] = Setting("register_url")
    key: ClassVar[Secret] = Secret("register_key")
    owners_key: ClassVar[Secret] = Secret("register_owners_key")
    requirements: tuple[Requirement, ...] = (where, key, owners_key)
    definition: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.name = "register_" + "".join(f"_{c.lower()}" if c.isupper() else c for c in type(self).__name__).strip("_")
        definition = {
            "name": "things",
            "primary_key": ("id",),
            "cursor": Cursor("changed_at", lag=timedelta(days=2)),
            "event_time": "at",
            "columns": {"at": "timestamptz", "changed_at": "timestamptz"},
            "deletes": Deletes(),
            "privacy": {"owner": Hashed(self.owners_key), "address.phone": Dropped()},
            **self.definition,
        }
        self.streams = (ThingStream(**definition),)
        self.reads = 0

    @property
    def right_key(self) -> str:
        return f"key-of-{self.name}"

    @property
    def private(self) -> tuple[str, str]:
        return f"owner-of-{self.name}", f"phone-of-{self.name}"

    def things(self) -> Rows:
        start = datetime(2024, 3, 1, tzinfo=UTC)
        times = [(start + timedelta(days=number)).isoformat() for number in range(20)]
        owner, phone = self.private
        rest = {"owner": owner, "address": {"phone": phone}}
        return [{"id": number, "at": at, "changed_at": at, **rest} for number, at in enumerate(times)]

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        self.enter(stream, connections)
        check_window(stream, request.window)
        self.reads += 1
        return Extraction(LandingFormat.JSONL, self.chunks(self.chosen(self.things(), stream, request)))

    def keys(self, stream: Stream, connections: Connections) -> Extraction:
        self.enter(stream, connections)
        return Extraction(LandingFormat.JSONL, self.chunks([{"id": thing["id"]} for thing in self.things()]))

    def enter(self, stream: Stream, connections: Connections) -> None:
        where, key = connections.setting(self.where), connections.secret(self.key)
        if where == "nobody":
            raise self.trouble("nobody answers", key)
        if key != self.right_key:
            raise self.refusal("the key is wrong", key)
        if isinstance(stream, ThingStream) and stream.path != "/things":
            raise self.absence("there is no such path", key)

    def trouble(self, what: str, key: str) -> Exception:
        return SourceUnavailableError(what, remedy="Try again.")

    def refusal(self, what: str, key: str) -> Exception:
        return ConfigurationError(what, remedy="Correct it.")

    def absence(self, what: str, key: str) -> Exception:
        return NotFoundError(what, remedy="Correct it.")

    def chosen(self, things: Rows, stream: Stream, request: ExtractRequest) -> Rows:
        if (window := request.window) is not None:
            return [each for each in things if window.start <= self.instant(each["at"]) < window.end]
        if request.watermark is not None and stream.cursor is not None:
            since = self.instant(request.watermark) - stream.cursor.lag
            return [each for each in things if self.instant(each["changed_at"]) >= since]
        return things

    @staticmethod
    def instant(text: str) -> datetime:
        return datetime.fromisoformat(text)

    def chunks(self, things: Rows) -> Iterator[Chunk]:
        with Path(__file__).open():  # something to hold
            for start in range(0, len(things), 10):
                some = things[start : start + 10]
                yield Chunk("".join(json.dumps(each) + "\n" for each in some).encode(), len(some))


class LosesTheLast(Register):
    def things(self) -> Rows:
        return super().things()[:-1]


class RepeatsOne(Register):
    def things(self) -> Rows:
        return [*super().things(), super().things()[0]]


class HasNoKey(Register):
    definition: ClassVar[dict[str, Any]] = {"reject_limit": 1}

    def things(self) -> Rows:
        return [*super().things()[:-1], {**super().things()[-1], "id": None}]


class IgnoresWindows(Register):
    def chosen(self, things: Rows, stream: Stream, request: ExtractRequest) -> Rows:
        return super().chosen(things, stream, replace(request, window=None))


class IncludesTheEnd(Register):
    def chosen(self, things: Rows, stream: Stream, request: ExtractRequest) -> Rows:
        if request.window is not None:
            longer = replace(request.window, end=request.window.end + timedelta(seconds=1))
            request = replace(request, window=longer)
        return super().chosen(things, stream, request)


class ExcludesTheStart(Register):
    def chosen(self, things: Rows, stream: Stream, request: ExtractRequest) -> Rows:
        if request.window is not None:
            shorter = replace(request.window, start=request.window.start + timedelta(seconds=1))
            request = replace(request, window=shorter)
        return super().chosen(things, stream, request)


class ReadsWindowsOfNothing(Register):
    definition: ClassVar[dict[str, Any]] = {"event_time": None}

    def extract(self, stream: Stream, request: ExtractRequest, connections: Connections) -> Extraction:
        return super().extract(stream, replace(request, window=None), connections)


class IgnoresWatermarks(Register):
    def chosen(self, things: Rows, stream: Stream, request: ExtractRequest) -> Rows:
        return super().chosen(things, stream, replace(request, watermark=None))


class IgnoresTheLag(Register):
    def chosen(self, things: Rows, stream: Stream, request: ExtractRequest) -> Rows:
        return super().chosen(things, replace(stream, cursor=Cursor("changed_at")), request)


class ExcludesTheWatermark(Register):
    definition: ClassVar[dict[str, Any]] = {"cursor": Cursor("changed_at")}

    def chosen(self, things: Rows, stream: Stream, request: ExtractRequest) -> Rows:
        chosen = super().chosen(things, stream, request)
        if request.watermark is None:
            return chosen
        return [each for each in chosen if self.instant(each["changed_at"]) > self.instant(request.watermark)]


class TellsTheTime(Register):
    def things(self) -> Rows:
        return [{**each, "read": self.reads} for each in super().things()]


class NamesWhatIsNotThere(Register):
    definition: ClassVar[dict[str, Any]] = {"primary_key": ("id",), "cursor": None, "event_time": "seen_at"}


class AddsAColumn(Register):
    def things(self) -> Rows:
        return [{**each, f"extra_{self.reads}": 1} for each in super().things()]


class ForgetsAKey(Register):
    def keys(self, stream: Stream, connections: Connections) -> Extraction:
        whole = super().keys(stream, connections)
        return replace(whole, chunks=iter([next(whole.chunks)]))


class GivesAllAtOnce(Register):
    def things(self) -> Rows:
        return [{**each, "text": "x" * 1_000_000} for each in super().things()]


class TakesSilenceForAMistake(Register):
    def trouble(self, what: str, key: str) -> Exception:
        return ConfigurationError(what, remedy="Correct it.")


class RaisesWhatTheLibraryRaises(Register):
    def trouble(self, what: str, key: str) -> Exception:
        return ConnectionRefusedError(what)


class TriesWrongKeysAgain(Register):
    def refusal(self, what: str, key: str) -> Exception:
        return SourceUnavailableError(what, remedy="Try again.")


class TriesWrongPathsAgain(Register):
    def absence(self, what: str, key: str) -> Exception:
        return SourceUnavailableError(what, remedy="Try again.")


class DoesNotSayWhatToDo(Register):
    def trouble(self, what: str, key: str) -> Exception:
        return SourceUnavailableError(what, remedy="")


class MakesDoWithoutAKey(Register):
    def enter(self, stream: Stream, connections: Connections) -> None:
        with suppress(ConfigurationError):
            super().enter(stream, connections)


class AsksForMore(Register):
    requirements = (Register.where, Register.owners_key)


class LeavesAFileOpen(Register):
    def __init__(self) -> None:
        super().__init__()
        self.files: list[Any] = []

    def chunks(self, things: Rows) -> Iterator[Chunk]:
        self.files.append(Path(__file__).open())  # noqa: SIM115 - that is what is wrong
        yield from super().chunks(things)


class LeavesAThread(Register):
    def chunks(self, things: Rows) -> Iterator[Chunk]:
        threading.Thread(target=threading.Event().wait, args=[20], daemon=True, name="left alone").start()
        yield from super().chunks(things)


class TellsTheKeyInAnError(Register):
    def refusal(self, what: str, key: str) -> Exception:
        return super().refusal(f"{what}: {key}", key)


class TellsTheKeyInTheCauseOfAnError(Register):
    def enter(self, stream: Stream, connections: Connections) -> None:
        try:
            super().enter(stream, connections)
        except NotFoundError as error:
            raise error from ValueError(f"GET /things?key={self.right_key}")


class LogsTheKey(Register):
    def enter(self, stream: Stream, connections: Connections) -> None:
        super().enter(stream, connections)
        logging.getLogger(__name__).debug("Authorization: %s", connections.secret(self.key))


class ShowsTheKey(Register):
    def __repr__(self) -> str:
        return f"Register(key={self.right_key!r})"


class LandsTheKey(Register):
    def things(self) -> Rows:
        return [{**each, "next": f"/things?key={self.right_key}"} for each in super().things()]


class TellsAnOwnerInAnError(Register):
    def trouble(self, what: str, key: str) -> Exception:
        return super().trouble(f"{what}, not even {self.private[0]}", key)


class LogsAPhone(Register):
    def chunks(self, things: Rows) -> Iterator[Chunk]:
        logging.getLogger(__name__).debug("The first is %s", things[0])
        yield from super().chunks(things)


class HasAnOwnerElsewhere(Register):
    def things(self) -> Rows:
        return [{**each, "note": f"ask {self.private[0]}"} for each in super().things()]


class KeepsNothingPrivate(Register):
    definition: ClassVar[dict[str, Any]] = {"privacy": {}}


WRONG: list[tuple[Callable[[Case], None], type[Register], str]] = [
    (every_row_is_read, LosesTheLast, "20 rows, and 19 were read"),
    (every_row_is_read, RepeatsOne, "20 rows, and 21 were read"),
    (keys_are_unique_and_never_null, RepeatsOne, "1 rows of one read have the key of another"),
    (keys_are_unique_and_never_null, HasNoKey, "1 rows go to quarantine"),
    (windows_are_honoured, IgnoresWindows, "rows were read that are not of"),
    (windows_are_honoured, IncludesTheEnd, "1 rows were read that are not of"),
    (windows_are_honoured, ExcludesTheStart, "1 rows of .* were not read"),
    (windows_are_honoured, ReadsWindowsOfNothing, "DID NOT RAISE WindowError"),
    (watermarks_are_honoured, IgnoresWatermarks, "rows were read that are not of"),
    (watermarks_are_honoured, IgnoresTheLag, "2 rows of .* were not read"),
    (watermarks_are_honoured, ExcludesTheWatermark, "1 rows of .* were not read"),
    (a_second_read_gives_the_same, TellsTheTime, "differ in 40 rows"),
    (a_second_load_writes_nothing, TellsTheTime, "wrote all the same"),
    (the_definition_names_what_is_there, NamesWhatIsNotThere, "names seen_at, which no row has"),
    (columns_and_types_are_stable, AddsAColumn, "changed raw's columns"),
    (no_row_is_taken_for_deleted, ForgetsAKey, "a comparison of keys says"),
    (chunks_are_bounded, GivesAllAtOnce, "bytes at once"),
    (a_system_that_is_down_is_unavailable, TakesSilenceForAMistake, "not SourceUnavailableError"),
    (a_system_that_is_down_is_unavailable, RaisesWhatTheLibraryRaises, "none of connectors.errors"),
    (a_system_that_is_down_is_unavailable, DoesNotSayWhatToDo, "does not say what to do"),
    (wrong_credentials_are_a_configuration_error, TriesWrongKeysAgain, "not ConfigurationError"),
    (what_does_not_exist_is_a_configuration_error, TriesWrongPathsAgain, "not ConfigurationError"),
    (a_missing_setting_is_named, MakesDoWithoutAKey, "did not fail"),
    (only_what_is_required_is_asked_for, AsksForMore, "asks for register_key"),
    (nothing_is_held_after_a_read_is_given_up, LeavesAFileOpen, "leaves open: file "),
    (nothing_is_held_after_a_read_is_given_up, LeavesAThread, "leaves open: thread left alone"),
    (nothing_secret_is_told, TellsTheKeyInAnError, "tells a secret"),
    (nothing_secret_is_told, TellsTheKeyInTheCauseOfAnError, "tells a secret"),
    (nothing_secret_is_told, LogsTheKey, "tells a secret, where it says: Authorization"),
    (nothing_secret_is_told, ShowsTheKey, "tells a secret, where it says: Register"),
    (nothing_secret_is_told, LandsTheKey, "writes a secret into a1-"),
    (nothing_private_is_told, TellsAnOwnerInAnError, "tells a private value"),
    (nothing_private_is_told, LogsAPhone, "tells a private value, where it says: The first is"),
    (nothing_private_is_told, HasAnOwnerElsewhere, "writes a private value into a1-"),
    (nothing_private_is_told, KeepsNothingPrivate, "has nothing to keep private"),
]


@pytest.fixture(scope="module")
def warehouse(postgres: Server, _warehouse_template: str) -> Iterator[Warehouse]:
    with empty_warehouse(postgres, _warehouse_template) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("landing")


def case_of(register: Register, warehouse: Warehouse, landing: Path) -> Case:
    stand_in = StandIn(
        variables={
            "HEADWATER_REGISTER_URL": "here",
            "HEADWATER_REGISTER_KEY": register.right_key,
            "HEADWATER_REGISTER_OWNERS_KEY": "what owners are hashed with",
        },
        rows={"things": 20},
        down={"HEADWATER_REGISTER_URL": "nobody"},
        refused={"HEADWATER_REGISTER_KEY": f"not-the-{register.right_key}"},
        private={"things": register.private},
    )
    return Case(register, register.streams[0], stand_in, warehouse, landing)


@pytest.mark.parametrize("check", [*ROW_CHECKS, *CONDUCT_CHECKS], ids=lambda check: check.__name__)
def test_a_source_that_keeps_its_promises_passes(
    check: Callable[[Case], None], warehouse: Warehouse, landing: Path
) -> None:
    check(case_of(Register(), warehouse, landing))


@pytest.mark.parametrize(("check", "wrong", "message"), WRONG, ids=[f"{c.__name__}-{w.__name__}" for c, w, _ in WRONG])
def test_a_source_that_breaks_a_promise_is_found_out(
    check: Callable[[Case], None],
    wrong: type[Register],
    message: str,
    warehouse: Warehouse,
    landing: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conduct_checks, "PATIENCE_SECONDS", 0.2)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        check(case_of(wrong(), warehouse, landing))


def test_every_check_has_found_a_source_out() -> None:
    assert {check for check, _, _ in WRONG} | {raw_can_be_rebuilt} == {*ROW_CHECKS, *CONDUCT_CHECKS}


def test_a_raw_table_that_is_not_what_landed_is_found_out(warehouse: Warehouse, landing: Path) -> None:
    class Altered(Register):
        pass

    case = case_of(Altered(), warehouse, landing)
    case.load()
    warehouse.execute(f"update {case.table} set changed_at = changed_at - interval '1 day' where id = 0")
    with pytest.raises(AssertionError, match="rebuilt from the landing, raw is another"):
        raw_can_be_rebuilt(case)


def test_a_stand_in_too_narrow_to_show_anything_is_found_out(warehouse: Warehouse, landing: Path) -> None:
    class AllAtOnce(Register):
        def things(self) -> Rows:
            return [{**each, "at": "2024-03-01T00:00:00Z"} for each in super().things()]

    with pytest.raises(AssertionError, match="too close in time"):
        windows_are_honoured(case_of(AllAtOnce(), warehouse, landing))
