"""Observing: what checks see now becomes incidents, in one transaction, in turns.

Safe to repeat: signs that were seen before change nothing but when they were last seen. An observation that is killed
has left no trace, and the next one does its work. What is to be told is handed over within the transaction, so that a
message is due exactly if its incident says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.incidents.grouping import Grouping, Trouble, roots_of
from connectors.incidents.journal import Journal
from connectors.incidents.lineage import Lineage
from connectors.incidents.record import Announce
from connectors.incidents.rules import Rules
from connectors.incidents.signs import Severity, Sign

_LOCK = "select pg_advisory_xact_lock(hashtextextended('headwater.incidents', 0))"
WAIT_SECONDS = 10.0
"""How long an observation waits for another one, and how long each of its statements may take."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run of a check has seen."""

    signs: tuple[Sign, ...] = ()
    undecided: frozenset[str] = frozenset()
    """Keys of what cannot be told yet, as a rerun is under way: a sign that is there stays."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What an observation has changed: the numbers of incidents."""

    opened: tuple[int, ...] = ()
    worse: tuple[int, ...] = ()
    reopened: tuple[int, ...] = ()
    closed: tuple[int, ...] = ()
    reminded: tuple[int, ...] = ()
    open: tuple[int, ...] = ()
    """All that are open now."""
    problems: tuple[str, ...] = ()
    """Checks that could not be made: what they would have seen is as it was."""


def observe(
    warehouse: URL,
    scope: str,
    signs: Iterable[Sign],
    *,
    run_id: str | None = None,
    rules: Rules | None = None,
    announce: Announce | None = None,
) -> Observed:
    """Write down what a check has seen.

    Args:
        warehouse: as the role `headwater_watcher`.
        scope: what the check has looked at; signs of this scope that are not among `signs` are gone.
        signs: all that it sees; of the same key the last one counts.
        run_id: who looks, for the story of the incidents.
        announce: writes the messages that are due; None: none are written, and those that were due are not due later.

    Raises:
        DestinationUnavailableError: the warehouse does not answer, or gave no turn in time.
    """
    with observation(warehouse) as connection:
        return record(
            connection,
            Lineage.read(connection),
            {scope: Seen(tuple(signs))},
            rules=rules or Rules.of(),
            announce=announce,
            run_id=run_id,
        )


