"""Named instants of a load, a transform or a publish, at which a test can kill or stop the process that reaches them.

Promises such as "a kill at any instant leaves raw as it was" are only worth something when the instants can be hit.
HEADWATER_FAILPOINT names one, as `rows-written` or `chunk-landed:3` (the third time); HEADWATER_FAILPOINT_SIGNAL the
signal that the process sends itself, KILL unless it says otherwise. Without the variable nothing is done or counted.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

FAILPOINTS = (
    "lease-taken",
    "load-begun",
    "table-made",
    "chunk-copied",
    "chunk-landed",
    "all-copied",
    "manifest-written",
    "landed-noted",
    "commit-begun",
    "rows-judged",
    "rows-quarantined",
    "rows-written",
    "watermark-moved",
    "load-recorded",
    "committed",
)
"""In the order in which a load reaches them."""

PUBLISH_FAILPOINTS = (
    "publish-begun",
    "mart-written",
    "generation-recorded",
    "generation-served",
)
"""In the order in which a publish reaches them; a rollback reaches the last three."""

ALERT_FAILPOINTS = (
    "alert-claimed",
    "alert-sent",
)
"""In the order in which the delivery of an alert reaches them."""

FORGET_FAILPOINTS = (
    "keys-recorded",
    "list-kept",
    "object-rewritten",
    "manifest-replaced",
    "old-objects-deleted",
    "landing-erased",
    "ledger-erased",
    "raw-erased",
    "kept-rows-erased",
    "mart-erased",
    "models-erased",
    "generations-forgotten",
)
"""In the order in which a run that forgets rows reaches them."""

BACKUP_FAILPOINTS = (
    "backup-begun",
    "part-dumped",
    "all-dumped",
    "backup-finished",
)
"""In the order in which a backup reaches them."""

RESTORE_FAILPOINTS = (
    "restore-begun",
    "part-restored",
    "copied",
    "forgotten-known",
    "raw-rebuilt",
    "forgotten-repeated",
    "load-adopted",
    "restored",
)
"""In the order in which a restore reaches them."""

TRANSFORM_FAILPOINTS = ("build-begun", "build-ended", "marts-prepared", *PUBLISH_FAILPOINTS, "windows-noted")
"""In the order in which a transform reaches them."""

_name, _, _count = os.environ.get("HEADWATER_FAILPOINT", "").partition(":")
_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """Say that this is the instant."""
    if name == _name:
        _reached[name] += 1
        if _reached[name] == int(_count or 1):
            os.kill(os.getpid(), signal.Signals[f"SIG{os.environ.get('HEADWATER_FAILPOINT_SIGNAL', 'KILL')}"])
