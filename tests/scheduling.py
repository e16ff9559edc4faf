"""Which tests run in which of the processes of `-n 2`."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class OneProcessForServices(LoadScopeScheduling):
    """Each file in one process, and all files that start local stacks and source systems in the same one: they prefer
    the same ports, and each would be taken for the other. Those of the dbt project share what one of them has built,
    those of flows a Prefect server."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith(("tests/deployments/", "tests/test_demo.py")):
            return "services"
        return next((folder for folder in ("tests/dbt/", "tests/flows/") if file.startswith(folder)), file)
