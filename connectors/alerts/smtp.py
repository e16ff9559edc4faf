"""Email over SMTP: plain text and HTML, in one thread for each incident.

A message keeps its Message-ID over all attempts, so that mail servers and programs that get it twice show it once.
A password is never sent in clear, and what was to be encrypted is not sent at all where the server cannot.
"""

from __future__ import annotations

import html
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from email.utils import format_datetime, getaddresses, localtime
from enum import StrEnum

from connectors.alerts.message import Kind, Message, Outgoing
from connectors.errors import ChannelBrokenError, ChannelUnavailableError, ConfigurationError, MessageRefusedError
from connectors.http.addresses import is_named_private
from connectors.masking import Mask


class Security(StrEnum):
    """How the way to the mail server is protected."""

    STARTTLS = "starttls"
    """Asked for after connecting; usually port 587."""
    TLS = "tls"
    """From the first byte; usually port 465."""
    NONE = "none"
    """A server of one's own network; without a login, unless it is this machine."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed over, and as whom."""

    host: str
    port: int = 587
    security: Security = Security.STARTTLS
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.user and self.security is Security.NONE and not _is_this_machine(self.host):
            raise ConfigurationError(
                f"The password of {self.user} would be sent to {self.host} in clear.",
                remedy="Say `security: starttls` (port 587) or `security: tls` (port 465), or leave out the user.",
            )


@dataclass(frozen=True, slots=True)
class EmailChannel:
    """Mail from one address to some."""

    name: str
    server: MailServer
    sender: str
    to: tuple[str, ...]

    def __post_init__(self) -> None:
        for text in (self.sender, *self.to):
            parse_address(text)
        if not self.to:
            raise ConfigurationError(f"The channel {self.name} has no recipient.", remedy="Name some in `to`.")

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.server.password,) if self.server.password else ()

    def send(self, outgoing: Outgoing, seconds: float) -> str:
        """See `Channel.send`."""
        return hand_over(self.server, self.mail(outgoing), seconds)

    def mail(self, outgoing: Outgoing) -> EmailMessage:
        """The whole message."""
        mail = compose(self.sender, self.to, outgoing.subject, outgoing.message.text, _html(outgoing.message))
        mail["Message-ID"] = self._message_id(outgoing.alert_id)
        if outgoing.opening_id is not None:
            mail["In-Reply-To"] = mail["References"] = self._message_id(outgoing.opening_id)
        return mail

    def _message_id(self, alert_id: object) -> str:
        return f"<{alert_id}@{parse_address(self.sender).domain}>"