@contextmanager
def observation(warehouse: URL, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[psycopg.Connection]:
    """A transaction in which nobody else changes incidents. What is read in it is newer than what others have written.

    Raises:
        DestinationUnavailableError: the warehouse does not answer, or gave no turn in time.
    """
    with translated_errors(), connect(warehouse, "incidents") as connection:
        most = f"{wait_seconds * 1000:.0f}ms"
        connection.execute("select set_config('lock_timeout', %s, true)", [most])
        connection.execute(_LOCK)
        connection.execute("select set_config('statement_timeout', %s, true)", [most])
        yield connection


def record(
    connection: psycopg.Connection,
    lineage: Lineage,
    seen: Mapping[str, Seen],
    *,
    rules: Rules,
    announce: Announce | None,
    run_id: str | None,
) -> Observed:
    """Write down what was seen, by scope, within an observation."""
    work = _Record(connection, lineage, rules, Journal(connection, announce, run_id))
    return work.run(seen)


@dataclass(slots=True)
class _Record:
    connection: psycopg.Connection
    lineage: Lineage
    rules: Rules
    journal: Journal
    scopes: dict[str, str] = field(default_factory=dict)
    """The scope of each sign, by key."""
    homes: dict[str, int] = field(default_factory=dict)
    """The incident of each sign, as it was before."""
    severities: dict[int, Severity] = field(default_factory=dict)
    """Of the incidents that were open before, and of those that are opened again."""
    returned: dict[str, Trouble] = field(default_factory=dict)
    """Those that are opened again, by the keys of all signs that they have had."""

    def run(self, seen: Mapping[str, Seen]) -> Observed:
        troubles = self._open()
        present = {sign.key: sign for each in seen.values() for sign in each.signs}
        self.scopes |= {sign.key: scope for scope, each in seen.items() for sign in each.signs}
        undecided = frozenset[str]().union(*(each.undecided for each in seen.values()))
        gone = self._take_out(troubles, seen.keys(), present.keys() | undecided)
        for trouble in troubles:
            trouble.signs |= {key: present[key] for key in trouble.signs.keys() & present.keys()}
        grouping = Grouping(self.lineage, troubles, self._returning)
        grouping.add(sign for key, sign in present.items() if key not in self.homes)
        # Opened first: those that closed as a part of one can name it.
        for trouble in grouping.troubles:
            if trouble.incident_id is None and trouble.signs:
                self._begin(trouble, grouping.lead(trouble))
        for trouble in grouping.troubles:
            if trouble.incident_id is not None:
                self._write(trouble, grouping, gone.get(trouble.incident_id, []), present)
        self._forget(sign.key for signs in gone.values() for sign in signs)
        for trouble in grouping.troubles:
            if trouble.incident_id is not None and not trouble.signs:
                self._close(trouble)
        self.journal.remind(self.rules.remind_after)
        self.journal.hand_over()
        return Observed(
            opened=tuple(self.journal.opened),
            worse=tuple(self.journal.worse),
            reopened=tuple(self.journal.reopened),
            closed=tuple(self.journal.closed),
            reminded=tuple(self.journal.reminded),
            open=tuple(each.incident_id for each in grouping.troubles if each.signs and each.incident_id is not None),
        )

    def _open(self) -> list[Trouble]:
        troubles: dict[int, Trouble] = {}
        for incident_id, severity in self.connection.execute(
            "select incident_id, severity from ops.incidents where closed_at is null order by incident_id"
        ):
            troubles[incident_id] = Trouble(incident_id, incident_id)
            self.severities[incident_id] = Severity(severity)
        for incident_id, scope, *facts in self.connection.execute(
            "select incident_id, scope, key, kind, severity, title, cause, next_command, node, run_id, owner"
            " from ops.signs order by first_seen_at, key"
        ):
            sign = Sign(*facts)
            troubles[incident_id].signs[sign.key] = sign
            self.scopes[sign.key] = scope
            self.homes[sign.key] = incident_id
        return list(troubles.values())

    def _take_out(
        self, troubles: list[Trouble], scopes: Iterable[str], kept: Iterable[str]
    ) -> dict[int | None, list[Sign]]:
        """Those signs of some scopes that are not seen any more, by incident."""
        looked_at, kept = set(scopes), set(kept)
        gone: dict[int | None, list[Sign]] = {}
        for trouble in troubles:
            roots = roots_of(self.lineage, trouble.nodes())
            lost = [sign for key, sign in trouble.signs.items() if self.scopes[key] in looked_at and key not in kept]
            for sign in lost:
                del trouble.signs[sign.key]
            if lost:
                gone[trouble.incident_id] = lost
                trouble.has_lost_root = any(sign.node in roots for sign in lost)
        return gone

    def _returning(self, sign: Sign) -> Trouble | None:
        """The incident that recovered just now, and had this sign."""
        if sign.key in self.returned:
            return self.returned[sign.key]
        row = self.connection.execute(
            "select incident_id, severity, keys from ops.incidents where closed_as = 'recovered' and %s = any(keys)"
            " and closed_at > clock_timestamp() - %s::interval order by closed_at desc limit 1",
            [sign.key, self.rules.settle],
        ).fetchone()
        if row is None:
            return None
        incident_id, severity, keys = row
        self.severities[incident_id] = Severity(severity)
        self.journal.reopen(incident_id, sign)
        self.homes[sign.key] = incident_id
        trouble = Trouble(incident_id, incident_id)
        self.returned |= dict.fromkeys(keys, trouble)
        return trouble

    def _begin(self, trouble: Trouble, lead: Sign) -> None:
        row = self.connection.execute(
            "insert into ops.incidents (severity, title, cause, next_command, times_seen)"
            " values (%s, %s, %s, %s, 0) returning incident_id",
            [lead.severity, lead.title, lead.cause, lead.next_command],
        ).fetchone()
        assert row is not None  # noqa: S101 - an insert of one row returns one
        trouble.incident_id = row[0]
        self.homes[lead.key] = row[0]
        self.journal.open(row[0], lead)

    def _write(self, trouble: Trouble, grouping: Grouping, gone: list[Sign], present: Mapping[str, Sign]) -> None:
        """Bring an incident's rows up to date, and tell what happened to it in its order."""
        assert trouble.incident_id is not None  # noqa: S101 - begun before
        for sign in gone:
            self.journal.note(trouble.incident_id, "sign gone", sign.title, sign.run_id)
        if not trouble.signs:
            return
        lead = grouping.lead(trouble)
        for sign in sorted(trouble.signs.values(), key=lambda each: each is not lead):
            before = self.homes.get(sign.key)
            if before != trouble.incident_id:
                of = f" (of #{before})" if before is not None else ""
                begins = " It begins here." if sign is lead else ""
                self.journal.note(trouble.incident_id, "sign", f"{sign.title}{of}{begins}", sign.run_id)
                if before is not None:
                    self.journal.note(before, "sign gone", f"{sign.title} (now of #{trouble.incident_id})", sign.run_id)
        self._write_signs(trouble, present)
        self._describe(trouble, lead, is_seen=bool(trouble.signs.keys() & present.keys()))

    def _write_signs(self, trouble: Trouble, present: Mapping[str, Sign]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(
                """
                insert into ops.signs
                    (key, scope, kind, incident_id, severity, title, cause, next_command, node, run_id, owner)
                values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                on conflict (key) do update set
                    scope = excluded.scope, kind = excluded.kind, incident_id = excluded.incident_id,
                    severity = excluded.severity, title = excluded.title, cause = excluded.cause,
                    next_command = excluded.next_command, node = excluded.node, run_id = excluded.run_id,
                    owner = excluded.owner, last_seen_at = clock_timestamp()
                """,
                [
                    [
                        sign.key, self.scopes[sign.key], sign.kind, trouble.incident_id, sign.severity, sign.title,
                        sign.cause, sign.next_command, sign.node, sign.run_id, sign.owner,
                    ]
                    for sign in trouble.signs.values()
                    if sign.key in present
                ],
            )  # fmt: skip
        self.connection.execute(
            "update ops.signs set incident_id = %(incident)s where key = any(%(keys)s) and incident_id <> %(incident)s",
            {"incident": trouble.incident_id, "keys": list(trouble.signs)},
        )

    def _describe(self, trouble: Trouble, lead: Sign, *, is_seen: bool) -> None:
        assert trouble.incident_id is not None  # noqa: S101 - begun before
        severity = max((each.severity for each in trouble.signs.values()), key=lambda each: each.rank)
        before = self.severities.get(trouble.incident_id)
        is_worse = before is not None and severity.rank > before.rank
        if before is not None and not is_worse:
            severity = before
        root = lead.node
        self.connection.execute(
            """
            update ops.incidents set
                severity = %(severity)s, title = %(title)s, cause = %(cause)s, next_command = %(command)s,
                owner = %(owner)s, root = %(root)s, affected_marts = %(marts)s, affected_dashboards = %(dashboards)s,
                keys = array(select distinct key from unnest(keys || %(keys)s::text[]) key order by key),
                last_seen_at = case when %(seen)s then clock_timestamp() else last_seen_at end,
                times_seen = times_seen + %(seen)s::integer
            where incident_id = %(incident)s
            """,
            {
                "incident": trouble.incident_id,
                "severity": severity,
                "title": lead.title,
                "cause": lead.cause,
                "command": lead.next_command,
                "owner": (self.lineage.owner(root) if root else None) or lead.owner or self.rules.owner,
                "root": root,
                "marts": self.lineage.marts(root) if root else [],
                "dashboards": self.lineage.dashboards(root) if root else [],
                "keys": list(trouble.signs),
                "seen": is_seen,
            },
        )
        if is_worse:
            self.journal.worsen(trouble.incident_id, f"{before} before, {severity} now: {lead.title}", lead.run_id)

    def _forget(self, keys: Iterable[str]) -> None:
        self.connection.execute("delete from ops.signs where key = any(%s)", [list(keys)])

    def _close(self, trouble: Trouble) -> None:
        assert trouble.incident_id is not None  # noqa: S101 - it was open
        target = trouble.went_to
        while target is not None and not target.signs and target.went_to is not None:
            target = target.went_to
        if target is None or target.incident_id is None or trouble.has_lost_root:
            self.journal.recover(trouble.incident_id, self.rules.settle)
        else:
            self.journal.join(trouble.incident_id, target.incident_id)
