"""A newcomer's source: as short as the README says, and it loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from connectors.connections import EnvironmentConnections
from connectors.ingest import Destination, ingest
from connectors.rest import RestSource
from tests.conftest import Answer, Api, Request, Warehouse
from tests.connectors.rest import examples_newcomer_rest


def lines_of_code(text: str) -> int:
    return sum(bool(line.strip()) and not line.lstrip().startswith(("#", '"""')) for line in text.splitlines())


class Helpdesk:
    """Tickets by a link in a header, messages by an offset, both behind a key."""

    def __init__(self, api: Api) -> None:
        self.tickets = [{"id": n, "updated_at": f"2024-05-0{n}T08:00:00Z", "subject": f"s{n}"} for n in range(1, 6)]
        api.answer = self.answer

    def answer(self, request: Request) -> Answer:
        if request.headers.get("X-API-Key") != "sesame":
            return Answer({"error": "no key"}, 401)
        if request.path == "/v2/tickets":
            since = request.parameters.get("updated_since", "")
            found = [ticket for ticket in self.tickets if str(ticket["updated_at"]) >= since]
            page, size = int(request.parameters.get("page", 1)), int(request.parameters["per_page"])
            more = f"/v2/tickets?page={page + 1}&per_page={size}" + (f"&updated_since={since}" if since else "")
            headers = {"Link": f'<{more}>; rel="next"'} if page * size < len(found) else {}
            return Answer({"data": found[(page - 1) * size : page * size]}, headers=headers)
        ticket, offset = int(request.path.split("/")[3]), int(request.parameters["offset"])
        said = [{"id": 10 * ticket + n, "text": f"t{n}"} for n in range(ticket)]
        return Answer(said[offset : offset + int(request.parameters["limit"])])


def load(source: RestSource, stream: str, api: Api, destination: Destination) -> Any:
    connections = EnvironmentConnections({"HEADWATER_HELPDESK_URL": api.url, "HEADWATER_HELPDESK_KEY": "sesame"})
    [definition] = [each for each in source.streams if each.name == stream]
    return ingest(source, definition, connections, destination)[-1]


def test_a_newcomers_source_has_at_most_25_lines_a_stream_and_loads(
    api: Api, warehouse: Warehouse, destination: Destination
) -> None:
    text = Path(examples_newcomer_rest.__file__).read_text()
    without_children = re.sub(r"messages = RestStream\(.*?\n\)\n", "", text, flags=re.DOTALL)
    assert lines_of_code(without_children) <= 25
    helpdesk = Helpdesk(api)
    source = examples_newcomer_rest.helpdesk
    assert load(source, "tickets", api, destination).inserted == 5
    assert load(source, "messages", api, destination).inserted == 15
    helpdesk.tickets[2].update(updated_at="2024-05-06T00:00:00Z", subject="changed")
    report = load(source, "tickets", api, destination)
    assert (report.extracted, report.updated) == (2, 1)
    assert warehouse.query("select id, subject, updated_at::text from raw_helpdesk.tickets order by id")[2] == (
        3,
        "changed",
        "2024-05-06 00:00:00+00",
    )
    assert warehouse.query("select ticket_id, count(*) from raw_helpdesk.messages group by 1 order by 1") == [
        (n, n) for n in range(1, 6)
    ]
