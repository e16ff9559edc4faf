"""Who hears of what: channels and routes, as the team writes them in one YAML file.

An alert goes to the channels of every route that matches it, each channel once. A file with channels must have a route
without an owner that takes errors: what nobody in particular owns is heard too. Secrets are not in the file; each
channel asks for its own by name (`HEADWATER_ALERTS_SLACK_URL` for the channel `slack`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
import yaml

from connectors.alerts.channel import Channel, ClosedChannel
from connectors.alerts.message import Severity
from connectors.alerts.slack import SlackChannel
from connectors.alerts.smtp import EmailChannel, MailServer, Security, parse_address
from connectors.alerts.webhook import WebhookChannel
from connectors.connections import Secret
from connectors.errors import ConfigurationError, UnknownNameError

Lookup: TypeAlias = Callable[[Secret], str]
"""Where secrets come from: `Connections.secret`, or Prefect's blocks."""
Name: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,39}$")]


class Quiet(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}
):
    """Hours in which a channel takes only the worst; the rest waits until they end."""

    start: str
    end: str
    timezone: str
    below: Severity = Severity.CRITICAL
    """What is less than this waits."""

    def until(self, now: datetime, severity: Severity) -> datetime | None:
        """When a message of this severity may go out, if not now."""
        if severity.is_at_least(self.below):
            return None
        local = now.astimezone(ZoneInfo(self.timezone))
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        clock = local.time()
        is_quiet = start <= clock < end if start < end else clock >= start or clock < end
        if not is_quiet:
            return None
        day = local.date() if clock < end else local.date() + timedelta(days=1)
        return datetime.combine(day, end, local.tzinfo)


class _Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    quiet: Quiet | None = None


class SlackDefinition(_Definition, frozen=True, kw_only=True, tag="slack"):
    """A Slack channel, by the address of an incoming webhook."""

    def secrets(self, name: str) -> tuple[Secret, ...]:
        return (Secret(f"alerts_{name}_url"),)

    def open(self, name: str, lookup: Lookup) -> Channel:
        return SlackChannel(name, lookup(self.secrets(name)[0]))


class WebhookDefinition(_Definition, frozen=True, kw_only=True, tag="webhook"):
    """An address that takes JSON."""

    signed: bool = False

    def secrets(self, name: str) -> tuple[Secret, ...]:
        keys = (Secret(f"alerts_{name}_key"),) if self.signed else ()
        return (Secret(f"alerts_{name}_url"), *keys)

    def open(self, name: str, lookup: Lookup) -> Channel:
        url, *key = map(lookup, self.secrets(name))
        return WebhookChannel(name, url, *key)


class EmailDefinition(_Definition, frozen=True, kw_only=True, tag="email"):
    """Mail to some addresses, over SMTP."""

    host: str
    port: int = 587
    security: Security = Security.STARTTLS
    user: str | None = None
    sender: str
    to: list[str]

    def secrets(self, name: str) -> tuple[Secret, ...]:
        return (Secret(f"alerts_{name}_password"),) if self.user else ()

    def open(self, name: str, lookup: Lookup) -> EmailChannel:
        password = next(map(lookup, self.secrets(name)), None)
        server = MailServer(self.host, self.port, self.security, self.user, password)
        return EmailChannel(name, server, self.sender, tuple(self.to))

    def check(self, name: str) -> None:
        for address in (self.sender, *self.to):
            parse_address(address)
        self.open(name, lambda _: "")


Definition: TypeAlias = SlackDefinition | EmailDefinition | WebhookDefinition


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Alerts of an owner, or of all, from a severity on."""

    channels: list[Name]
    owner: str | None = None
    severity: Severity = Severity.WARNING

    def matches(self, owner: str | None, severity: Severity) -> bool:
        return self.owner in (None, owner) and severity.is_at_least(self.severity)


class Links(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses that messages link to."""

    page: str | None = None
    """The status page."""
    prefect: str | None = None
    """Prefect's dashboard."""

    def of(self, run_id: str | None) -> dict[str, str]:
        """What a message about a run links to."""
        found = {}
        if self.page:
            found["Status page"] = self.page
        if self.prefect and run_id:
            found["Run"] = f"{self.prefect.rstrip('/')}/runs/flow-run/{run_id}"
        return found


