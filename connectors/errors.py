"""Everything that can go wrong, grouped by what to do about it.

::

    HeadwaterError
    ├── ConfigurationError          a definition, setting or parameter is wrong: fix it, never retry
    │   ├── UnknownNameError        no such source, stream or connection
    │   ├── NotFoundError           the source has nothing at this address
    │   ├── WindowError             a window that is malformed, empty or not possible for the stream
    │   └── ChannelBrokenError      a channel of alerts takes nothing until someone mends it
    ├── TransientError              may pass by itself: retried, with a cap
    │   ├── SecretsUnavailableError the store of secrets did not answer
    │   ├── SourceUnavailableError  the source did not answer, or answered "not now"
    │   ├── DestinationUnavailableError  the warehouse or the object store did not answer
    │   ├── StreamBusyError         another run is working on the same stream
    │   └── ChannelUnavailableError a channel of alerts did not answer, or answered "not now"
    ├── DataError                   what came cannot be accepted: someone has to look
    │   ├── MalformedResponseError  the source answered with something that is not its data
    │   ├── ContractViolationError  rows or columns break the stream's contract
    │   ├── SourceRewoundError      the source was put back to an earlier state
    │   ├── LandingCorruptError     an object is missing or is not what its manifest says
    │   ├── BackupCorruptError      a backup is not what its manifest says
    │   └── MessageRefusedError     a channel of alerts takes others, but not this one
    ├── FencedError                 a successor took over the stream: this run must not write
    └── StoppedError                this process was told to stop, and broke off

Only a `TransientError` is worth another attempt. Each error carries where it happened (source, stream, window, load)
and what to do next, and prints both.
"""

from __future__ import annotations

from connectors.unsaid import UNSAID


class HeadwaterError(Exception):
    """Base of all errors of this project: what happened, where, and what to do about it."""

    def __init__(
        self,
        what: str,
        *,
        remedy: str,
        source: str | None = None,
        stream: str | None = None,
        window: object | None = None,
        load_id: object | None = None,
    ) -> None:
        # Whatever they quote: a secret that this process was given is in no error of ours.
        self.what = UNSAID(what)
        self.remedy = UNSAID(remedy)
        self.source = source
        self.stream = stream
        self.window = window
        self.load_id = load_id
        super().__init__(self.what)

    def at(
        self,
        *,
        source: str | None = None,
        stream: str | None = None,
        window: object | None = None,
        load_id: object | None = None,
    ) -> HeadwaterError:
        """The same error, with the place filled in where the code that raised it could not know it."""
        self.source = self.source or source
        self.stream = self.stream or stream
        self.window = self.window or window
        self.load_id = self.load_id or load_id
        return self

    def __str__(self) -> str:
        places = {"source": self.source, "stream": self.stream, "window": self.window, "load": self.load_id}
        where = ", ".join(f"{name} {value}" for name, value in places.items() if value)
        return f"{self.what}{f' [{where}]' if where else ''} {self.remedy}".strip()


class ConfigurationError(HeadwaterError):
    """A definition, setting or parameter is wrong; the same call can only fail again."""


class UnknownNameError(ConfigurationError):
    """A source, stream or connection that nothing is registered under."""

    def __init__(
        self, kind: str, name: str, known: list[str], *, among: str | None = None, remedy: str | None = None
    ) -> None:
        valid = ", ".join(f"`{item}`" for item in sorted(known)) or "none"
        place = f" in {among}" if among else ""
        super().__init__(
            f"There is no {kind} `{name}`{place}.", remedy=remedy or f"Use one of those registered: {valid}."
        )


class NotFoundError(ConfigurationError):
    """The source has nothing at the address that was asked, or no longer."""


class WindowError(ConfigurationError):
    """A window that is malformed, empty, or that the stream cannot be asked for."""


class ChannelBrokenError(ConfigurationError):
    """A channel of alerts has gone, or does not let us in: every message to it fails until that is mended."""


class TransientError(HeadwaterError):
    """Trouble that may pass by itself; worth a bounded number of further attempts."""


class SourceUnavailableError(TransientError):
    """The source cannot be reached, or asks to be left alone for a while."""


class DestinationUnavailableError(TransientError):
    """The warehouse or the object store cannot be reached."""


class SecretsUnavailableError(TransientError):
    """Where secrets are kept cannot be reached, or asks to be left alone for a while."""


class StreamBusyError(TransientError):
    """Another run holds the stream and did not let go within the time allowed."""


class ChannelUnavailableError(TransientError):
    """A channel of alerts cannot be reached, or asks to be left alone for a while.

    `seconds` is for how long it asks that, if it says so.
    """

    def __init__(self, what: str, *, remedy: str, seconds: float | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.seconds = seconds


class DataError(HeadwaterError):
    """What the source sent cannot be accepted as it is."""


class MalformedResponseError(DataError):
    """The source answered with something that is not its data: nothing of it was landed."""


class ContractViolationError(DataError):
    """Rows or columns break the stream's contract, beyond what it tolerates."""


class SourceRewoundError(DataError):
    """The source is behind what was read from it before: restored from a backup, truncated or loaded anew."""


class LandingCorruptError(DataError):
    """An object of a load is missing, cut or altered."""


class BackupCorruptError(DataError):
    """A backup that is missing something, cut or altered, or that did not come back as it was."""


class MessageRefusedError(DataError):
    """A channel of alerts refuses this one message, as too long or malformed; others may pass."""


class FencedError(HeadwaterError):
    """This run lost its stream to a successor while it slept; it committed nothing."""


class StoppedError(HeadwaterError):
    """This process was told to stop, and broke off; what it had not committed left no trace."""
