"""The routing file: what it may say, what it must, and who hears of what by it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from connectors.alerts.message import Severity
from connectors.alerts.routing import NOBODY, Quiet, Routing, parse_routing, read_routing, routing_file
from connectors.errors import ConfigurationError, UnknownNameError

SLACK = "channels: {slack: {kind: slack}}\n"
MAIL = "channels: {mail: {kind: email, host: h, sender: a@b.c, to: [a@b.c]%s}}\nroutes: [{channels: [mail]}]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "alerts.yaml is no YAML"),
        ("- slack", "Expected `object`, got `array`"),
        ("chanels: {}", "unknown field `chanels`"),
        ("channels: {slack: {kind: slak}}", "the channel `slack`: Invalid value 'slak'"),
        ("channels: {slack: {}}", "the channel `slack`: Object missing required field `kind`"),
        ("channels: {slack: {kind: slack, url: x}}", "the channel `slack`: Object contains unknown field `url`"),
        ("channels: {My-Slack: {kind: slack}}", "matching regex"),
        ("channels:\n  a: {kind: slack}\n  a: {kind: webhook}", "`a` is there twice"),
        (SLACK, "an error that nobody in particular owns would reach no channel"),
        (SLACK + "routes: [{channels: [slack], owner: x}]", "would reach no channel"),
        (SLACK + "routes: [{channels: [slack], severity: critical}]", "would reach no channel"),
        (SLACK + "routes: [{channels: [slak]}]", "route 1 leads to `slak`, which is no channel"),
        (SLACK + "routes: [{channels: [slack], severity: bad}]", "Invalid enum value 'bad'"),
        ("links: {page: status}", "`status` is no address to link to"),
        (MAIL % ", port: '25'", "the channel `mail`: Expected `int`, got `str`"),
        (MAIL % ", security: none, user: u", "the channel `mail`: The password of u would be sent to h in clear."),
        (MAIL.replace("sender: a@b.c", "sender: a") % "", "the channel `mail`: 'a' is not an email address"),
        (MAIL.replace("to: [a@b.c]", "to: []") % "", "the channel `mail`: The channel mail has no recipient"),
        (MAIL % ", quiet: {from: 22:00, to: '07:00', timezone: UTC}", "Times of day are put in quotes"),
        (MAIL % ", quiet: {from: '22', to: '7:00', timezone: UTC}", "`7:00` is no time of day"),
        (MAIL % ", quiet: {from: '22:00', to: '22:00', timezone: UTC}", "quiet hours begin when they end"),
        (MAIL % ", quiet: {from: '22:00', to: '07:00', timezone: Mars}", "`Mars` is no time zone"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        parse_routing(text, "alerts.yaml")
    assert "alerts.yaml" in str(caught.value)


def test_without_a_file_or_with_an_empty_one_nobody_hears_of_anything(tmp_path: Path) -> None:
    assert read_routing(tmp_path / "none.yaml") == NOBODY
    assert parse_routing("# nothing", "f") == NOBODY
    assert NOBODY.channels_for("x", "critical") == ()


def test_the_file_that_comes_with_headwater_configures_nothing_and_its_example_is_right() -> None:
    assert read_routing() == NOBODY
    text = routing_file().read_text()
    example = "\n".join(line.removeprefix("# ") for line in text.partition("#\n# channels:")[2].splitlines())
    routing = parse_routing("channels:" + example, "the example")
    assert routing.channels_for("flight-operations", "warning") == ("slack", "email")
    assert routing.channels_for(None, "critical") == ("slack", "email", "pager")
    asked = re.findall(r"HEADWATER_\w+", text)
    assert [secret.environment_variable for secret in routing.secrets] == asked


def test_another_file_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(SLACK + "routes: [{channels: [slack]}]")
    monkeypatch.setenv("HEADWATER_ALERTS_FILE", str(tmp_path / "mine.yaml"))
    assert list(read_routing().channels) == ["slack"]


def test_a_channel_of_no_such_name_cannot_be_asked_for() -> None:
    routing = parse_routing(SLACK + "routes: [{channels: [slack]}]", "f")
    with pytest.raises(UnknownNameError, match="`slak`.*`slack`"):
        routing.open(lambda _: "https://hooks.slack.com/x", "slak")


owners = st.sampled_from([None, "flights", "weather", "planes"])
severities = st.sampled_from(Severity)


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, unique=True))
    route = st.fixed_dictionaries(
        {"channels": st.lists(st.sampled_from(names), min_size=1), "severity": severities.map(str)},
        optional={"owner": owners.filter(bool)},
    )
    everyone = {"channels": [names[0]], "severity": draw(st.sampled_from(["warning", "error"]))}
    routes = draw(st.lists(route, max_size=5))
    routes.insert(draw(st.integers(0, len(routes))), everyone)
    return parse_routing(yaml.safe_dump({"channels": {n: {"kind": "slack"} for n in names}, "routes": routes}), "f")


@given(routings(), owners, severities)
def test_every_error_is_heard_by_someone_and_what_is_worse_by_no_fewer(
    routing: Routing, owner: str | None, severity: Severity
) -> None:
    heard = routing.channels_for(owner, severity)
    assert len(set(heard)) == len(heard)
    if severity is not Severity.WARNING:
        assert heard
    for worse in Severity:
        if worse.is_at_least(severity):
            assert set(heard) <= set(routing.channels_for(owner, worse))
    # An owner's routes come on top of those for all.
    assert set(routing.channels_for(None, severity)) <= set(heard)
    expected = {
        name
        for route in routing.routes
        if route.owner in (None, owner) and severity.is_at_least(route.severity)
        for name in route.channels
    }
    assert set(heard) == expected


clock = st.times().map(lambda at: at.replace(second=0, microsecond=0, tzinfo=None))


@given(
    clock, clock, st.timedeltas(timedelta(0), timedelta(days=1000)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]), severities,
)  # fmt: skip
def test_quiet_hours_hold_back_what_can_wait_until_they_end(
    start: time, end: time, after: timedelta, zone: str, severity: Severity
) -> None:
    quiet = Quiet(start=start.isoformat(), end=end.isoformat(), timezone=zone)
    now = datetime(2024, 1, 1, tzinfo=UTC) + after
    until = quiet.until(now, severity)
    local = now.astimezone(ZoneInfo(zone)).time()
    inside = start <= local < end if start < end else local >= start or local < end
    if severity is Severity.CRITICAL or start == end or not inside:
        assert until is None or start == end
        return
    assert until is not None
    assert until.astimezone(ZoneInfo(zone)).time() == end or _is_skipped(until, zone, end)
    # At most a day, and the hour by which a clock may be put back.
    assert timedelta(0) < until - now <= timedelta(hours=25) or _is_skipped(until, zone, end)


def _is_skipped(at: datetime, zone: str, end: time) -> bool:
    """Whether the end falls into the hour that there is not, or that there is twice, as clocks are changed."""
    midnight = datetime.combine(at.astimezone(ZoneInfo(zone)).date(), time(), ZoneInfo(zone))
    return midnight.utcoffset() != (midnight + timedelta(days=1)).utcoffset()
