"""Alerts, as Prefect sees them: the channels' secrets from its blocks, and delivery at the end of flows.

A Slack channel is a `SlackWebhook` block and an email channel a `HeadwaterEmail` block, so that Prefect's automations
tell by the same. What incidents have to say goes past these blocks' own `notify`: it carries one plain text, without
blocks of Slack's, a Message-ID, or a word on how long to wait. Only what they keep is taken from them.
"""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context

from prefect import get_run_logger
from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.system import Secret as SecretBlock
from pydantic import SecretStr

from connectors.alerts.deliver import Delivery, deliver
from connectors.alerts.known_secrets import known_secrets
from connectors.alerts.message import Severity
from connectors.alerts.routing import EmailDefinition, Lookup, Routing, SlackDefinition, read_routing
from connectors.connections import Connections, Secret
from connectors.errors import HeadwaterError
from tasks.blocks import HeadwaterEmail
from tasks.credentials import WAREHOUSE_WATCHER, PrefectConnections, load_block

DELIVERY_SECONDS = 20.0
"""How long the end of a flow waits for its alerts; what is not sent by then is sent by the next, or by the watcher."""


def send_alerts() -> Delivery | None:
    """Send what is due, within bounds. It never raises: alerts that are not sent stay in the outbox.

    Call it inside a flow, after all that it does.

    Returns:
        What came of it; None if nothing is configured, or nothing could be done.
    """
    log = get_run_logger()
    found: list[Delivery] = []
    problems: list[str] = []

    def send() -> None:
        try:
            routing = read_routing()
            if routing.channels:
                connections = PrefectConnections()
                channels = routing.open(block_lookup(routing))
                warehouse = connections.database(WAREHOUSE_WATCHER)
                found.append(deliver(warehouse, channels, DELIVERY_SECONDS, secrets=lambda: known_secrets(connections)))
        except HeadwaterError as error:
            problems.append(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is not to fail for it
            problems.append(f"{type(error).__name__}: {error}")

    # Prefect's server and the warehouse may hang, whatever bounds they are asked with.
    thread = threading.Thread(target=copy_context().run, args=[send], daemon=True, name="alerts")
    thread.start()
    thread.join(DELIVERY_SECONDS + 5)
    if thread.is_alive():
        problems.append("they were not all sent in time")
    for delivery in found:
        if delivery.delivered or delivery.failures or delivery.given_up:
            log.log(
                logging.WARNING if delivery.failures or delivery.given_up else logging.INFO, "Alerts: %s.", delivery
            )
    if problems:
        log.warning("Alerts wait for the next run or the watcher: %s", "; ".join(problems))
    return found[0] if found else None


def block_name(channel: str) -> str:
    """What the block of a Slack or email channel is called."""
    return f"headwater-{channel.replace('_', '-')}"


def notification_blocks(routing: Routing) -> list[tuple[str, str]]:
    """Kind (slug) and name of the blocks by which Prefect's automations can tell of errors that nobody in particular
    owns: those of the channels that such errors are routed to, webhooks left out."""
    kinds: dict[type, type[Block]] = {SlackDefinition: SlackWebhook, EmailDefinition: HeadwaterEmail}
    return [
        (kinds[type(routing.channels[name])].get_block_type_slug(), block_name(name))
        for name in routing.channels_for(None, Severity.ERROR)
        if type(routing.channels[name]) in kinds
    ]


def block_lookup(routing: Routing) -> Lookup:
    """The channels' secrets, from the blocks that `register_channels` has written."""
    owners = {secret: name for name, definition in routing.channels.items() for secret in definition.secrets(name)}

    def secret(requirement: Secret) -> str:
        name = owners[requirement]
        match routing.channels[name]:
            case SlackDefinition():
                return load_block(SlackWebhook, block_name(name), requirement).url.get_secret_value()
            case EmailDefinition():
                password = load_block(HeadwaterEmail, block_name(name), requirement).password
                return password.get_secret_value() if password else ""
            case _:
                return PrefectConnections().secret(requirement)

    return secret


def register_channels(environment: Connections, routing: Routing) -> list[str]:
    """Write the blocks of the channels, from the environment. Safe to repeat.

    Returns:
        What was written, as Prefect names it.

    Raises:
        ConfigurationError: a secret is not set; what came before it has been written.
    """
    written = []
    for name, definition in routing.channels.items():
        secrets = {secret: environment.secret(secret) for secret in definition.secrets(name)}
        match definition:
            case SlackDefinition():
                (url,) = secrets.values()
                written.append(_save(SlackWebhook(url=SecretStr(url)), block_name(name)))
            case EmailDefinition():
                password = next((SecretStr(value) for value in secrets.values()), None)
                email = HeadwaterEmail(
                    host=definition.host,
                    port=definition.port,
                    security=definition.security,
                    user=definition.user,
                    password=password,
                    sender=definition.sender,
                    to=definition.to,
                )
                written.append(_save(email, block_name(name)))
            case _:
                for secret, value in secrets.items():
                    written.append(_save(SecretBlock(value=SecretStr(value)), secret.block_name))
    return written


def _save(block: Block, name: str) -> str:
    block.save(name, overwrite=True)
    return f"{block.get_block_type_slug()}/{name}"
