"""A Prefect server that would let everybody in does not start: on an address that others reach, without a password.

Whoever may use the API may run code on every worker and read every block. Prefect starts such a server without a word.
Its process loads this module, as one of the collection of `tasks.blocks`, before it answers anybody.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from connectors.http.addresses import is_loopback

_APPLICATION = "prefect.server.api.server:create_app"
"""What Prefect has uvicorn serve, where the server is not within the command's own process."""


def refuse_to_be_open(command: Sequence[str]) -> None:
    """End this process if it is about to be such a server.

    Args:
        command: of this process, as `sys.argv` has it.

    Raises:
        SystemExit: it is, with what to do.
    """
    words = list(command[1:])
    if words[:2] != ["server", "start"] and _APPLICATION not in words:
        return
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, PREFECT_SERVER_API_HOST

    host = _option(words, "--host") or str(PREFECT_SERVER_API_HOST.value())
    if is_loopback(host) or PREFECT_SERVER_API_AUTH_STRING.value():
        return
    sys.exit(
        f"The Prefect server would answer everybody who reaches {host}, without a password, and let them run code on"
        " every worker. Set PREFECT_SERVER_API_AUTH_STRING='user:password' here, and PREFECT_API_AUTH_STRING to the"
        " same for workers and commands; or start it with --host 127.0.0.1."
    )


def _option(words: Sequence[str], name: str) -> str | None:
    for number, word in enumerate(words):
        if word == name:
            return words[number + 1] if number + 1 < len(words) else None
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None
