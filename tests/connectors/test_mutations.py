"""Rules that the promises rest on, taken away one at a time: the suite has to notice each.

The code is copied, changed in one place and tested there, by those of its own tests that are for the rule. `make test`
takes one away; `make chaos` each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Server

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("connectors", "tasks", "flows", "deployments", "tests")
LANDING = "connectors/destinations/landing.py"
DURABLE = "connectors/durable_files.py"
WAREHOUSE = "connectors/destinations/warehouse"
TABLES = "tests/connectors/test_ingest_tables.py"
OBJECTS = "tests/connectors/destinations/test_landing.py"
API = "tests/connectors"
ALERTS = "connectors/alerts"
EXCHANGE = "connectors/http/exchange.py"
SLEEPERS = "tests/connectors/test_races.py::test_a_run_that_wakes_up_after_its_successor_commits_nothing_and_says_why"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, where it stands, what stands there without it, and the tests that must notice."""

    name: str
    path: str
    text: str
    without: str
    tests: tuple[str, ...]


FORGETTING = "tests/connectors/forget/test_forget.py"
FORGOTTEN = f"{FORGETTING}::test_a_forgotten_row_is_nowhere_and_does_not_come_back"
RULES = (
    Rule(
        "a commit leaves out what was forgotten while the load was under way",
        f"{WAREHOUSE}/commit.py",
        "        leave_out_forgotten(self._connection, self._attempt, self._request)\n",
        "",
        (f"{FORGETTING}::test_a_window_that_was_being_read_brings_nothing_back",),
    ),
    Rule(
        "what has a forgotten key is erased from the landing before the load is committed",
        "connectors/erasure.py",
        "    if found.rows:\n        load.erase(lease, manifest_key, found.rows)\n",
        "",
        (f"{FORGOTTEN}[documents]",),
    ),
    Rule(
        "rows keep their places when others are erased from the landing",
        f"{WAREHOUSE}/attempt.py",
        "        self._holes = list(manifest.forgotten)\n",
        "",
        (f"{FORGETTING}::test_rows_in_quarantine_go_too_and_the_others_can_be_replayed",),
    ),
    Rule(
        "a rebuild leaves out what was forgotten",
        "connectors/rebuild.py",
        "        if forgotten is not None:",
        "        if False:",
        ("tests/connectors/forget/test_forget_kill.py::test_whoever_resumes_a_run_that_was_killed_ends_it[some]",),
    ),
    Rule(
        "a file that is a link out of its folder is not read",
        "connectors/files/places.py",
        '                    if self._leads_out(meta["path"]):\n',
        "                    if False:\n",
        ("tests/connectors/test_hostile_inputs.py::test_a_file_that_is_a_link_out_of_its_folder_is_not_read",),
    ),
    Rule(
        "a log record holds no secret that the process was given",
        "connectors/unsaid.py",
        "            record.msg, record.args = cleared, ()\n",
        "            pass\n",
        ("tests/connectors/test_unsaid.py::test_whoever_hands_out_a_secret_has_it_kept_out_of_every_log",),
    ),
    Rule(
        "a password that was not encoded is not taken for a part of the host",
        "connectors/connections.py",
        '    if url.get_backend_name() != "sqlite" and "@" in _USER_AND_PASSWORD.sub("", text, count=1):\n',
        "    if False:\n",
        ("tests/connectors/test_hostile_inputs.py::test_a_password_that_is_not_encoded_is_whole_or_refused",),
    ),
    Rule(
        "dictionaries of Parquet files are made anew without the values of erased rows",
        "connectors/destinations/landed_rows.py",
        'if "dictionary" in str(field.type)',
        "if False",
        (f"{FORGOTTEN}[Parquet files]",),
    ),
    Rule(
        "what a rollback would bring back is erased too",
        "connectors/forget/derived.py",
        "        for name, generation in undo.items():",
        "        for name, generation in {}.items():",
        ("tests/connectors/forget/test_forget_models.py",),
    ),
    Rule(
        "a first load whose values PostgreSQL would change is judged",
        f"{WAREHOUSE}/typed_documents.py",
        "is not None and not guard(chunk.values(column)):",
        "is not None and not guard(chunk.values(column)) and False:",
        ("tests/connectors/test_first_load.py",),
    ),
    Rule(
        "documents are copied as they are only if decoder and encoder leave nothing out",
        f"{WAREHOUSE}/regular_documents.py",
        "if len(data) - len(lines) + longer != len(records) * self._beside:",
        "if False:",
        ("tests/connectors/destinations/warehouse/test_document_columns.py",),
    ),
    Rule(
        "an escape that CSV does not have is noticed",
        f"{WAREHOUSE}/regular_documents.py",
        '        if b"\\\\" in data:\n            _check_escapes(lines)\n',
        "",
        ("tests/connectors/destinations/warehouse/test_document_columns.py",),
    ),
    Rule(
        "of two versions of a new row in one load the latest counts",
        f"{WAREHOUSE}/merge.py",
        "if are_new and are_distinct:",
        "if are_new:",
        (TABLES, "tests/connectors/test_ingest.py"),
    ),
    Rule(
        "a comparison does not judge rows that are younger than its keys",
        f"{WAREHOUSE}/key_comparison.py",
        'sql.SQL("t.{} is null and t.{} <= {} and not {}")',
        'sql.SQL("t.{} is null and (t.{} <= {} or true) and not {}")',
        ("tests/connectors/test_deletions.py",),
    ),
    Rule(
        "commits of one stream are repeated in the order in which they were made",
        f"{WAREHOUSE}/ledger.py",
        "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
        "select hashtextextended(%s, 0)",
        ("tests/connectors/backfill/test_backfill.py::test_commits_of_one_stream_take_turns",),
    ),
    Rule(
        "what raw has less of than loads have brought is missing",
        "connectors/windows.py",
        "elif rows is not None and in_raw < rows:",
        "elif rows is not None and in_raw < rows and False:",
        ("tests/connectors/backfill/test_backfill.py",),
    ),
    Rule(
        "a window whose worker died is taken by another",
        "connectors/backfill/worker.py",
        "            self._take_back_from_the_dead()\n",
        "",
        ("tests/connectors/backfill/test_backfill.py::test_a_batch_of_a_worker_that_died_is_taken_by_another",),
    ),
    Rule(
        "an empty page where the source has more is no end",
        "connectors/rest/pages.py",
        "if count is not None and not page.rows and before < count:",
        "if False:",
        ("tests/connectors/rest/test_pages.py",),
    ),
    Rule(
        "a commit checks the fence",
        f"{WAREHOUSE}/commit.py",
        "        lease.check(connection)\n        reach",
        "        reach",
        ("tests/connectors/test_ingest.py",),
    ),
    Rule(
        "the fence is the epoch",
        f"{WAREHOUSE}/ledger.py",
        "if row is None or row[0] != self.epoch:",
        "if row is None:",
        (f"{WAREHOUSE.replace('connectors', 'tests/connectors', 1)}/test_ledger.py",),
    ),
    Rule(
        "an open transaction holds the watermark back",
        f"{WAREHOUSE}/watermark.py",
        "        if remaining:\n",
        "        if False:\n",
        ("tests/connectors/test_cursors.py",),
    ),
    Rule(
        "a run that lost its stream begins no load",
        "connectors/ingest.py",
        "        with self.lease.guard(self.connection):\n            return ledger.begin_load",
        "        with self.connection.transaction():\n            return ledger.begin_load",
        (f"{SLEEPERS}[merge-lease-taken]",),
    ),
    Rule(
        "rows that share the watermark are read again",
        "connectors/postgres/source.py",
        '"({0} >= {1} or {0} is null)"',
        '"({0} > {1} or {0} is null)"',
        (TABLES,),
    ),
    Rule(
        "of two versions with one cursor the later load's counts",
        f"{WAREHOUSE}/merge.py",
        "coalesce(excluded.{c} >= t.{c}",
        "coalesce(excluded.{c} > t.{c}",
        (TABLES,),
    ),
    Rule(
        "an older version does not overwrite a newer one",
        f"{WAREHOUSE}/merge.py",
        "coalesce(excluded.{c} >= t.{c}",
        "coalesce(excluded.{c} >= t.{c} or true",
        ("tests/connectors/test_ingest_documents.py",),
    ),
    Rule(
        "the watermark moves in the transaction of the rows",
        "connectors/destinations/warehouse/commit.py",
        "        self._move_watermark(merge, watermark)\n",
        "",
        ("tests/connectors/test_ingest.py",),
    ),
    Rule(
        "the manifest is written when all objects are closed",
        LANDING,
        "        try:\n            self._close()\n        except (BaseError, OSError) as error:",
        "        try:\n            pass\n        except (BaseError, OSError) as error:",
        (OBJECTS,),
    ),
    Rule(
        "the manifest is written after the last row",
        "connectors/ingest.py",
        "                files = take_in(extraction, attempt, writer, self.log, self.watch)\n",
        "                writer.finish(columns=(), window=None, cursor_from=None, cursor_to=None)\n"
        "                files = take_in(extraction, attempt, writer, self.log, self.watch)\n",
        ("tests/connectors/test_rebuild.py",),
    ),
    Rule(
        "what was forgotten is known beside the landing before anything is erased",
        "connectors/forget/run.py",
        "            keep_list(owner, destination.landing, source.name, stream.name)\n            reach",
        "            reach",
        ("tests/connectors/backups/test_restore.py",),
    ),
    Rule(
        "a restore leaves no hole before what it takes over",
        "connectors/adopt.py",
        "        return both != highest_of(self.connection, name, [reached])\n",
        "        return False\n",
        ("tests/connectors/backups/test_restore.py",),
    ),
    Rule(
        "readers wait for the end of a restore",
        "connectors/backups/copying.py",
        '            connection.execute(f"revoke usage on schema serving from {_READERS}".encode())\n',
        "            pass\n",
        ("tests/connectors/backups/test_restore.py",),
    ),
    Rule(
        "the first manifest in a folder stays",
        DURABLE,
        "            os.link(temporary, path)\n",
        "            os.replace(temporary, path)\n",
        (OBJECTS,),
    ),
    Rule(
        "the first manifest in a bucket stays", LANDING, 'body, mode="create")', 'body, mode="overwrite")', (OBJECTS,)
    ),
    Rule("objects are flushed", LANDING, "            flush(path)\n            flush(path.parent)\n", "", (OBJECTS,)),
    Rule(
        "the folder of an object is flushed",
        LANDING,
        "            flush(path)\n            flush(path.parent)\n",
        "            flush(path)\n",
        (OBJECTS,),
    ),
    Rule("a manifest is flushed", DURABLE, "            os.fsync(file.fileno())\n", "", (OBJECTS,)),
    Rule(
        "a manifest is flushed whole",
        DURABLE,
        "            file.flush()\n            os.fsync(file.fileno())\n",
        "            os.fsync(file.fileno())\n",
        (OBJECTS,),
    ),
    Rule(
        "the folders of a manifest are flushed",
        DURABLE,
        "    for folder in path.parents:\n        flush(folder)\n",
        "    for folder in path.parents:\n",
        (OBJECTS,),
    ),
    Rule(
        "new folders above are flushed as well",
        DURABLE,
        "        if folder == root:\n            break\n",
        "        break\n",
        (OBJECTS,),
    ),
    Rule(
        "an API that asks to be left alone is",
        EXCHANGE,
        "            self._pace(url).hold(seconds)  # before",
        "            pass  # before",
        (f"{API}/rest/test_api_chaos.py",),
    ),
    Rule(
        "a wait for bytes ends at the deadline",
        "connectors/http/transport.py",
        "min(timeout or math.inf, _deadline.get() - time.monotonic())",
        "timeout or math.inf",
        (f"{API}/http/test_http.py",),
    ),
    Rule(
        "half a gzip stream is no body",
        "connectors/http/body.py",
        "        elif not member.eof and len(content) <= limit:\n",
        "        elif False:\n",
        (f"{API}/http/test_http_body.py",),
    ),
    Rule(
        "a body is decompressed within bounds",
        "connectors/http/body.py",
        "member.decompress(body, limit + 1)",
        "member.decompress(body)",
        (f"{API}/http/test_http_body.py",),
    ),
    Rule(
        "credentials go to the source's own origin alone",
        EXCHANGE,
        "        if origin_of(url) == self._origin:\n",
        "        if True:\n",
        (f"{API}/http/test_addresses.py",),
    ),
    Rule(
        "another origin is not gone to",
        EXCHANGE,
        "        if origin_of(url) not in self._origins:\n",
        "        if False:\n",
        (f"{API}/http/test_addresses.py",),
    ),
    Rule(
        "what is connected to is what was checked",
        "connectors/http/transport.py",
        "self._sockets.connect_tcp(address, port",
        "self._sockets.connect_tcp(host, port",
        (f"{API}/http/test_addresses.py",),
    ),
    Rule(
        "a token that another thread has renewed stays",
        "connectors/http/auth.py",
        "            if self._token is not None and _bearer(self._token.value) == refused:\n",
        "            if True:\n",
        (f"{API}/http/test_auth.py",),
    ),
    Rule(
        "errors are cleared of secrets",
        "connectors/http/client.py",
        "        error.what, error.remedy = mask(error.what), mask(error.remedy)\n",
        "        mask(error.what)\n",
        (f"{API}/http/test_auth.py", f"{API}/http/test_http.py"),
    ),
    Rule(
        "of an incident and channel one deliverer at a time sends alerts",
        f"{ALERTS}/outbox.py",
        "            for update of alert skip locked\n",
        "",
        (f"{API}/alerts/test_delivery.py",),
    ),
    Rule(
        "the newest alert that is due is sent, and those before it need not be",
        f"{ALERTS}/outbox.py",
        "order by created_at desc, alert_id desc limit 1",
        "order by created_at, alert_id limit 1",
        (f"{API}/alerts/test_delivery.py",),
    ),
    Rule(
        "a channel that failed is left alone for a while",
        f"{ALERTS}/deliver.py",
        "is_held=is_held,",
        "is_held=False,",
        (f"{API}/alerts/test_delivery.py",),
    ),
    Rule(
        "no alert is sent with a secret in it",
        f"{ALERTS}/deliver.py",
        "message=_masked(claim.outgoing.message, mask)",
        "message=claim.outgoing.message",
        (f"{API}/alerts/test_alert_canaries.py",),
    ),
    Rule(
        "texts in alerts are no markup of Slack's",
        f"{ALERTS}/slack.py",
        '"<": "&lt;", ',
        "",
        (f"{API}/alerts/test_messages.py",),
    ),
)


