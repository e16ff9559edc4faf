"""Whether a text is a value of a type, exactly: what a type would take and round, cut or reinterpret is not one.

PostgreSQL's input functions are generous: `2024-01-01 12:34` is a date to them, `now` an instant, and a leap second the
second after it. Raw holds what the source said, or does not hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from psycopg import sql

_MOVING = r"\m(now|today|tomorrow|yesterday|allballs)\M"
"""Words that mean another time whenever they are read."""
_LEAP_SECOND = r"(:\d\d:|T\d{4})60"
_DAY_OR_MONTH = r"(^|\s)\d\d?[-/.]\d\d?[-/.]\d"
"""A date that does not begin with its year: `03/04/2024` is another day in London than in New York."""
_PRECISION = re.compile(r"\((\d)\)")
_FLOATS = {"double precision": "9.9999999999999999EEEE", "real": "9.99999999EEEE"}
"""With how many digits every value of the type can be told from its neighbours (17 and 9)."""


def unfit(name: str, kind: str, value: sql.Composable, *, has_texts: bool = False) -> sql.Composed:
    """Clauses of a `case`: `when` the text is no value of the type `then` why. `1` is no boolean here.

    Args:
        name: the column, for the reason.
        kind: its type, as `format_type` prints it.
        value: the text.
        has_texts: whether texts came among the numbers of a column whose numbers are the source's own, not declared:
            `007` and `1e5` may be names there, and pass only as raw would print them.
    """
    clauses = [_when(test, f"column {name}: {why}", value=value) for test, why in _tests(kind, has_texts)]
    if (usual := _usual(kind)) is not None:
        # One look at how it is written settles nearly every instant.
        doubts = sql.SQL("(case when {} then null {} end)").format(
            sql.SQL(usual).format(v=value), sql.SQL(" ").join(clauses)
        )
        clauses = [sql.SQL("when {0} is not null then {0}").format(doubts)]
    if kind != "boolean":
        message = sql.SQL("{} || (pg_input_error_info({}, {})).message").format(
            sql.Literal(f"column {name}: "), value, sql.Literal(kind)
        )
        invalid = sql.SQL("when not pg_input_is_valid({}, {}) then {}").format(value, sql.Literal(kind), message)
        clauses.insert(0, invalid)
    return sql.SQL(" ").join(clauses)


def _when(test: str, why: str, *, value: sql.Composable) -> sql.Composed:
    # The tests are this module's own text, with types as `format_type` prints them.
    return sql.SQL("when {} then {}").format(sql.SQL(test).format(v=value), sql.Literal(why))


def _usual(kind: str) -> str | None:
    """A quick test that holds for most values of a type that are valid input, and for none that is not exact."""
    if kind == "date":
        return "{v} like '____-__-__'"
    if kind.startswith("timestamp"):
        # Without a fraction; what may follow is an offset.
        rest = "%" if "with time zone" in kind else ""
        return f"{{v}} like '____-__-_____:__:__{rest}' and {{v}} not like '%.%' and {{v}} not like '%:60%'"
    return None


def _tests(kind: str, has_texts: bool) -> Iterator[tuple[str, str]]:
    """Conditions on a text `{v}` that is valid input, each with what is wrong when it holds."""
    too_fine = f"more digits than {kind} holds"
    if kind == "boolean":
        yield "{v} not in ('true', 'false')", "not true or false"
    elif has_texts:
        test = f"{{v}} !~ '^-?[0-9]' or {{v}}::{kind}::text <> {{v}}"
        yield test, "a text, or a number that cannot be told from one"
    if kind.startswith("numeric("):
        yield f"{{v}}::numeric <> {{v}}::{kind}", too_fine
    elif kind in _FLOATS:
        # Either the shortest form of a value of the type, or the one with all its digits.
        exact = (
            f"{{v}}::numeric in ({{v}}::{kind}::text::numeric,"
            f" to_char({{v}}::{kind}::double precision, '{_FLOATS[kind]}')::numeric)"
        )
        special = f"{{v}}::{kind} in ('NaN', 'Infinity', '-Infinity')"
        is_number = "pg_input_is_valid({v}, 'numeric')"
        yield (
            f"{{v}} is not null and not case when {special} then true when {is_number} then {exact} else false end",
            too_fine,
        )
    elif kind.startswith("character"):
        yield f"{{v}}::{kind}::text <> {{v}}", f"more characters than {kind} holds"
    elif kind == "jsonb":
        yield "{v} is not json with unique keys", "an object in it has the same key twice"
    elif kind.startswith("interval"):
        yield f"{{v}} ~ {_quoted(_finer(kind, ''))}", too_fine
    elif kind.startswith(("time", "date")):
        yield from _tests_of_time(kind, too_fine)


def _tests_of_time(kind: str, too_fine: str) -> Iterator[tuple[str, str]]:
    yield f"{{v}} ~* {_quoted(_MOVING)}", "a word that means another time whenever it is read"
    yield f"{{v}} ~ {_quoted(_LEAP_SECOND)}", f"a leap second, which {kind} does not have"
    yield f"{{v}} ~ {_quoted(_finer(kind, r'(:[0-9]{2}|T[0-9]{6})'))}", too_fine
    if kind.startswith(("date", "timestamp")):
        yield f"{{v}} ~ {_quoted(_DAY_OR_MONTH)}", "nobody can tell its day from its month; the year comes first"
    if kind == "date":
        yield (
            "case when pg_input_is_valid({v}, 'timestamp') then {v}::timestamp <> {v}::date else false end",
            "a time of day, which date does not hold",
        )
    elif kind.startswith("timestamp") and "without" in kind:
        moves = "{v}::timestamptz at time zone 'UTC' <> {v}::timestamp"
        offset = f"case when pg_input_is_valid({{v}}, 'timestamptz') then {moves} else true end"
        yield f"{{v}} is not null and {offset}", f"an offset, which {kind} does not hold"
    elif kind.startswith("time") and not kind.startswith("timestamp"):
        yield "pg_input_is_valid({v}, 'timestamp')", f"a day, which {kind} does not hold"
        if "without" in kind:
            yield "{v} ~* '[-+z]'", f"an offset, which {kind} does not hold"


def _finer(kind: str, before: str) -> str:
    """Matches digits of a second that the type would round away."""
    sized = _PRECISION.search(kind)
    digits = int(sized[1]) if sized else 6
    return rf"{before}\.[0-9]{{{digits}}}[0-9]*[1-9]"


def _quoted(pattern: str) -> str:
    return "'" + pattern.replace("{", "{{").replace("}", "}}") + "'"
