"""What failed in the latest build of the whole project, models and tests; builds that were killed."""

from __future__ import annotations

import psycopg

from connectors.incidents.checks import commands
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import BUILD, Lineage
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign

_FAILED = ("error", "fail", "runtime error", "partial success")
_TESTS = ("test", "unit_test")


def check_builds(connection: psycopg.Connection, lineage: Lineage) -> Seen:
    """Nodes that failed or warned in the latest build; a build that did not get as far as to a node; one that was
    killed. Nodes that were skipped follow from others."""
    signs = [*_killed(connection)]
    latest = connection.execute(
        "select invocation_id, is_success, run_id, to_jsonb(i) ->> 'error' from ops.dbt_invocations i"
        " where selection is null order by started_at desc limit 1"
    ).fetchone()
    if latest is not None:
        invocation_id, is_success, run_id, error = latest
        found = connection.execute(
            "select node, name, resource_type, status, message, failures, tests from ops.dbt_results"
            " where invocation_id = %s and status = any(%s) order by node",
            [invocation_id, [*_FAILED, "warn"]],
        ).fetchall()
        signs += [_node(lineage, run_id, *facts) for facts in found]
        if not is_success and all(status == "warn" for _, _, _, status, *_ in found):
            signs.append(_broken_off(run_id, error))
    return Seen(tuple(signs))


def _node(
    lineage: Lineage,
    run_id: str | None,
    node: str,
    name: str,
    resource_type: str,
    status: str,
    message: str | None,
    failures: int | None,
    tests: list[str],
) -> Sign:
    said = " ".join((message or status).split())
    if resource_type in _TESTS:
        # A test of several nodes is downstream of all of them; one of one node is that node's trouble.
        place = tests[0] if len(tests) == 1 else node
        tested = ", ".join(_name(lineage, each) for each in tests) or "the project"
        what, cause, rows = "Test", "The data is not what the test says it is", ""
        if resource_type == "unit_test":
            what, cause = "Unit test", "The model does not make of the given rows what it is to"
        elif failures and status != "error":
            rows = f", {failures:,} row{'s' if failures != 1 else ''}"
        kept = ". Rows that failed are kept in schema failures." if rows else ""
        return Sign(
            key=f"dbt {node}",
            kind=Kind.TEST_WARNED if status == "warn" else Kind.TEST_FAILED,
            severity=Severity.WARNING if status == "warn" else Severity.ERROR,
            title=f"{what} {name} of {tested} {'warns' if status == 'warn' else 'failed'}{rows}",
            cause=f"{cause}, or the test could not run: {said}{kept}",
            next_command=commands.TRANSFORM,
            node=place,
            run_id=run_id,
        )
    return Sign(
        key=f"dbt {node}",
        kind=Kind.MODEL_FAILED,
        severity=Severity.WARNING if status == "warn" else Severity.ERROR,
        title=f"dbt could not build {name}",
        cause=f"Its SQL does not fit the data or the tables that it reads: {said}",
        next_command=commands.TRANSFORM,
        node=node if node in lineage.nodes else BUILD if resource_type == "operation" else node,
        run_id=run_id,
    )


def _name(lineage: Lineage, node: str) -> str:
    return lineage.nodes[node].name if node in lineage.nodes else node.rpartition(".")[2]


def _broken_off(run_id: str | None, error: str | None) -> Sign:
    return Sign(
        key="build",
        kind=Kind.BUILD_FAILED,
        severity=Severity.ERROR,
        title="dbt did not get to the end of a build, and no node says why",
        cause="A model does not compile, a selection or a profile is wrong, or the warehouse let nobody in"
        f"{f': {error}' if error else '; the log of the run says it'}",
        next_command=commands.TRANSFORM,
        node=BUILD,
        run_id=run_id,
    )


def _killed(connection: psycopg.Connection) -> list[Sign]:
    row = connection.execute(
        """
        select holder, lease_until from ops.streams s
        where source = 'dbt' and stream = 'transform' and holder is not null
          and (lease_until <= clock_timestamp() or not exists (select from pg_stat_activity a where a.pid = holder_pid))
          and not exists (select from ops.dbt_invocations i where i.run_id = s.holder)
        """
    ).fetchone()
    if row is None:
        return []
    holder, lease_until = row
    return [
        Sign(
            key="build killed",
            kind=Kind.BUILD_KILLED,
            severity=Severity.ERROR,
            title="A build was killed, and none has run since",
            cause=f"The process or machine of {holder} went away, the last sign of life was before "
            f"{lease_until:%Y-%m-%d %H:%M} UTC. Readers keep the last good generation.",
            next_command=commands.TRANSFORM,
            node=BUILD,
            run_id=holder,
        )
    ]