def parse_address(text: str) -> Address:
    """An address, as `name@example.com` or `Name <name@example.com>`.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        ((name, address),) = getaddresses([text])
        parsed = Address(name, addr_spec=address)
    except (ValueError, IndexError, MessageError):
        parsed = Address()
    if not parsed.username or not parsed.domain or any(character in text for character in "\r\n"):
        raise ConfigurationError(
            f"{text!r} is not an email address.", remedy="Write it as name@example.com or Name <name@example.com>."
        )
    return parsed


def compose(sender: str, to: tuple[str, ...], subject: str, text: str, page: str | None = None) -> EmailMessage:
    """A message of plain text, and of HTML beside it where there is some; without a Message-ID."""
    mail = EmailMessage(policy=POLICY)
    mail["From"] = parse_address(sender)
    mail["To"] = [parse_address(each) for each in to]
    # Python decodes what looks like an encoded word before it writes it, and a line break in it with it: a header more.
    mail["Subject"] = " ".join(subject.split()).replace("=?", "= ?")
    mail["Date"] = format_datetime(localtime())
    # Out-of-office answers and mailing lists leave such mail alone.
    mail["Auto-Submitted"] = "auto-generated"
    # Any server takes it, also one that knows 7 bits only.
    mail.set_content(text, cte="quoted-printable")
    if page is not None:
        mail.add_alternative(page, subtype="html", cte="quoted-printable")
    return mail


def hand_over(server: MailServer, mail: EmailMessage, seconds: float) -> str:
    """Give a message to the server within so many seconds, and return its answer.

    Where it takes the message for some recipients only, it is delivered; the answer names the others.

    Raises:
        ChannelUnavailableError, ChannelBrokenError, MessageRefusedError: as each channel does.
    """
    mask = Mask([server.password] if server.password else [])
    place = f"The mail server {server.host}:{server.port}"
    try:
        with _session(server, seconds) as session:
            refused = session.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        reasons = "; ".join(f"{name}: {_said(*answer)}" for name, answer in error.recipients.items())
        is_later = any(code < 500 for code, _ in error.recipients.values())
        raise _error(f"{place} takes mail for none of the recipients ({mask(reasons)}).", is_later=is_later) from None
    except smtplib.SMTPDataError as error:
        what = f"{place} refused the message ({mask(_said(error.smtp_code, error.smtp_error))})."
        if error.smtp_code >= 500:
            raise MessageRefusedError(
                what, remedy="It is tried again; `headwater alerts test` says whether others pass."
            ) from None
        raise _error(what, is_later=True) from None
    except smtplib.SMTPResponseException as error:  # of the greeting, the login, the sender
        what = f"{place} said no ({mask(_said(error.smtp_code, error.smtp_error))})."
        raise _error(what, is_later=error.smtp_code < 500) from None
    except smtplib.SMTPNotSupportedError as error:
        raise _error(f"{place} cannot do what was asked for: {error}", is_later=False) from None
    except ssl.SSLCertVerificationError as error:
        raise ChannelBrokenError(
            f"{place} shows a certificate that cannot be trusted ({error.verify_message}).",
            remedy="If it is signed by an authority of your own, name its file in SSL_CERT_FILE.",
        ) from None
    except (OSError, smtplib.SMTPException, ValueError) as error:  # the last: a session cut off within an answer
        kind = mask(f"{type(error).__name__}: {error}")
        raise _error(f"{place} did not take the message within {seconds:.0f} s ({kind}).", is_later=True) from None
    if not refused:
        return "taken"
    return "taken, but not for " + mask("; ".join(f"{name}: {_said(*answer)}" for name, answer in refused.items()))


def _error(what: str, *, is_later: bool) -> ChannelUnavailableError | ChannelBrokenError:
    if is_later:
        return ChannelUnavailableError(what, remedy="It is tried again; if it lasts, ask who runs the mail server.")
    return ChannelBrokenError(
        what, remedy="Correct host, port, security, user, password and addresses, then say `headwater alerts test`."
    )


def _said(code: int, words: bytes | str) -> str:
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    return f"{code} {' '.join(text.split())}"[:200]


@contextmanager
def _session(server: MailServer, seconds: float) -> Iterator[smtplib.SMTP]:
    """A session that is logged in. smtplib bounds each wait for bytes; this also bounds them all together."""
    # A name that is none would have to be looked up, which may take longer than sending.
    name = socket.gethostname()
    hello = name if "." in name else "[127.0.0.1]"
    context = ssl.create_default_context()
    if server.security is Security.TLS:
        session: smtplib.SMTP = smtplib.SMTP_SSL(local_hostname=hello, timeout=seconds, context=context)
    else:
        session = smtplib.SMTP(local_hostname=hello, timeout=seconds)
    session._host = server.host  # type: ignore[attr-defined]  # what TLS checks, which only its own constructor sets
    over = threading.Timer(seconds, _cut_off, [session])
    over.daemon = True
    over.start()
    try:
        code, words = session.connect(server.host, server.port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, words)
        if server.security is Security.STARTTLS:
            session.starttls(context=context)
        if server.user:
            session.login(server.user, server.password or "")
        yield session
        # The message is taken: whatever becomes of the goodbye.
        with suppress(OSError, smtplib.SMTPException, ValueError):
            session.quit()
    finally:
        over.cancel()
        session.close()


def _cut_off(session: smtplib.SMTP) -> None:
    with suppress(OSError):
        if session.sock is not None:
            session.sock.shutdown(socket.SHUT_RDWR)


def _is_this_machine(host: str) -> bool:
    return host == "localhost" or (is_named_private(host) and host.startswith(("127.", "::1")))


def _html(message: Message) -> str:
    """The message as a page that any mail program shows: no style sheet, no image, everything escaped."""
    colour = "#1a7f37" if message.kind is Kind.CLOSED else "#b42318"
    rows = "".join(
        f'<tr><td valign="top" style="padding:2px 12px 2px 0;color:#666">{label}</td>'
        f'<td style="padding:2px 0">{html.escape(said).replace(chr(10), "<br>")}</td></tr>'
        for label, said in message.facts()
    )
    command = (
        f'<p>Next:</p><pre style="background:#f4f4f4;padding:8px">{html.escape(message.command)}</pre>'
        if message.command
        else ""
    )
    links = " · ".join(f'<a href="{html.escape(link)}">{html.escape(name)}</a>' for name, link in message.links.items())
    return (
        '<!doctype html><html><body style="font-family:sans-serif;font-size:14px;color:#222">'
        f'<p style="border-left:4px solid {colour};padding-left:10px"><strong>{html.escape(message.title)}</strong></p>'
        f"<table cellspacing=0 cellpadding=0>{rows}</table>{command}<p>{links}</p></body></html>\n"
    )
