"""A review as Markdown, for a pull request and for a terminal. It holds names and numbers, no value of a row."""

from __future__ import annotations

from collections.abc import Iterator

from dbt.artifacts.schemas.results import NodeStatus

from connectors.definitions import Need
from connectors.destinations.warehouse.table_comparison import ColumnDifference
from tasks.review import ModelReview, Review, StreamNeed

_SHOWN = 20
"""Failed nodes that are named."""


def report(review: Review, base: str) -> str:
    """All of it.

    Args:
        review: what came of it.
        base: what it was compared with, for people: a branch, a commit.
    """
    parts = [
        f"## What this changes, against {_text(base)}",
        _summary(review),
        *_models(review),
        *_failed(review),
        *_needs(review),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(review: Review) -> str:
    if not (review.models or review.streams or review.streams_unknown or review.failed):
        return "Nothing that builds or reads data differs."
    built = [each for each in review.models if each.status in (NodeStatus.Success, "new")]
    compared = [each for each in built if each.difference is not None]
    same = sum(each.difference.is_same for each in compared if each.difference is not None)
    parts = [f"{_count(len(built), 'model')} built in `{review.prefix}_*`"] if built else []
    if compared:
        parts.append(f"{same} of {len(compared)} compared are as they were")
    if review.models:
        parts.append(f"{_count(review.passed, 'test')} passed")
    parts.append(f"**{_count(len(review.failed), 'node')} failed**" if review.failed else "nothing failed")
    return ", ".join(parts) + "."


def _models(review: Review) -> Iterator[str]:
    if not review.models:
        return
    lines = [
        "| model | | rows before | after | added | removed | changed |",
        "|---|---|--:|--:|--:|--:|--:|",
        *map(_line, review.models),
    ]
    yield "\n".join(lines)
    details = [line for each in review.models for line in _details(each)]
    if details:
        yield "\n".join(details)
    if review.unbuilt:
        windows = ", ".join(f"{count:,} of {name}" for name, count in sorted(review.unbuilt.items()))
        yield (
            f"Loads have changed windows since the last transform ({windows}): what they brought is in these numbers"
            " too. Run the transform first to see the change alone."
        )


def _line(model: ModelReview) -> str:
    what = f"{model.kind}, {'modified' if model.is_modified else 'depends on it'}"
    if model.status == "removed":
        return f"| {_code(model.name)} | {model.kind}, **removed** | | | | | |"
    difference = model.difference
    if difference is None:
        if model.status == "new":
            return f"| {_code(model.name)} | {model.kind}, **new** | | | | | |"
        return f"| {_code(model.name)} | {what}; not compared: {_text(model.why_not)} | | | | | |"
    if difference.is_same:
        what += ", as it was"
    numbers = (difference.before, difference.after, difference.added, difference.removed, difference.changed)
    cells = [f"{number:,}" for number in numbers]
    if not difference.key and (difference.added or difference.removed):
        cells[-1] = "no key"
    return f"| {_code(model.name)} | {what} | {' | '.join(cells)} |"


def _details(model: ModelReview) -> Iterator[str]:
    difference = model.difference
    if difference is None:
        return
    told = [text for column in difference.columns if (text := _column(column, difference.after))]
    if told:
        yield f"- {_code(model.name)}: {'; '.join(told)}"


def _column(column: ColumnDifference, rows: int) -> str:
    name = _code(column.name)
    if column.before is None:
        return f"{name} is new ({_text(str(column.after))})"
    if column.after is None:
        return f"{name} is gone"
    parts = [] if column.before == column.after else [f"was {_text(column.before)}, is {_text(column.after)}"]
    if column.changed:
        share = f" ({column.changed / rows:.1%})" if rows else ""
        parts.append(f"differs in {_count(column.changed, 'row')}{share}")
    return f"{name} {', '.join(parts)}" if parts else ""


def _failed(review: Review) -> Iterator[str]:
    if review.failed:
        lines = [f"- {_code(each.name)}: {_text(each.message or each.status)}" for each in review.failed[:_SHOWN]]
        if len(review.failed) > _SHOWN:
            lines.append(f"- and {len(review.failed) - _SHOWN} more")
        yield "\n".join(["### What failed", "", *lines])


def _needs(review: Review) -> Iterator[str]:
    lines = [_stream_need(each) for each in review.streams]
    if review.streams_unknown:
        lines.append(
            f"- The sources of the base could not be read, so nobody compared them: {_text(review.streams_unknown)}"
        )
    refreshed = [each.name for each in review.models if each.needs_full_refresh]
    if refreshed:
        selection = " ".join(f"{name}+" for name in refreshed)
        lines.append(
            f"- {', '.join(map(_code, refreshed))}: rows that are built already stay as they were. Build them anew,"
            f" and what depends on them: `prefect deployment run 'transform/nyc' -p full_refresh=true"
            f" -p 'select={selection}'`, then `prefect deployment run 'transform/nyc'`, which publishes."
        )
    lines += [
        f"- {_code(each.name)}: its history from before the merge stays as it was; a new column is empty in it."
        for each in review.models
        if each.kind == "snapshot" and each.is_modified and each.status not in ("new", "removed")
    ]
    lines += [
        f"- {_code(each.name)} is built no more; what it has built stays until somebody drops it."
        for each in review.models
        if each.status == "removed"
    ]
    if review.models or lines:
        lines = lines or ["- That nothing fails." if review.failed else "- Nothing: the next transform builds it."]
        yield "\n".join(["### What merging it needs", "", *lines])


def _stream_need(need: StreamNeed) -> str:
    change = need.change
    source, _, stream = change.stream.partition(".")
    name = _code(change.stream)
    differs = ", ".join(map(_code, change.fields))
    ingest = f"prefect deployment run 'ingest/{source.replace('_', '-')}'"
    match change.need:
        case Need.FIRST_LOAD:
            return (
                f"- {name} is new: `headwater register`, `headwater deploy`, then `{ingest}`; dbt needs its raw table."
            )
        case Need.RETIRE:
            return f"- {name} is read no more; its raw table and its landing stay until somebody drops them."
        case Need.NOTHING:
            return f"- {name} ({differs}): nothing; it counts from the next load on."
    rows = f"{need.rows:,} rows"
    if change.has_windows and need.windows:
        command, amount = f"headwater backfill run {change.stream} --mode all", f"{need.windows:,} windows, {rows}"
    else:
        command, amount = f"""{ingest} -p full_refresh=true -p 'streams=["{stream}"]'""", rows
    return (
        f"- {name} ({differs}): what raw has was read as it was defined before. Read it again: `{command}` ({amount})."
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


def _text(text: str) -> str:
    """One line that is no markup."""
    line = " ".join(text.split())
    for character in "\\`*_[]<>|#":
        line = line.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return line
