"""How a source behaves: what it says when it cannot read, what it asks for, what it holds, what it keeps to itself."""

from __future__ import annotations

import gc
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from sqlalchemy.engine import URL

from connectors.connections import (
    Connections,
    Database,
    EnvironmentConnections,
    ObjectStore,
    Requirement,
    Secret,
    Setting,
    StoreLocation,
)
from connectors.errors import ConfigurationError, HeadwaterError, SourceUnavailableError
from connectors.ingest import ingest
from connectors.model import ExtractRequest, Stream
from connectors.privacy import Masked
from connectors.unsaid import UNSAID, Unsaid
from tests.sources.case import Case
from tests.telling import heard, landing_telling, tables_telling

_SHORTEST_SECRET = 8
PATIENCE_SECONDS = 5.0
_NOWHERE = "headwater_has_no_such_thing"


def a_system_that_is_down_is_unavailable(case: Case) -> None:
    """Where nobody answers, the load fails with SourceUnavailableError: it is worth another attempt."""
    _check_error(case, _failure(case, case.connections(case.stand_in.down)), SourceUnavailableError)


def wrong_credentials_are_a_configuration_error(case: Case) -> None:
    """Credentials that are refused are not tried again and again."""
    if not case.stand_in.refused:
        assert not case.secrets, f"{case} has credentials, and its stand-in names none that are `refused`."
        return
    _check_error(case, _failure(case, case.connections(case.stand_in.refused)), ConfigurationError)


def a_missing_setting_is_named(case: Case) -> None:
    """Whoever runs it is told which variable to set."""
    for requirement in _asked(case):
        variable = requirement.environment_variable
        error = _failure(case, case.connections(without=variable))
        _check_error(case, error, ConfigurationError)
        assert variable in str(error), f"{case}: without {variable} it says: {error}"


def what_does_not_exist_is_a_configuration_error(case: Case) -> None:
    """A path, table or folder that is not there."""
    stream, changes = _astray(case)
    _check_error(case, _failure(case, case.connections(changes), stream), ConfigurationError)


def only_what_is_required_is_asked_for(case: Case) -> None:
    """`requirements` is complete: it is what `headwater register` provides."""
    beyond = _asked(case) - set(case.source.requirements)
    names = ", ".join(sorted(requirement.name for requirement in beyond))
    assert not beyond, f"{case} asks for {names}, which its requirements do not list."


def nothing_is_held_after_a_read_is_given_up(case: Case) -> None:
    """Given up before the first chunk or after it, a read leaves no thread, connection or file open."""
    case.read(ExtractRequest())  # what is made once, and kept
    for taken in (0, 1):
        before = _held()
        extraction = case.source.extract(case.stream, ExtractRequest(), case.connections())
        for _ in range(taken):
            next(extraction.chunks)
        if (close := getattr(extraction.chunks, "close", None)) is not None:
            close()
        del extraction, close
        gc.collect()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := _held() - before) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left, f"{case}: given up after {taken} chunks, a read leaves open: {', '.join(sorted(left))}"


def nothing_secret_is_told(case: Case) -> None:
    """No secret is in a message, a log, the landing, the warehouse or a repr, in clear or encoded."""
    for secret in case.secrets:
        assert len(secret) >= _SHORTEST_SECRET, f"{case}: a secret of the stand-in is too short to be looked for."
    written = {form for secret in case.secrets for form in (secret, quote(secret), b64encode(secret.encode()).decode())}
    with pytest.MonkeyPatch.context() as patch, heard() as said:
        # What would keep it from being told at last is not to hide that it was said.
        patch.setattr(Unsaid, "add", lambda *_: None)
        UNSAID.forget_all()
        case.read(ExtractRequest())
        case.load(full_refresh=True)
        stream, changes = _astray(case)
        for trouble, of in ((case.stand_in.down, None), (case.stand_in.refused, None), (changes, stream)):
            if trouble or of:
                error = _failure(case, case.connections(trouble), of)
                said.append("".join(traceback.format_exception(error)))
    said += [repr(case.source), repr(case.stream), repr(case.connections())]
    for text in said:
        assert not any(form in text for form in written), f"{case} tells a secret, where it says: {text[:200]}…"
    where = [*landing_telling(case.landing, written), *tables_telling(case.warehouse, written)]
    assert not where, f"{case} writes a secret into {where[0]}."


