"""Which rows a source gives: all of what it is asked for, nothing else, and the same when it is asked again."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest

from connectors.deletions import find_deleted
from connectors.errors import WindowError
from connectors.model import ExtractRequest, Stream, Window
from connectors.rebuild import rebuild
from tests.sources.case import Case, Read, column

LARGEST_CHUNK = 8 << 20
"""Bytes. A few chunks are in memory at a time, however many rows there are."""
_FILE_MARGIN = timedelta(hours=50)
"""A file is read whole, and its day is a local one: from 14 hours before UTC's day to 12 hours after it."""
_SOME_WINDOW = Window.parse("2024-01-01", "2024-01-02")


def every_row_is_read(case: Case) -> None:
    """A read without bounds gives every row."""
    expected, extracted = case.stand_in.rows[case.stream.name], case.everything.report.extracted
    assert extracted == expected, f"{case} has {expected:,} rows, and {extracted:,} were read."


def keys_are_unique_and_never_null(case: Case) -> None:
    """No two rows of a read have the same key, and every row has one that fits its column."""
    report = case.everything.report
    assert report.duplicate == 0, f"{case}: {report.duplicate:,} rows of one read have the key of another."
    reasons = case.warehouse.query("select reason from ops.quarantine where load_id = %s limit 1", [report.load_id])
    assert not reasons, f"{case}: {report.quarantined:,} rows go to quarantine, one because {reasons[0][0]}"


def windows_are_honoured(case: Case) -> None:
    """A window gives every row in `[start, end)` and no other; of files, every file that may have such rows, whole."""
    if case.stream.event_time is None:
        with pytest.raises(WindowError):
            case.source.extract(case.stream, ExtractRequest(window=_SOME_WINDOW), case.connections())
        return
    window, read = _read_of_a_window(case, case.stream.event_time)
    at = column(case.stream.event_time)
    margin = _FILE_MARGIN if read.has_files else timedelta()
    allowed = f"{at} >= '{window.start - margin}' and {at} < '{window.end + margin}'"
    _check_bounds(case, read, f"{at} >= '{window.start}' and {at} < '{window.end}'", allowed, str(window))


def watermarks_are_honoured(case: Case) -> None:
    """From a watermark on every row is read, those at the watermark and within the lag included, and none before."""
    cursor = case.stream.cursor
    if cursor is None:
        return
    changed = column(cursor.field)
    [(watermark, kind)] = case.warehouse.query(
        f"select (percentile_disc(0.5) within group (order by {changed}))::text, pg_typeof(min({changed}))::text"
        f" from {case.everything.table} where {changed} is not null"
    )
    read = case.read(ExtractRequest(watermark=watermark))
    bound = earliest = f"'{watermark}'::{kind}"
    if kind.startswith(("timestamp", "date")):
        bound += _less(cursor.lag)
        earliest += _less(cursor.lag + _coarseness(case.stream))
    allowed = f"({changed} is null or {changed} >= {earliest})"
    _check_bounds(case, read, f"{changed} >= {bound}", allowed, f"the watermark {watermark}")


def a_second_read_gives_the_same(case: Case) -> None:
    """Nothing has changed, so nothing differs: not a value, not the number of times that a row comes."""
    again = case.read(ExtractRequest())
    first, second = case.everything, again
    differing = case.number_of(f"{first.rows()} except all {second.rows()}") + case.number_of(
        f"{second.rows()} except all {first.rows()}"
    )
    is_same = differing == 0 and first.report.extracted == second.report.extracted
    assert is_same, f"{case}: two reads of the same differ in {differing:,} rows."


def a_second_load_writes_nothing(case: Case) -> None:
    """What raw has already is left alone."""
    case.load()
    before = case.raw()
    report = case.load()
    assert report.moved == 0, f"{case}: a load of what had not changed wrote all the same: {report}."
    assert case.raw() == before, f"{case}: a load of what had not changed has changed raw."


def the_definition_names_what_is_there(case: Case) -> None:
    """The columns of the key, the cursor, the event time and the declared types are there, and have those types."""
    stream = case.stream
    case.load()
    types = case.columns()
    named = {*stream.primary_key, *stream.columns}
    named |= {stream.event_time} if stream.event_time else set()
    named |= {stream.cursor.field} if stream.cursor else set()
    missing = sorted(field for field in named if column(field).strip('"') not in types)
    assert not missing, f"{case}: the definition names {', '.join(missing)}, which no row has."
    for field, declared in stream.columns.items():
        [(kind,)] = case.warehouse.query("select format_type(%s::regtype, null)", [declared])
        found = types[column(field).strip('"')]
        assert found.startswith(kind), f"{case}: {field} is declared as {kind} and is {found} in raw."


