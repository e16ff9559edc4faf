from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from deployments.local import layout
from deployments.local.errors import LocalStackError


def test_the_state_folder_is_at_the_project_root_unless_a_variable_says_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEADWATER_HOME", raising=False)
    assert layout.default_home() == layout.PROJECT_ROOT / ".headwater"
    assert (layout.PROJECT_ROOT / "pyproject.toml").exists()
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path))
    assert layout.default_home() == tmp_path


def test_a_new_state_folder_is_private_and_unseen_by_git(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    layout.prepare(home)
    layout.prepare(home)
    # Root's PostgreSQL passes through as another user; nobody else can list it.
    assert stat.S_IMODE(home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    assert stat.S_IMODE((home / "landing").stat().st_mode) == 0o700
    assert (home / ".gitignore").read_text() == "*\n"


def test_a_folder_that_was_there_keeps_its_permissions_and_everything_else_in_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    (tmp_path / "thesis.txt").write_text("mine")
    layout.prepare(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
    assert not (tmp_path / ".gitignore").exists()
    layout.remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_removing_leaves_no_trace_of_a_folder_of_our_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    layout.prepare(home)
    (home / "watcher.json").write_text("{}")  # of troubles that a new stack does not have
    layout.remove(home)
    assert not home.exists()


def test_a_state_folder_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LocalStackError, match="HEADWATER_HOME"):
        layout.prepare(tmp_path / "file" / "home")
