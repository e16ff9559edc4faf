"""The demo's weather service, after three weeks; and buckets in its place that do not answer, or refuse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from deployments.demo import weather_files
from tests.conftest import Answer, Server, served_api
from tests.sources.stand_in import NOBODY, StandIn

_URL = "HEADWATER_WEATHER_FILES_URL"
_BUCKET = {
    _URL: "s3://weather",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "weather",
    "AWS_SECRET_ACCESS_KEY": "a-key-of-a-bucket",
}


@contextmanager
def stand_in(server: Server, folder: Path) -> Iterator[StandIn]:
    weather_files.deliver(folder, datetime(2013, 1, 22, 6, tzinfo=UTC))
    files = list(weather_files.folder(folder).glob("*.csv"))
    for file in files:
        os.utime(file, (0, 0))  # nobody is writing it any more
    with served_api() as bucket:
        bucket.answer = lambda _: Answer({}, 403)
        yield StandIn(
            variables={_URL: weather_files.folder(folder).as_uri()},
            rows={"weather": sum(len(file.read_text().splitlines()) - 1 for file in files)},
            down={**_BUCKET, "AWS_ENDPOINT_URL": f"http://{NOBODY}"},
            refused={**_BUCKET, "AWS_ENDPOINT_URL": bucket.url},
        )
