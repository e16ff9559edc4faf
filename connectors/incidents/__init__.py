"""Incidents: one trouble from its first sign to its recovery, however many runs, models and tests show it.

A *sign* is one thing that one check sees now. A *scope* is what one run of a check has looked at: signs of the scope
that it does not see any more are gone. An *incident* is one trouble with all its signs, grouped by where it begins in
the lineage; it is open until its last sign is gone. docs/incidents.md has the rules.

`checks` says what is wrong now, from `ops` alone; `grouping` says which signs are one trouble; `observe` writes that
down in one transaction; `desk` is for people: list, show, snooze, close.
"""
