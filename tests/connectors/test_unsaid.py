"""What a process was given as a secret is said nowhere: by no library's log, in no traceback, in no error."""

from __future__ import annotations

import io
import logging
import pickle
import sys
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.connections import Database, EnvironmentConnections, ObjectStore, Secret
from connectors.errors import ConfigurationError
from connectors.unsaid import SHORTEST, UNSAID, Unsaid

CANARY = "canary/of+a process=1"


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What the log of a library is, in a handler of its own with a format of its own."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(name)s|%(message)s"))
    logger = logging.getLogger("somebody.else")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield out
    logger.removeHandler(handler)


def test_whoever_hands_out_a_secret_has_it_kept_out_of_every_log(said: io.StringIO) -> None:
    log = logging.getLogger("somebody.else")
    environment = EnvironmentConnections(
        {
            "HEADWATER_KEY": CANARY,
            "HEADWATER_DB_URL": f"postgresql+psycopg://u:{quote('canary-pass-word', safe='')}@h/db",
            "HEADWATER_STORE_URL": "s3://bucket/x",
            "AWS_SECRET_ACCESS_KEY": "canary-of-the-bucket",
            "AWS_SESSION_TOKEN": "canary-of-the-session",
        }
    )
    environment.secret(Secret("key"))
    environment.database(Database("db"))
    environment.object_store(ObjectStore("store"))
    for secret in (CANARY, "canary-pass-word", "canary-of-the-bucket", "canary-of-the-session"):
        log.debug("100 %% of %s, or %r, or %s", secret, secret, quote(secret, safe=""))
        log.info(f"as one text: {secret} at 100 %")
        try:
            raise ValueError(secret) from KeyError(secret)
        except ValueError:
            log.exception("it failed", stack_info=True)
    assert "canary" not in said.getvalue()
    assert "as one text: *** at 100 %" in said.getvalue()
    assert "100 % of ***, or " in said.getvalue()
    assert said.getvalue().count("ValueError: ***") == 4
    log.info("what is no secret: %d %s", 7, "words")
    assert said.getvalue().endswith("what is no secret: 7 words\n")


def test_a_record_that_cannot_be_formatted_breaks_nobody(said: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    UNSAID.add(CANARY)
    log = logging.getLogger("somebody.else")
    log.propagate = False  # pytest's own handler would fail the test
    try:
        log.info("%d", f"no number: {CANARY}")
    finally:
        log.propagate = True
    told = capsys.readouterr().err
    assert "no number: ***" in told
    assert "canary" not in told


def test_an_error_of_ours_holds_no_secret_however_it_is_looked_at() -> None:
    UNSAID.add(CANARY)
    error = ConfigurationError(f"refused {CANARY}", remedy=f"try {CANARY}")
    for text in (str(error), repr(error), str(error.args), error.what, error.remedy, str(vars(error))):
        assert "canary" not in text
    assert CANARY.encode() not in pickle.dumps(error.args)


def test_what_others_raise_is_cleared_to_its_last_cause() -> None:
    UNSAID.add(CANARY)
    first, second = ValueError(f"first {CANARY}", 7), RuntimeError(f"second {CANARY}")
    second.__cause__ = first
    first.__context__ = second  # a circle ends
    UNSAID.clear(second)
    assert (first.args, second.args) == (("first ***", 7), ("second ***",))
    assert "canary" not in UNSAID.traceback(second)


def test_secrets_too_short_to_be_told_from_words_are_left_and_many_do_not_pile_up() -> None:
    mine = Unsaid()
    mine.add("a" * (SHORTEST - 1), None, "")
    assert mine("aaaaa and words") == "aaaaa and words"
    for number in range(1200):
        mine.add(f"token-number-{number:05}")
    assert mine("token-number-01199") == "***"
    assert sys.getsizeof(mine._secrets) < 200_000
    assert mine("token-number-00001") == "token-number-00001", "tokens of long ago are over"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=30), st.text(max_size=30), st.integers(1, 7)
)
def test_a_text_that_is_cut_inside_a_secret_keeps_no_telling_part(secret: str, before: str, kept: int) -> None:
    if len(set(secret)) < 6 or secret in before:
        return
    mine = Unsaid()
    mine.add(secret)
    beginning = secret[: len(secret) - kept]
    if len(beginning) >= 4:
        assert not mine(f"{before}|{beginning}").endswith(beginning)