class Copy:
    """The code in a folder of its own."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self._server = server
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Python in the copy, with the copy's modules before those that are installed."""
        pytests_own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        url = self._server.url.render_as_string(hide_password=False)
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**pytests_own, "PYTHONPATH": str(self.folder), "HEADWATER_TEST_POSTGRES": url},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def suite(self, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        options = ("-p", "no:cacheprovider", "-m", "not chaos", "--maxfail=1", "-q")
        return self.run("-m", "pytest", *options, *tests)

    def without(self, rule: Rule) -> None:
        path = self.folder / rule.path
        code = path.read_text()
        assert code.count(rule.text) == 1, f"{rule.path} has changed: find the rule anew"
        path.write_text(code.replace(rule.text, rule.without))


@pytest.fixture
def copy(tmp_path: Path, postgres: Server) -> Copy:
    made = Copy(tmp_path / "copy", postgres)
    places = made.run(
        "-c", "import connectors, deployments, tests.conftest as t; print(connectors.__file__, t.__file__)"
    )
    assert places.stdout.split() == [
        str(made.folder / "connectors/__init__.py"),
        str(made.folder / "tests/conftest.py"),
    ], places.stderr
    return made


@pytest.mark.chaos
def test_the_copy_passes_as_it_is(copy: Copy) -> None:
    outcome = copy.suite(tuple(dict.fromkeys(test for rule in RULES for test in rule.tests)))
    assert outcome.returncode == 0, outcome.stdout
    assert " passed" in outcome.stdout


def rules() -> list[object]:
    in_the_short_form = "the folder of an object is flushed"
    return [
        pytest.param(rule, id=rule.name, marks=() if rule.name == in_the_short_form else pytest.mark.chaos)
        for rule in RULES
    ]


@pytest.mark.parametrize("rule", rules())
def test_the_suite_notices_when_a_rule_is_taken_away(copy: Copy, rule: Rule) -> None:
    copy.without(rule)
    outcome = copy.suite(rule.tests)
    assert outcome.returncode == 1, f"the suite passes without it, or did not run: {outcome.stdout}{outcome.stderr}"
    assert "\nFAILED " in outcome.stdout, "it is a test that notices, not an import that fails"
