"""The demo's weather service, after three weeks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from deployments.demo import weather_files
from tests.conftest import Server
from tests.sources.stand_in import NOBODY, StandIn

_VARIABLE = "HEADWATER_WEATHER_FILES_URL"


@contextmanager
def stand_in(server: Server, folder: Path) -> Iterator[StandIn]:
    weather_files.deliver(folder, datetime(2013, 1, 22, 6, tzinfo=UTC))
    files = list(weather_files.folder(folder).glob("*.csv"))
    for file in files:
        os.utime(file, (0, 0))  # as if they had lain there
    in_s3 = {"AWS_ACCESS_KEY_ID": "weather", "AWS_SECRET_ACCESS_KEY": "a-key-of-a-bucket", "AWS_REGION": "us-east-1"}
    yield StandIn(
        variables={_VARIABLE: weather_files.folder(folder).as_uri()},
        rows={"weather": sum(len(file.read_text().splitlines()) - 1 for file in files)},
        down={_VARIABLE: "s3://weather", "AWS_ENDPOINT_URL": f"http://{NOBODY}", **in_s3},
    )
