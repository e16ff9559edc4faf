"""Which signs are one trouble: for any graph and any story of signs that come and go."""

from __future__ import annotations

import functools
import operator
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.incidents.grouping import Grouping, Trouble, roots_of
from connectors.incidents.lineage import Lineage, Node
from connectors.incidents.observe import observe
from connectors.incidents.rules import Rules
from connectors.incidents.signs import Severity, Sign
from tests.conftest import Warehouse
from tests.connectors.incidents.watching import draw, events, outbox, sign

_SCOPES = ("loads", "builds")

Graph = dict[str, frozenset[str]]


@st.composite
def graphs(draws: st.DrawFn) -> Graph:
    """Parents by node; those before a node, so that there is no circle. Half of the nodes have none."""
    size = draws(st.integers(4, 9))
    names = [f"model.p.n{number}" for number in range(size)]
    return {
        name: frozenset(draws(st.sets(st.sampled_from(names[:number]), min_size=1, max_size=3)))
        if number >= size // 2
        else frozenset()
        for number, name in enumerate(names)
    }


@st.composite
def stories(draws: st.DrawFn) -> tuple[Graph, list[tuple[str, list[Sign]]]]:
    """A graph, and what was seen one after the other: a scope, and all signs of it. A key has one scope and node."""
    graph = draws(graphs())
    places = [*graph, draws(st.sampled_from(sorted(graph))), None, None]
    runs = st.sampled_from([None, None, None, "run 1", "run 2"])
    steps = []
    for _ in range(draws(st.integers(4, 9))):
        scope = draws(st.sampled_from(_SCOPES))
        chosen = draws(st.lists(st.integers(0, len(places) - 1), unique=True, max_size=5))
        seen = [
            sign(f"{scope} {number}", places[number], draws(st.sampled_from(Severity)), run_id=draws(runs))
            for number in chosen
        ]
        steps.append((scope, seen))
    return graph, steps


def lineage_of(graph: Graph) -> Lineage:
    return Lineage({name: Node("model", name) for name in graph}, graph)


def reached(lineage: Lineage, start: str, among: set[str]) -> set[str]:
    """What is upstream or downstream of a node, and of what is, and so on."""
    found = {start}
    while new := {
        each
        for each in among - found
        if any(lineage.is_above(each, one) or lineage.is_above(one, each) for one in found)
    }:
        found |= new
    return found


def check_groups(lineage: Lineage, groups: dict[int, list[Sign]], ever_seen: set[str]) -> None:
    """What holds at any time of the open incidents and their signs."""
    nodes = {number: {each.node for each in signs if each.node} for number, signs in groups.items()}
    roots = roots_of(lineage, set().union(*nodes.values()))
    runs = {number: {each.run_id for each in signs if each.run_id} for number, signs in groups.items()}
    for one, other in combinations(groups, 2):
        # What a run has met, and nothing in the lineage explains, is one trouble.
        assert (nodes[one] and nodes[other]) or not runs[one] & runs[other]
        # No trouble has another one upstream that would explain it, or the same node.
        for upper in roots & nodes[one]:
            for lower in roots & nodes[other]:
                assert not lineage.is_above(upper, lower)
                assert not lineage.is_above(lower, upper)
    for number in groups:
        for node in nodes[number]:
            assert any(lineage.is_above(root, node) for root in roots & nodes[number])
        # Several roots are one trouble only if what has been seen leads from one to the other.
        for one, other in combinations(sorted(roots & nodes[number]), 2):
            assert other in reached(lineage, one, ever_seen)


@given(graphs(), st.data())
@settings(max_examples=80)
def test_signs_that_are_seen_at_once_are_as_many_troubles_as_they_have_roots(graph: Graph, data: st.DataObject) -> None:
    lineage = lineage_of(graph)
    nodes = data.draw(st.lists(st.sampled_from(sorted(graph)), min_size=1))
    signs = [sign(f"sign {number}", node) for number, node in enumerate(nodes)]
    grouping = Grouping(lineage, [])
    grouping.add(data.draw(st.permutations(signs)))
    troubles = [each for each in grouping.troubles if each.signs]
    assert len(troubles) == len(roots_of(lineage, nodes))
    assert sorted(key for each in troubles for key in each.signs) == sorted(each.key for each in signs)
    for each in troubles:
        assert all(lineage.is_above(str(grouping.lead(each).node), str(one.node)) for one in each.signs.values())


