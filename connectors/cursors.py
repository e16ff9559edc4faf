"""Which values of a cursor may become a watermark, and which transactions keep it back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta

from psycopg import sql

from connectors.stopping import check_stop

_UNSIZED = re.compile(r"\([^)]*\)")
# The time zone of a timestamp without one is not known: it can be 14 hours ahead of UTC.
_CONDITIONS = {
    "timestamp with time zone": "{0} > '-infinity' and {0} <= now() + {1}::interval",
    "timestamp without time zone": (
        "{0} > '-infinity' and {0} <= now() at time zone 'UTC' + interval '14 hours' + {1}::interval"
    ),
    "date": "{0} > '-infinity' and {0} <= (now() at time zone 'UTC' + interval '14 hours' + {1}::interval)::date",
    "numeric": "{0} < 'Infinity'",
    "real": "{0} < 'Infinity'",
    "double precision": "{0} < 'Infinity'",
}


def may_be_watermark(column: sql.Composable, kind: str, slack: timedelta = timedelta(0)) -> sql.Composed:
    """The condition that a value of a cursor column is one that later values will exceed.

    Infinite values never are, and instants ahead of the clock of the database that is asked are not for a while: a
    watermark there would lose what comes until then. Rows that have them lie above every watermark, so each load reads
    them again.

    Args:
        kind: the column's type, as `format_type` prints it.
        slack: how far ahead of that clock an instant may be.
    """
    condition = _CONDITIONS.get(_UNSIZED.sub("", kind), "{0} is not null")
    return sql.SQL(condition).format(column, sql.Literal(slack))


def outlasting(open_now: Callable[[], set[str]], settle_seconds: float, poll_seconds: float) -> tuple[str, ...]:
    """Wait a little for the transactions that are open now to end; those that do not, sorted.

    Args:
        open_now: names all that are open, each time it is called.
    """
    waiting = open_now()
    deadline = time.monotonic() + settle_seconds
    while waiting and time.monotonic() < deadline:
        check_stop()
        time.sleep(poll_seconds)
        waiting &= open_now()
    return tuple(sorted(waiting))
