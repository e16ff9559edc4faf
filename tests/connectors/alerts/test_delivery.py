"""The outbox: whatever happens to channels and deliverers, each message arrives, once, in order, and late rather than
never. Time is compressed by moving what is written down into the past."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest

from connectors.alerts.deliver import deliver
from connectors.alerts.message import Kind
from connectors.alerts.outbox import enqueue, undelivered
from connectors.alerts.routing import parse_routing
from connectors.alerts.webhook import WebhookChannel
from connectors.connections import EnvironmentConnections
from connectors.failpoints import ALERT_FAILPOINTS
from tests.connectors.alerts.catchers import Desk, mail_server
from tests.connectors.wire import Asked, Line, answer
from tests.victims import kill_at


def test_an_incident_is_told_once_when_it_opens_and_once_when_it_is_over(desk: Desk) -> None:
    incident = desk.open()
    assert desk.say(incident, Kind.OPENED) == 0
    assert desk.deliver().delivered == 2
    assert desk.deliver().delivered == 0
    desk.say(incident, Kind.CLOSED)
    desk.say(incident, Kind.CLOSED)
    assert str(desk.deliver()) == "2 sent"
    for channel in (desk.slack, desk.hook):
        assert [re.sub(r"after \d+ s", "after", said) for said in channel.subjects] == [
            "[error] flights_api.flights cannot be loaded.",
            "[recovered after] flights_api.flights cannot be loaded.",
        ]
    assert desk.warehouse.query("select distinct answer, attempts, last_error from ops.alerts") == [("200 ok", 1, None)]


def test_ten_minutes_of_500_delay_a_message_and_neither_lose_nor_double_it(desk: Desk) -> None:
    desk.slack.refuse(500, b"internal error")
    desk.open()
    assert desk.deliver().failures.keys() == {"slack"}
    for _ in range(10):
        desk.let_pass("1 minute")
        desk.deliver()
    # The longer it lasts, the less it is asked, not each time that someone delivers.
    assert 4 <= len(desk.slack.asked) <= 8
    assert len(desk.hook.taken) == 1
    desk.slack.accept()
    desk.let_pass("6 minutes")
    desk.deliver()
    desk.deliver()
    assert len(desk.slack.taken) == 1
    assert desk.state("slack", "failures, failing_since, retry_at, last_error") == (0, None, None, None)
    # It was away for less than the time after which the others hear of it.
    assert len(desk.hook.taken) == 1


def test_a_channel_that_asks_to_be_left_alone_is_left_alone_for_so_long(desk: Desk) -> None:
    desk.slack.refuse(429, b"rate_limited", Retry_After=120)
    first = desk.open()
    desk.open(title="Another.")
    desk.deliver()
    desk.let_pass("100 seconds")
    desk.deliver()
    assert len(desk.slack.asked) == 1
    desk.slack.accept()
    desk.let_pass("21 seconds")
    desk.deliver()
    assert desk.slack.subjects == ["[error] flights_api.flights cannot be loaded.", "[error] Another."]
    assert first


def test_a_wish_to_be_left_alone_for_a_year_is_heard_for_an_hour(desk: Desk) -> None:
    desk.slack.refuse(429, Retry_After=31_536_000)
    desk.open()
    desk.deliver()
    assert desk.state("slack", "retry_at - clock_timestamp() < interval '61 minutes'") == (True,)


def test_who_was_not_told_that_it_began_hears_once_that_it_was(desk: Desk) -> None:
    desk.slack.refuse(503)
    incident = desk.open()
    desk.deliver()
    desk.let_pass("130 minutes")
    desk.say(incident, Kind.REMINDER)
    desk.say(incident, Kind.CLOSED)
    desk.slack.accept()
    outcome = desk.deliver()
    assert [*desk.slack.subjects] == ["[was error, recovered after 2 h 10 min] flights_api.flights cannot be loaded."]
    text = str(desk.slack.taken[0]["blocks"])
    assert re.search(r"Was open:\* from [-\d]+ [:\d]+ UTC to [-\d]+ [:\d]+ UTC, for 2 h 10 min", text)
    assert "It loads again." in text
    assert outcome.superseded == 3  # opening and reminder on Slack, the reminder on the webhook
    assert len(desk.hook.taken) == 3 - 1
    assert desk.pending("slack") == 0


def test_reminders_that_were_not_delivered_give_way_to_newer_ones(desk: Desk) -> None:
    incident = desk.open()
    desk.deliver()
    desk.slack.refuse(500)
    for number in (1, 2, 3):
        desk.say(incident, Kind.REMINDER, number)
        desk.deliver()
        desk.let_pass("6 hours")
    desk.slack.accept()
    desk.deliver()
    assert [said.split("]")[0] for said in desk.slack.subjects] == ["[error", "[error, still after 12 h"]
    newest = desk.warehouse.query(
        "select number from ops.alerts where channel = 'slack' and kind = 'reminder' and delivered_at is not null"
    )
    assert newest == [(3,)]
    assert desk.warehouse.query(
        "select count(distinct superseded_by), count(*) from ops.alerts where number < 3"
        " and kind = 'reminder' and channel = 'slack'"
    ) == [(1, 2)]


def test_messages_of_an_incident_come_in_order_whoever_sends_them(desk: Desk) -> None:
    """While one deliverer sends the opening, slowly, another finds the closing: it waits."""
    begun, go_on = threading.Event(), threading.Event()
    taking = desk.slack.says

    def slowly(asked: Asked, line: Line) -> None:
        begun.set()
        go_on.wait(10)
        taking(asked, line)

    desk.slack.says = slowly
    incident = desk.open()
    first = threading.Thread(target=desk.deliver)
    first.start()
    assert begun.wait(10)
    desk.say(incident, Kind.CLOSED)
    desk.deliver(5)
    assert not desk.slack.taken
    assert desk.hook.subjects[0].startswith("[error]")
    go_on.set()
    first.join()
    desk.deliver()
    for channel in (desk.slack, desk.hook):
        assert [said.split()[0].strip("[]") for said in channel.subjects] == ["error", "recovered"]


def test_deliverers_at_once_send_each_message_once(desk: Desk) -> None:
    incidents = [desk.open(title=f"Trouble {number}.") for number in range(12)]
    for incident in incidents[:6]:
        desk.say(incident, Kind.REMINDER)
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(desk.deliver())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(outcome.delivered for outcome in outcomes) == 24
    for channel in (desk.slack, desk.hook):
        assert len(channel.taken) == 12
        titles = {re.sub(r"^\[.*?\] ", "", said) for said in channel.subjects}
        assert titles == {f"Trouble {number}." for number in range(12)}


@pytest.mark.parametrize("name", ALERT_FAILPOINTS)
def test_a_kill_costs_no_message_and_doubles_at_most_the_one_that_was_under_way(desk: Desk, name: str) -> None:
    desk.routing = parse_routing("channels: {hook: {kind: webhook}}\nroutes: [{channels: [hook]}]", "f")
    for number in range(3):
        desk.open(title=f"Trouble {number}.")
    channels = {"hook": WebhookChannel("hook", desk.hook.url)}
    kill_at(f"{name}:2", partial(deliver, desk.warehouse.url("watcher"), channels))
    # What the dead one may still be at is left to it; the rest is not.
    desk.deliver()
    assert desk.pending("hook") == 1
    desk.let_pass("31 seconds")
    desk.deliver()
    assert desk.pending("hook") == 0
    keys = Counter((asked.headers["idempotency-key"], asked.body) for asked in desk.hook.asked)
    assert sorted(keys.values()) == ([1, 1, 2] if name == "alert-sent" else [1, 1, 1])


def test_a_channel_that_hangs_holds_up_no_other_and_no_caller(desk: Desk) -> None:
    desk.slack.says = lambda _, line: time.sleep(20)
    for number in range(5):
        desk.open(title=f"Trouble {number}.")
    begun = time.monotonic()
    outcome = desk.deliver(3)
    assert time.monotonic() - begun < 4.5
    assert len(desk.hook.taken) == 5
    assert outcome.is_complete
    assert "did not take the message within 2 s" in outcome.failures["slack"]
    desk.slack.accept()
    desk.let_pass("31 seconds")
    desk.deliver()
    assert len(desk.slack.taken) == 5


def test_a_channel_that_cuts_the_line_gets_its_message_later(desk: Desk) -> None:
    desk.slack.says = lambda _, line: line.reset()
    desk.open()
    desk.deliver()
    desk.slack.says = lambda _, line: (line.send(answer(b"ok")[:10]), line.hang_up())[1]
    desk.let_pass("1 minute")
    desk.deliver()
    desk.slack.accept()
    desk.let_pass("5 minutes")
    desk.deliver()
    assert len(desk.slack.taken) == 1


def test_a_broken_channel_is_reported_on_the_others_at_once_and_when_it_is_back(desk: Desk) -> None:
    desk.slack.refuse(404, b"no_service")
    desk.open()
    desk.deliver()
    assert desk.hook.subjects == [
        "[error] flights_api.flights cannot be loaded.",
        "[error] The alert channel `slack` takes no messages.",
    ]
    report = desk.hook.taken[1]["incident"]
    assert "answered 404: no_service" in report["cause"]
    assert report["next_command"] == "headwater alerts test --channel slack"
    for _ in range(10):
        desk.let_pass("20 minutes")
        desk.deliver()
    assert len(desk.hook.taken) == 2
    assert len(desk.slack.asked) <= 7  # in three hours
    desk.slack.accept()
    desk.let_pass("80 minutes")
    desk.deliver()
    assert len(desk.slack.taken) == 1
    assert [said.split(" after")[0] for said in desk.hook.subjects[2:]] == ["[recovered"]
    assert "for 4 h 40 min" in desk.hook.taken[2]["text"]
    desk.deliver()
    assert len(desk.hook.taken) == 3


def test_a_channel_that_is_down_is_reported_on_the_others_after_a_quarter_of_an_hour(desk: Desk) -> None:
    desk.slack.refuse(500)
    desk.open()
    desk.deliver()
    desk.let_pass("14 minutes")
    desk.deliver()
    assert len(desk.hook.taken) == 1
    desk.let_pass("2 minutes")
    desk.deliver()
    desk.deliver()
    assert desk.hook.subjects[1:] == ["[error] The alert channel `slack` takes no messages."]


def test_a_message_that_is_refused_does_not_hold_up_the_others(desk: Desk) -> None:
    taking = desk.slack.says

    def picky(asked: Asked, line: Line) -> None:
        if b"poison" in asked.body:
            line.send(answer(b"invalid_blocks", 400))
        else:
            taking(asked, line)

    desk.slack.says = picky
    desk.open(title="This is poison.")
    desk.open(title="This is not.")
    outcome = desk.deliver()
    assert desk.slack.subjects == ["[error] This is not."]
    assert outcome.failures == {}  # the last message passed
    with desk.connect() as connection:
        (waiting,) = undelivered(connection)
    assert (waiting.channel, waiting.attempts) == ("slack", 1)
    assert "answered 400: invalid_blocks" in (waiting.last_error or "")


def test_what_nobody_took_for_three_days_is_given_up_and_stays_to_be_seen(desk: Desk) -> None:
    desk.routing = parse_routing("channels: {slack: {kind: slack}}\nroutes: [{channels: [slack]}]", "f")
    desk.slack.refuse(500)
    incident = desk.open()
    desk.deliver()
    desk.let_pass("2 days 23 hours")
    desk.deliver()
    assert desk.pending("slack") == 1
    desk.let_pass("2 hours")
    assert desk.deliver().given_up == 1
    with desk.connect() as connection:
        given_up = [each for each in undelivered(connection) if each.given_up_at]
    assert [(each.incident_id, each.channel) for each in given_up] == [(incident, "slack")]
    # What comes later is tried all the same, and is the first that this channel hears.
    desk.say(incident, Kind.CLOSED)
    desk.slack.accept()
    desk.let_pass("10 minutes")
    desk.deliver()
    assert [said.split(",")[0] for said in desk.slack.subjects] == ["[was error"]


def test_after_days_without_any_deliverer_messages_are_sent_not_given_up(desk: Desk) -> None:
    desk.open()
    desk.let_pass("10 days")
    assert desk.deliver().delivered == 2


def test_messages_for_a_channel_that_is_configured_no_more_are_given_up(desk: Desk) -> None:
    incident = desk.incident()
    with desk.connect() as connection:
        enqueue(connection, incident_id=incident, kind="opened", number=1, subject="s", body={}, channels=["gone"])
    desk.deliver()
    assert desk.pending("gone") == 1
    desk.let_pass("3 days 1 hour")
    assert desk.deliver().given_up == 1


def test_a_message_that_another_version_has_written_is_told_by_its_subject(desk: Desk) -> None:
    desk.open()
    desk.warehouse.execute("""update ops.alerts set body = '{"version": 2, "kind": "shouted"}'""")
    assert desk.deliver().delivered == 2
    assert desk.hook.subjects == ["[error] [error] flights_api.flights cannot be loaded."]


def test_without_channels_there_is_nothing_to_do(desk: Desk) -> None:
    desk.open()
    desk.let_pass("1 day")
    assert str(deliver(desk.warehouse.url("watcher"), {})) == "0 sent"
    assert desk.pending("slack") == 1


def test_a_channel_without_its_secret_is_broken_and_the_others_work(desk: Desk) -> None:
    routing = parse_routing("channels: {a: {kind: slack}, hook: {kind: webhook}}\nroutes: [{channels: [a, hook]}]", "f")
    desk.routing = routing
    desk.open()
    channels = routing.open(EnvironmentConnections({"HEADWATER_ALERTS_HOOK_URL": desk.hook.url}).secret)
    outcome = deliver(desk.warehouse.url("watcher"), channels)
    assert "Set HEADWATER_ALERTS_A_URL" in outcome.failures["a"]
    assert desk.hook.subjects[1:] == ["[error] The alert channel `a` takes no messages."]


def test_quiet_hours_hold_back_what_can_wait_and_end_in_one_message(desk: Desk) -> None:
    now = desk.warehouse.query("select clock_timestamp()")[0][0]
    begin, end = f"{now.hour:02}:00", f"{(now.hour + 2) % 24:02}:00"
    desk.routing = parse_routing(
        f"""
        channels:
          slack: {{kind: slack, quiet: {{from: "{begin}", to: "{end}", timezone: UTC}}}}
          hook: {{kind: webhook}}
        routes: [{{channels: [slack, hook]}}]
        """,
        "f",
    )
    incident = desk.open()
    other = desk.open(title="Fire.", severity="critical")
    desk.deliver()
    assert desk.slack.subjects == ["[critical] Fire."]
    assert len(desk.hook.taken) == 2
    desk.say(incident, Kind.CLOSED)
    desk.deliver()
    assert len(desk.slack.taken) == 1
    desk.let_pass("121 minutes")
    desk.deliver()
    assert [said.split(",")[0] for said in desk.slack.subjects[1:]] == ["[was error"]
    assert other


def test_an_incident_that_becomes_worse_at_night_is_told_at_once(desk: Desk) -> None:
    now = desk.warehouse.query("select clock_timestamp()")[0][0]
    begin, end = f"{now.hour:02}:00", f"{(now.hour + 2) % 24:02}:00"
    quiet = f'{{from: "{begin}", to: "{end}", timezone: UTC}}'
    desk.routing = parse_routing(
        f"channels: {{slack: {{kind: slack, quiet: {quiet}}}}}\nroutes: [{{channels: [slack]}}]", "f"
    )
    incident = desk.open()
    desk.deliver()
    assert not desk.slack.asked
    desk.warehouse.execute("update ops.incidents set severity = 'critical'")
    desk.say(incident, Kind.WORSE)
    desk.deliver()
    assert desk.slack.subjects == ["[critical, worse] flights_api.flights cannot be loaded."]
    assert desk.pending("slack") == 0


def test_a_thread_of_mail_begins_with_what_was_delivered_first(desk: Desk) -> None:
    with mail_server() as server:
        desk.routing = parse_routing(
            f"""
            channels:
              mail: {{kind: email, host: 127.0.0.1, port: {server.port}, security: none,
                      sender: h@example.com, to: [team@example.com]}}
            routes: [{{channels: [mail]}}]
            """,
            "f",
        )
        incident = desk.open()
        desk.deliver()
        desk.say(incident, Kind.REMINDER)
        desk.deliver()
        desk.say(incident, Kind.CLOSED)
        desk.deliver()
    opening, reminder, closing = server.mails
    (number,) = desk.warehouse.query("select alert_id from ops.alerts where kind = 'opened'")[0]
    assert opening["Message-ID"] == f"<{number}@example.com>"
    assert opening["In-Reply-To"] is None
    assert reminder["In-Reply-To"] == closing["In-Reply-To"] == closing["References"] == opening["Message-ID"]
    assert len({mail["Message-ID"] for mail in server.mails}) == 3


def test_a_recovery_that_may_be_taken_back_is_not_told_before_its_time(desk: Desk) -> None:
    """The opening goes out alone meanwhile, although the closing is newer."""
    incident = desk.incident()
    now = desk.warehouse.query("select clock_timestamp()")[0][0]
    desk.say(incident, Kind.OPENED)
    desk.say(incident, Kind.CLOSED, due_at=now + timedelta(minutes=5))
    desk.deliver()
    desk.deliver()
    assert desk.slack.subjects == ["[error] flights_api.flights cannot be loaded."]
    desk.let_pass("5 minutes")
    desk.deliver()
    assert [said.split()[0] for said in desk.slack.subjects] == ["[error]", "[recovered"]
