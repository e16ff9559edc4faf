"""From a source that fails to what people get: one message when it begins and one when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.alerts.routing import parse_routing
from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError
from connectors.ingest import LANDING, WAREHOUSE_LOADER
from connectors.registry import SOURCES
from flows.ingest import ingest
from tasks.alerts import register_channels
from tasks.credentials import WAREHOUSE_WATCHER, register
from tests.conftest import Warehouse
from tests.connectors.alerts.catchers import mail_server, receiver
from tests.connectors.examples import Prepare, erp

ROUTING = """
channels:
  slack: {{kind: slack}}
  email:
    {{kind: email, host: 127.0.0.1, port: {port}, security: none, sender: headwater@example.com, to: [you@example.com]}}
routes:
  - channels: [slack, email]
"""
TWENTY_MODELS = """
insert into ops.lineage_nodes (node, kind, name, layer, owner)
select 'stream.erp.t', 'stream', 't', null, null
union all select 'model.p.m' || n, 'model', 'm' || n, case when n > 15 then 'marts' else 'staging' end, 'finance'
from generate_series(1, 20) n;
insert into ops.lineage_edges
select case when n = 1 then 'stream.erp.t' else 'model.p.m' || n - 1 end, 'model.p.m' || n
from generate_series(1, 20) n;
"""


@pytest.mark.usefixtures("prefect_server")
def test_a_source_that_fails_is_one_message_and_one_recovery_on_each_channel_however_often_it_reruns(
    source_database: Prepare,
    warehouse: Warehouse,
    landing_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = source_database("create table t (id int primary key)")
    source = erp(name="t", primary_key=("id",))
    monkeypatch.setitem(SOURCES, "erp", source)
    urls = {f"HEADWATER_WAREHOUSE_{role.upper()}_URL": warehouse.url(role) for role in ("loader", "watcher")}
    urls["HEADWATER_ERP_URL"] = warehouse.server.url.set(database=connection.info.dbname)
    environment = {name: url.render_as_string(hide_password=False) for name, url in urls.items()}
    environment["HEADWATER_LANDING_URL"] = landing_folder.as_uri()
    # Recoveries wait, so that a source that fails every other run is one trouble; here there is no time for that.
    monkeypatch.setenv("HEADWATER_INCIDENT_SETTLE", "0.005m")
    warehouse.execute(TWENTY_MODELS)

    with receiver() as slack, mail_server() as mails:
        routing = ROUTING.format(port=mails.port)
        (tmp_path / "alerts.yaml").write_text(routing)
        monkeypatch.setenv("HEADWATER_ALERTS_FILE", str(tmp_path / "alerts.yaml"))
        connections = EnvironmentConnections({**environment, "HEADWATER_ALERTS_SLACK_URL": slack.url})
        register(connections, [*source.requirements, WAREHOUSE_LOADER, WAREHOUSE_WATCHER, LANDING])
        register_channels(connections, parse_routing(routing, "the test"))

        ingest("erp")
        assert (slack.taken, mails.mails) == ([], [])

        connection.execute("drop table t")
        for _ in range(5):
            with pytest.raises(ConfigurationError):
                ingest("erp")
        assert len(slack.taken) == len(mails.mails) == 1
        assert mails.subjects == ["[error] Stream erp.t failed to load"]
        text = mails.mails[0].get_body(("plain",)).get_content()  # type: ignore[union-attr]
        assert "m16, m17, m18, m19, m20" in text
        assert "finance" in text

        connection.execute("create table t (id int primary key)")
        for _ in range(2):
            ingest("erp")
        assert len(slack.taken) == len(mails.mails) == 2
        assert mails.subjects[1].startswith("[recovered after ")
        assert mails.mails[1]["In-Reply-To"] == mails.mails[0]["Message-ID"]
