"""Blocks of Prefect's that Headwater adds. The entry point group `prefect.collections` names this module, so that the
*server* knows them too: its automations tell of what a dead worker cannot say itself. By the same way a server is kept
from starting that would let everybody in.
"""

from __future__ import annotations

import asyncio
import sys

from prefect.blocks.abstract import NotificationBlock, NotificationError
from pydantic import Field, SecretStr

from connectors.alerts.smtp import MailServer, Security, compose, hand_over
from connectors.errors import HeadwaterError
from tasks.open_server import refuse_to_be_open

_SEND_SECONDS = 30.0

refuse_to_be_open(sys.argv)


class HeadwaterEmail(NotificationBlock):
    """Mail over SMTP. `headwater register` writes one for each channel of kind `email`."""

    _block_type_name = "Headwater Email"
    _block_type_slug = "headwater-email"

    host: str = Field(description="The mail server.")
    port: int = Field(default=587, description="587 with STARTTLS, 465 with TLS.")
    security: Security = Field(default=Security.STARTTLS, description="How the way there is protected.")
    user: str | None = Field(default=None, description="Who logs in; nobody without it.")
    password: SecretStr | None = Field(default=None, description="With what.")
    sender: str = Field(description="headwater@example.com, or Headwater <headwater@example.com>.")
    to: list[str] = Field(description="The recipients.")

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Send a mail.

        Raises:
            NotificationError: it was not taken; only within `raise_on_failure`, as automations do it.
        """
        try:
            await asyncio.to_thread(self._send, body, subject or "Prefect")
        except HeadwaterError as error:
            self.logger.warning("A mail was not sent: %s", error)
            if self._raise_on_failure:
                raise NotificationError(str(error)) from None

    def _send(self, body: str, subject: str) -> None:
        password = self.password.get_secret_value() if self.password else None
        server = MailServer(self.host, self.port, self.security, self.user, password)
        hand_over(server, compose(self.sender, tuple(self.to), subject, body), _SEND_SECONDS)
