"""A helpdesk's tickets, and what was said in each: written after the README alone."""

from connectors.connections import Secret, Setting
from connectors.model import Cursor
from connectors.rest import ApiKeyHeader, LinkHeader, Offset, Parent, RestSource, RestStream

tickets = RestStream(
    name="tickets",
    path="/v2/tickets",
    records="data",
    parameters={"per_page": 2},
    pages=LinkHeader(),
    primary_key=("id",),
    cursor=Cursor("updated_at"),
    since_parameter="updated_since",
    columns={"updated_at": "timestamptz"},
)
messages = RestStream(
    name="messages",
    path="/v2/tickets/{id}/messages",
    pages=Offset(2),
    primary_key=("id",),
    parent=Parent(tickets, fields={"ticket_id": "id"}),
)
helpdesk = RestSource(
    name="helpdesk",
    base_url=Setting("helpdesk_url"),
    auth=ApiKeyHeader("X-API-Key", Secret("helpdesk_key")),
    streams=(tickets, messages),
)