@given(stories())
@settings(max_examples=120)
def test_at_any_time_each_trouble_has_a_root_of_its_own(story: tuple[Graph, list[tuple[str, list[Sign]]]]) -> None:
    graph, steps = story
    lineage = lineage_of(graph)
    troubles: list[Trouble] = []
    seen: set[str] = set()
    for scope, signs in steps:
        present = {each.key: each for each in signs}
        for trouble in troubles:
            trouble.signs = {
                key: present.get(key, each)
                for key, each in trouble.signs.items()
                if key in present or not key.startswith(scope)
            }
        known = {key for each in troubles for key in each.signs}
        grouping = Grouping(lineage, troubles)
        grouping.add(each for key, each in present.items() if key not in known)
        troubles = [each for each in grouping.troubles if each.signs]
        seen |= {each.node for each in signs if each.node}
        groups = {each.age: list(each.signs.values()) for each in troubles}
        check_groups(lineage, groups, seen)
        keys = [each.key for each in functools.reduce(operator.iadd, groups.values(), [])]
        assert len(keys) == len(set(keys))


@given(stories())
@settings(max_examples=12)
def test_whatever_comes_and_goes_the_incidents_and_their_stories_say_it(
    module_warehouse: Warehouse, story: tuple[Graph, list[tuple[str, list[Sign]]]]
) -> None:
    tell(module_warehouse, *story)


@pytest.mark.chaos
@given(stories())
@settings(max_examples=400)
def test_hundreds_of_stories_are_told_right(
    module_warehouse: Warehouse, story: tuple[Graph, list[tuple[str, list[Sign]]]]
) -> None:
    tell(module_warehouse, *story)


def tell(warehouse: Warehouse, graph: Graph, steps: list[tuple[str, list[Sign]]]) -> None:
    """Observe a story step by step, and hold what is in the warehouse against it."""
    for table in ("alerts", "signs", "incident_events", "incidents"):
        warehouse.execute(f"delete from ops.{table}")
    draw(
        warehouse, {key: {} for key in graph}, [(parent, name) for name, parents in graph.items() for parent in parents]
    )
    with warehouse.connect("watcher") as connection:
        lineage = Lineage.read(connection)
    truth: dict[str, dict[str, Sign]] = {}
    seen: set[str] = set()
    for scope, signs in steps:
        observe(warehouse.url("watcher"), scope, signs, rules=Rules(), announce=outbox)
        truth[scope] = {each.key: each for each in signs}
        seen |= {each.node for each in signs if each.node}
        rows = warehouse.query(
            "select key, incident_id, closed_at from ops.signs join ops.incidents using (incident_id)"
        )
        present = {key: each for found in truth.values() for key, each in found.items()}
        assert {key for key, *_ in rows} == present.keys()
        assert not [key for key, _, closed_at in rows if closed_at is not None]
        groups: dict[int, list[Sign]] = {}
        for key, incident_id, _ in rows:
            groups.setdefault(incident_id, []).append(present[key])
        is_open = {
            number for (number,) in warehouse.query("select incident_id from ops.incidents where closed_at is null")
        }
        assert is_open == groups.keys()
        check_groups(lineage, groups, seen)
    for (number,) in warehouse.query("select incident_id from ops.incidents"):
        told = events(warehouse, number)
        turns = [each for each in told if each in ("opened", "closed", "reopened")]
        assert turns == ["opened", *["closed", "reopened"] * told.count("reopened"), "closed"][: len(turns)]
        assert (turns[-1] == "closed") == (number not in is_open)
        assert told[0] == "opened"
    told_of = "select array_agg(incident_id order by incident_id) from"
    assert warehouse.query(f"{told_of} ops.alerts where kind = 'opened'") == warehouse.query(f"{told_of} ops.incidents")
