"""`headwater spark` where Spark cannot run: it says what is missing before it does anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments import cli
from deployments.local.errors import LocalStackError


def test_without_its_environment_it_names_the_target_that_makes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("deployments.commands.spark._PYTHON", tmp_path / "bin/python")
    done = CliRunner().invoke(cli.app, ["spark", "build"])
    assert isinstance(done.exception, LocalStackError)
    assert "`make spark`" in str(done.exception)


def test_without_java_it_names_a_version_that_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("deployments.commands.spark._PYTHON", Path(sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    done = CliRunner().invoke(cli.app, ["spark", "build"])
    assert isinstance(done.exception, LocalStackError)
    assert "There is no Java" in str(done.exception)
    assert "Java 17" in str(done.exception)
