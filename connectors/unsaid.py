"""The secrets that this process was given, and that it says nowhere: in no log record, no error of ours, no traceback.

Who hands out a secret (`Connections`, a token endpoint) adds it here; from then on every record of Python's logging, of
whatever library, has a mask in its place, and so has every `HeadwaterError`. This is the last line of defence: what
is known to quote its caller is cleared where it is heard (`http.client`), there also of what is too short for here.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import OrderedDict
from typing import Any

from connectors.masking import Mask

SHORTEST = 6
"""Characters. What is shorter cannot be told from words, and masking every `test` would say what the secret is."""
_MOST = 500
"""Secrets that are remembered: tokens come anew every few minutes."""


class Unsaid:
    """Texts of any origin, less the secrets that were added. Safe to use from several threads."""

    def __init__(self) -> None:
        self._secrets: OrderedDict[str, None] = OrderedDict()
        self._mask = Mask(())
        self._lock = threading.Lock()
        self._is_listening = False

    def add(self, *secrets: str | None) -> None:
        """Never say these from here on."""
        with self._lock:
            new = [each for each in secrets if each and len(each) >= SHORTEST and each not in self._secrets]
            if not new:
                return
            self._secrets.update(dict.fromkeys(new))
            while len(self._secrets) > _MOST:
                self._secrets.popitem(last=False)
            self._mask = Mask(self._secrets)
            if not self._is_listening:
                self._is_listening = True
                logging.setLogRecordFactory(_Clearing(logging.getLogRecordFactory(), self))

    def forget_all(self) -> None:
        """For tests, whose secrets are words of other tests."""
        with self._lock:
            self._secrets.clear()
            self._mask = Mask(())

    def __call__(self, text: str) -> str:
        """The text as it may be said."""
        return self._mask(text) if self._secrets else text

    def clear(self, error: BaseException) -> None:
        """Take the secrets out of an exception that others raised, and out of what it came from."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            error.args = tuple(self(each) if isinstance(each, str) else each for each in error.args)
            error = error.__cause__ or error.__context__  # type: ignore[assignment]

    def traceback(self, error: BaseException) -> str:
        """What Python prints of an exception that nobody catches, as it may be said."""
        return self("".join(traceback.format_exception(error)))


class _Clearing:
    """Makes log records, as the factory before it did, that hold no secret."""

    def __init__(self, make: Any, unsaid: Unsaid) -> None:
        self._make = make
        self._unsaid = unsaid

    def __call__(self, *given: Any, **options: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*given, **options)
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - it cannot be formatted: logging will print it, part by part, as an error
            arguments = record.args if isinstance(record.args, tuple) else ()
            record.msg = self._unsaid(str(record.msg))
            record.args = tuple(self._unsaid(each) if isinstance(each, str) else each for each in arguments)
            return record
        if (cleared := self._unsaid(said)) != said:
            record.msg, record.args = cleared, ()
        if record.exc_info and record.exc_info[1] is not None:
            said = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (cleared := self._unsaid(said)) != said:
                # Handlers show the text where there is one; without the exception none makes it anew.
                record.exc_text, record.exc_info = cleared, None
        if record.stack_info:
            record.stack_info = self._unsaid(record.stack_info)
        return record


UNSAID = Unsaid()
"""This process's."""
