"""Hourly observations of the three New York airports, one CSV file a local day, dropped into a bucket folder."""

from connectors.connections import ObjectStore
from connectors.files import CsvStream, FilesSource
from connectors.model import Windows

weather_files = FilesSource(
    name="weather_files",
    root=ObjectStore("weather_files"),
    streams=(
        CsvStream(
            name="weather",
            pattern="weather-{date}.csv",
            nulls=("", "NA"),
            primary_key=("origin", "time_hour"),
            event_time="time_hour",
            windows=Windows(time_zone="America/New_York", first="2013-01-01", until="2014-01-01"),
            columns={
                "time_hour": "timestamptz",
                **dict.fromkeys(["year", "month", "day", "hour"], "integer"),
                **dict.fromkeys(["temp", "dewp", "humid", "wind_dir", "wind_speed"], "numeric"),
                **dict.fromkeys(["wind_gust", "precip", "pressure", "visib"], "numeric"),
            },
        ),
    ),
)