def nothing_private_is_told(case: Case) -> None:
    """No value that is to be hashed or dropped is in a log, the landing, the warehouse, or what is said of trouble."""
    private = [field for field, treatment in case.stream.privacy.items() if not isinstance(treatment, Masked)]
    values = case.stand_in.private.get(case.stream.name, ())
    assert bool(private) == bool(values), (
        f"{case} has {', '.join(private) or 'nothing'} to keep private, and its stand-in names the values "
        f"{', '.join(values) or 'of nothing'} in `private`."
    )
    if not private:
        return
    with heard() as said:
        case.load(full_refresh=True)
        stream, changes = _astray(case)
        for trouble, of in ((case.stand_in.down, None), (changes, stream)):
            error = _failure(case, case.connections(trouble), of)
            said.append("".join(traceback.format_exception(error)))
    for text in said:
        assert not any(value in text for value in values), f"{case} tells a private value, where it says: {text[:200]}…"
    where = [*landing_telling(case.landing, values), *tables_telling(case.warehouse, values)]
    assert not where, f"{case} writes a private value into {where[0]}."


def _failure(case: Case, connections: Connections, stream: Stream | None = None) -> HeadwaterError:
    """What a load says that cannot succeed."""
    try:
        ingest(case.source, stream or case.stream, connections, case.destination)
    except HeadwaterError as error:
        return error
    except Exception as error:
        raise AssertionError(
            f"{case} fails with {type(error).__name__}, which is none of connectors.errors."
        ) from error
    raise AssertionError(f"{case}: a load that cannot succeed did not fail.")


def _check_error(case: Case, error: HeadwaterError, kind: type[HeadwaterError]) -> None:
    assert isinstance(error, kind), f"{case}: this is {type(error).__name__}, not {kind.__name__}: {error}"
    assert (error.source, error.stream) == (case.source.name, case.stream.name), f"{case}: it names neither: {error}"
    assert error.remedy, f"{case}: it does not say what to do: {error}"


def _astray(case: Case) -> tuple[Stream, Mapping[str, str]]:
    """The stream, or variables, such that what is read is not there."""
    for name, wrong in (("path", f"/{_NOWHERE}"), ("table", _NOWHERE)):
        if hasattr(case.stream, name):
            changes: dict[str, Any] = {name: wrong}
            return replace(case.stream, **changes), {}
    stores = [each for each in case.source.requirements if isinstance(each, ObjectStore)]
    assert stores, f"{case} has no path, table or store to lead astray: say in conduct_checks._astray what it has."
    variable = stores[0].environment_variable
    return case.stream, {variable: f"{case.stand_in.variables[variable].rstrip('/')}/{_NOWHERE}"}


def _asked(case: Case) -> set[Requirement]:
    """What a read asks its connections for."""
    recording = _Recording(case.connections())
    for _ in case.source.extract(case.stream, ExtractRequest(), recording).chunks:
        pass
    return recording.asked


class _Recording:
    """Connections that note what they are asked for."""

    def __init__(self, connections: EnvironmentConnections) -> None:
        self._connections = connections
        self.asked: set[Requirement] = set()

    def setting(self, requirement: Setting) -> str:
        self.asked.add(requirement)
        return self._connections.setting(requirement)

    def secret(self, requirement: Secret) -> str:
        self.asked.add(requirement)
        return self._connections.secret(requirement)

    def database(self, requirement: Database) -> URL:
        self.asked.add(requirement)
        return self._connections.database(requirement)

    def object_store(self, requirement: ObjectStore) -> StoreLocation:
        self.asked.add(requirement)
        return self._connections.object_store(requirement)


def _held() -> set[str]:
    """Threads, connections and files of this process."""
    process = psutil.Process()
    threads = {f"thread {thread.name} ({thread.ident})" for thread in threading.enumerate()}
    sockets = {
        f"connection {each.laddr} → {each.raddr} ({each.fd})" for each in process.net_connections() if each.raddr
    }
    return threads | sockets | {f"file {each.path} ({each.fd})" for each in process.open_files()}


CONDUCT_CHECKS: tuple[Callable[[Case], None], ...] = (
    a_system_that_is_down_is_unavailable,
    wrong_credentials_are_a_configuration_error,
    a_missing_setting_is_named,
    what_does_not_exist_is_a_configuration_error,
    only_what_is_required_is_asked_for,
    nothing_is_held_after_a_read_is_given_up,
    nothing_secret_is_told,
    nothing_private_is_told,
)
