"""What all channels are: something that takes a message, and says by its error what is to become of it.

::

    ChannelUnavailableError   not now: the same message again, later
    ChannelBrokenError        not until someone mends it: rarely again, and others hear of it
    MessageRefusedError       not this message: others may pass
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from connectors.alerts.message import Outgoing
from connectors.errors import ChannelBrokenError, ConfigurationError


class Channel(Protocol):
    """A way to people. Any number of threads may use it at once."""

    @property
    def name(self) -> str:
        """As the routing calls it."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message and no error may repeat."""
        ...

    def send(self, outgoing: Outgoing, seconds: float) -> str:
        """Send one message within so many seconds, and return what the other side answered, on one line.

        Raises:
            ChannelUnavailableError, ChannelBrokenError, MessageRefusedError: as above.
        """
        ...


@dataclass(frozen=True, slots=True)
class ClosedChannel:
    """A channel that is configured and cannot be used, because a secret of it is not set or is wrong."""

    name: str
    why: ConfigurationError
    secrets: tuple[str, ...] = ()

    def send(self, outgoing: Outgoing, seconds: float) -> str:  # noqa: ARG002 - nothing is sent
        raise ChannelBrokenError(self.why.what, remedy=self.why.remedy)
