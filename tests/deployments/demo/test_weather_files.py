from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.demo import clock, dataset, weather_files


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    (tmp_path / "demo").mkdir()
    return weather_files.folder(tmp_path)


def test_every_day_that_has_ended_has_its_file(bucket: Path, tmp_path: Path) -> None:
    assert weather_files.deliver(tmp_path, clock.DEFAULT) == 364
    names = sorted(path.name for path in bucket.iterdir())
    assert len(names) == 364
    assert (names[0], names[-1]) == ("weather-2013-01-01.csv", "weather-2013-12-30.csv")


def test_the_files_together_hold_the_lines_of_the_data_set_untouched(bucket: Path, tmp_path: Path) -> None:
    weather_files.deliver(tmp_path, clock.DEFAULT)
    header, *lines = dataset.text("weather").splitlines(keepends=True)
    delivered = []
    for path in sorted(bucket.iterdir()):
        first, *rest = path.read_bytes().decode().splitlines(keepends=True)
        assert first == header
        assert {line.split(",")[1:4] == [str(int(part)) for part in path.stem.split("-")[1:]] for line in rest} == {
            True
        }
        delivered += rest
    assert sorted(delivered) == sorted(lines)
    first_day = [line for line in lines if line.split(",")[1:4] == ["2013", "1", "1"]]
    assert (bucket / "weather-2013-01-01.csv").read_text() == header + "".join(first_day)


def test_a_file_arrives_at_six_the_morning_after(bucket: Path, tmp_path: Path) -> None:
    six = datetime(2013, 3, 2, 6, tzinfo=UTC)
    weather_files.deliver(tmp_path, six - timedelta(seconds=1))
    assert not (bucket / "weather-2013-03-01.csv").exists()
    assert weather_files.deliver(tmp_path, six) == 1
    assert (bucket / "weather-2013-03-01.csv").exists()


def test_what_was_delivered_is_not_touched_again(bucket: Path, tmp_path: Path) -> None:
    now = datetime(2013, 1, 4, 12, tzinfo=UTC)
    assert weather_files.deliver(tmp_path, now) == 3
    before = {path.name: path.stat().st_mtime_ns for path in bucket.iterdir()}
    assert weather_files.deliver(tmp_path, now) == 0
    assert {path.name: path.stat().st_mtime_ns for path in bucket.iterdir()} == before
