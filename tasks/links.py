"""Links from a run to the pages beside Prefect's: dbt's docs, and the status page where there is one."""

from __future__ import annotations

from prefect.artifacts import create_link_artifact

from tasks.bounded import show
from tasks.credentials import DOCS_LINK, STATUS_PAGE_LINK, PrefectConnections
from tasks.transform import docs_page


def show_links() -> None:
    """Keep them as artifacts of the run. Nothing fails for want of them."""

    def keep() -> None:
        connections = PrefectConnections()
        docs = connections.optional_setting(DOCS_LINK)
        page = connections.optional_setting(STATUS_PAGE_LINK)
        where = "" if docs else f"; on the machine of the worker, as {DOCS_LINK.environment_variable} is not set"
        create_link_artifact(
            docs or docs_page().resolve().as_uri(),
            link_text="dbt docs",
            key="dbt-docs",
            description=f"What each model and column means, and what is made from what{where}.",
        )
        if page:
            create_link_artifact(
                page,
                link_text="Status page",
                key="status-page",
                description="Marts and whether they can be trusted, loads, tests, incidents, lineage.",
            )

    show(keep, "links")
