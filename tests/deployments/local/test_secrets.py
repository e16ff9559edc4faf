from __future__ import annotations

import stat
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.local.errors import LocalStackError
from deployments.local.secrets import Secrets


def test_a_secret_is_made_once_and_kept_where_only_its_owner_reads(home: Path) -> None:
    first = Secrets(home).password("warehouse")
    assert Secrets(home).password("warehouse") == first
    assert Secrets(home).password("other") != first
    assert stat.S_IMODE((home / "secrets.json").stat().st_mode) == 0o600


def test_a_secret_needs_no_escaping_in_a_url_or_a_shell(home: Path) -> None:
    password = Secrets(home).password("warehouse")
    assert len(password) == 32
    assert set(password) <= set(string.ascii_letters + string.digits + "-_")


def test_all_who_ask_at_once_get_the_same_secret(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Secrets(home).password("warehouse"), range(32)))
    assert len(set(made)) == 1


def test_variables_are_replaced_as_a_whole_and_passwords_stay(home: Path) -> None:
    secrets = Secrets(home)
    password = secrets.password("warehouse")
    secrets.set_variables({"A": "1", "B": "2"})
    secrets.set_variables({"B": "3"})
    assert Secrets(home).variables() == {"B": "3"}
    assert Secrets(home).password("warehouse") == password


def test_a_damaged_file_is_named_and_not_overwritten(home: Path) -> None:
    (home / "secrets.json").write_text('{"passwords": 3}')
    with pytest.raises(LocalStackError, match=r"secrets\.json"):
        Secrets(home).password("warehouse")
    assert (home / "secrets.json").read_text() == '{"passwords": 3}'
