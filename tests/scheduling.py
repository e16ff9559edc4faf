"""Which tests run in which of the processes of `-n`, and which of them begin."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

_TOGETHER = ("tests/deployments/", "tests/flows/", "tests/dbt/")
"""Folders whose files share what takes long to come up: a stack's server, a Prefect server, a project that is built."""


def scope_of(nodeid: str) -> str:
    """Each file in one process, and the files of some folders in the same one."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in _TOGETHER if file.startswith(folder)), file)


def rank(nodeid: str) -> int:
    """What takes longest begins: the demo, then those folders; the files that are left fill up what they leave."""
    scope = scope_of(nodeid)
    return ("tests/test_demo.py", *_TOGETHER, scope).index(scope)


class Together(LoadScopeScheduling):
    """Scheduling by `scope_of`."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
