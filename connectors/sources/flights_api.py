"""The airline operations API: every scheduled flight out of New York, changed again when its delays are known."""

from connectors.connections import Secret, Setting
from connectors.model import Cursor, Windows
from connectors.rest import ApiKeyHeader, RestSource, RestStream, TokenInBody

flights_api = RestSource(
    name="flights_api",
    base_url=Setting("flights_api_url"),
    # The airline's own, inside its network.
    allow_private_addresses=True,
    auth=ApiKeyHeader("X-API-Key", Secret("flights_api_key")),
    streams=(
        RestStream(
            name="flights",
            path="/v1/flights",
            records="data",
            parameters={"limit": "5000"},
            pages=TokenInBody(token="next", parameter="after"),  # noqa: S106 - a field's name
            primary_key=("id",),
            cursor=Cursor("updated_at"),
            since_parameter="updated_since",
            event_time="time_hour",
            windows=Windows(time_zone="America/New_York", first="2013-01-01", until="2014-01-01"),
            window_parameters=("scheduled_from", "scheduled_to"),
            columns={
                "time_hour": "timestamptz",
                "updated_at": "timestamptz",
                # Unknown until the flight has landed, so a young load may hold no value to tell the type by.
                **dict.fromkeys(["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"], "bigint"),
                "tailnum": "text",
            },
        ),
    ),
)
