"""dbt's `adapter` for sqlfluff, whose templater knows no adapters: `adapter.dispatch` gives the macro of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import pass_context
from jinja2.runtime import Context


@pass_context
def dispatch(context: Context, macro_name: str, macro_namespace: str | None = None) -> Callable[..., str]:
    """The macro as dbt would find it for the dialect that is linted; an empty text where it has not been loaded."""
    del macro_namespace
    for prefix in ("postgres", "default"):
        found = context.resolve_or_missing(f"{prefix}__{macro_name}")
        if callable(found):
            return found  # type: ignore[no-any-return]  # Jinja's macros are not typed
    return lambda *_, **__: ""