class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as a whole."""

    channels: dict[Name, Any] = {}
    routes: list[Route] = []
    links: Links = Links()


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """Channels by name, and the routes to them. Without any, nothing is sent."""

    channels: dict[str, Definition] = {}
    routes: list[Route] = []
    links: Links = Links()

    def channels_for(self, owner: str | None, severity: Severity | str) -> tuple[str, ...]:
        """The names of the channels that an alert goes to, in the file's order."""
        chosen = {name for route in self.routes if route.matches(owner, Severity(severity)) for name in route.channels}
        return tuple(name for name in self.channels if name in chosen)

    def due_at(self, channel: str, severity: Severity, now: datetime) -> datetime:
        """From when on a message may go to a channel."""
        definition = self.channels.get(channel)
        later = definition.quiet.until(now, severity) if definition and definition.quiet else None
        return later or now

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All that the channels ask for."""
        return tuple(secret for name, definition in self.channels.items() for secret in definition.secrets(name))

    def open(self, lookup: Lookup, only: str | None = None) -> dict[str, Channel]:
        """The channels, with their secrets; one whose secrets are not set, or wrong, is a channel that is broken.

        Raises:
            ConfigurationError: `only` names none.
        """
        if only is not None and only not in self.channels:
            raise UnknownNameError(
                "channel", only, list(self.channels), remedy=None if self.channels else "No channel is configured."
            )
        return {name: self._open(name, lookup) for name in self.channels if only in (None, name)}

    def _open(self, name: str, lookup: Lookup) -> Channel:
        try:
            return self.channels[name].open(name, lookup)
        except ConfigurationError as error:
            return ClosedChannel(name, error)


NOBODY = Routing()
"""No channel is configured."""


def routing_file() -> Path:
    """Where the team writes it: `deployments/alerts.yaml`, or where HEADWATER_ALERTS_FILE says."""
    configured = os.environ.get("HEADWATER_ALERTS_FILE")
    return Path(configured or Path(__file__).resolve().parents[2] / "deployments" / "alerts.yaml")


def read_routing(path: Path | None = None) -> Routing:
    """The routing that a file says, `routing_file()` unless it is another; one that is missing or empty is no routing.

    Raises:
        ConfigurationError: it says what cannot be meant, with the place.
    """
    path = path or routing_file()
    if not path.exists():
        return NOBODY
    return parse_routing(path.read_text(encoding="utf-8"), str(path))


def parse_routing(text: str, where: str) -> Routing:
    """See `read_routing`; `where` is what messages call the text."""
    if len(text) > _LONGEST:
        raise ConfigurationError(
            f"{where} has {len(text):,} characters: too many for channels and routes.", remedy="Look at what is in it."
        )
    try:
        found = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, which also refuses doubled keys
    except (yaml.YAMLError, TypeError, ValueError) as error:  # the others: a key that is a list, a date that is none
        raise ConfigurationError(
            f"{where} is no YAML: {' '.join(str(error).split())}", remedy="docs/alerts.md has an example."
        ) from None
    # Channels one by one: a message about many of them would not say which.
    texts = _converted(found or {}, _Written, where)
    channels = {
        name: _converted(definition, Definition, f"{where}: the channel `{name}`")
        for name, definition in texts.channels.items()
    }
    routing = Routing(channels=channels, routes=texts.routes, links=texts.links)
    _check(routing, where)
    return routing


def _converted(found: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"{where}: {error}.", remedy="docs/alerts.md lists what may be said there. Times of day are put in quotes."
        ) from None


def _check(routing: Routing, where: str) -> None:
    def wrong(what: str, remedy: str) -> ConfigurationError:
        return ConfigurationError(f"{where}: {what}", remedy=remedy)

    for name, definition in routing.channels.items():
        try:
            if isinstance(definition, EmailDefinition):
                definition.check(name)
        except ConfigurationError as error:
            raise wrong(f"the channel `{name}`: {error.what}", error.remedy) from None
        if definition.quiet is not None:
            _check_quiet(definition.quiet, f"{where}: the channel `{name}`")
    for number, route in enumerate(routing.routes, 1):
        if unknown := [name for name in route.channels if name not in routing.channels]:
            known = ", ".join(routing.channels) or "none"
            raise wrong(
                f"route {number} leads to `{unknown[0]}`, which is no channel.", f"Define it, or use one of: {known}."
            )
    for link in (routing.links.page, routing.links.prefect):
        if link is not None and not link.startswith(("https://", "http://")):
            raise wrong(f"`{link}` is no address to link to.", "Begin it with https://.")
    if routing.channels and not routing.channels_for(None, Severity.ERROR):
        raise wrong(
            "an error that nobody in particular owns would reach no channel.",
            "Add a route without `owner`, with `severity: error` or `warning`.",
        )


def _check_quiet(quiet: Quiet, where: str) -> None:
    def wrong(what: str) -> ConfigurationError:
        return ConfigurationError(
            f"{where}: {what}", remedy='As in {from: "22:00", to: "07:00", timezone: Europe/Berlin}.'
        )

    for text in (quiet.start, quiet.end):
        try:
            time.fromisoformat(text)
        except ValueError:
            raise wrong(f"`{text}` is no time of day.") from None
    if quiet.start == quiet.end:
        raise wrong("quiet hours begin when they end.")
    try:
        ZoneInfo(quiet.timezone)
    except (KeyError, ValueError, OSError):  # not found, not a name, a folder
        raise wrong(f"`{quiet.timezone}` is no time zone.") from None


_LONGEST = 64 << 10
_DEEPEST = 20


class _Loader(yaml.SafeLoader):
    """YAML keeps the last of two keys of one name silently; a channel would be gone. And it may be nested until Python
    gives up."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, "it is nested too deep", None)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{key}` is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