def columns_and_types_are_stable(case: Case) -> None:
    """A load of everything anew finds the columns that were there, and no others."""
    case.load()
    before = case.columns()
    report = case.load(full_refresh=True)
    assert case.columns() == before, f"{case}: a second load of the same changed raw's columns."
    [(changes,)] = case.warehouse.query(
        "select string_agg(change || ' ' || column_name, ', ') from ops.schema_changes where load_id = %s",
        [report.load_id],
    )
    assert changes is None, f"{case}: a second load of the same saw other columns: {changes}."


def raw_can_be_rebuilt(case: Case) -> None:
    """The landing alone gives the same raw table."""
    case.load()
    before = case.raw()
    rebuild(case.source, case.stream, case.destination)
    assert case.raw() == before, f"{case}: rebuilt from the landing, raw is another."


def no_row_is_taken_for_deleted(case: Case) -> None:
    """Its keys, compared with raw, are those of its rows."""
    if case.stream.deletes is None:
        return
    case.load()
    report = find_deleted(case.source, case.stream, case.connections(), case.destination, limit=1)
    expected = case.stand_in.rows[case.stream.name]
    has_all = report.extracted == report.unchanged == expected and report.deleted == 0
    assert has_all, f"{case} has {expected:,} rows, and a comparison of keys says: {report}."


def chunks_are_bounded(case: Case) -> None:
    """A chunk is at most 8 MiB: memory does not grow with the number of rows."""
    largest = case.everything.largest_chunk
    assert largest <= LARGEST_CHUNK, (
        f"{case} gives {largest:,} bytes at once, more than {LARGEST_CHUNK:,}: read smaller pages or blocks."
    )


def _read_of_a_window(case: Case, event_time: str) -> tuple[Window, Read]:
    """A window whose bounds are rows' own times, or, for systems that know only days, of whole days."""
    at = column(event_time)
    third = "(percentile_disc({}) within group (order by {}))::timestamptz"
    [(start, end)] = case.warehouse.query(
        f"select {third.format(0.3, at)}, {third.format(0.7, at)} from {case.everything.table} where isfinite({at})"
    )
    assert start < end, f"{case}: the stand-in's rows lie too close in time to cut a window from: spread them."
    window = Window(start, end)
    try:
        return window, case.read(ExtractRequest(window=window))
    except AssertionError as error:
        if not isinstance(error.__cause__, WindowError):
            raise
    window = Window(_midnight(start), _midnight(end) + timedelta(days=1))
    return window, case.read(ExtractRequest(window=window))


def _midnight(instant: datetime) -> datetime:
    return datetime.combine(instant.date(), time(), instant.tzinfo)


def _check_bounds(case: Case, read: Read, wanted: str, allowed: str, bounds: str) -> None:
    everything = case.everything
    outside = case.number_of(everything.rows(f"not ({allowed})"))
    assert outside, f"{case}: no row of the stand-in lies outside {bounds}, so nothing is shown: spread its rows."
    missing = case.number_of(f"{everything.rows(wanted)} except all {read.rows()}")
    assert missing == 0, f"{case}: {missing:,} rows of {bounds} were not read."
    surplus = case.number_of(f"{read.rows()} except all {everything.rows(allowed)}")
    assert surplus == 0, f"{case}: {surplus:,} rows were read that are not of {bounds}."


def _less(span: timedelta) -> str:
    return f" - '{span.total_seconds():.6f} s'::interval"


def _coarseness(stream: Stream) -> timedelta:
    """How far before a watermark an API may be asked from, as its parameters cannot say it exactly."""
    own = getattr(stream, "instants", None)
    parent = getattr(stream, "parent", None)
    return max(own.step if own else timedelta(), _coarseness(parent.stream) if parent else timedelta())


ROW_CHECKS = (
    every_row_is_read,
    keys_are_unique_and_never_null,
    windows_are_honoured,
    watermarks_are_honoured,
    a_second_read_gives_the_same,
    a_second_load_writes_nothing,
    the_definition_names_what_is_there,
    columns_and_types_are_stable,
    raw_can_be_rebuilt,
    no_row_is_taken_for_deleted,
    chunks_are_bounded,
)
