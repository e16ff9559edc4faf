"""What all commands share: where they print, and how they say what they are at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from connectors.errors import ConfigurationError
from connectors.model import Source, Stream, stream_of
from connectors.registry import source_named

# Under which of these `headwater --help` lists a command.
LOCAL = "The local stack"
SETTING_UP = "Setting up and deploying"
LOOKING = "What is wrong"
DATA = "Data: windows, loads, rows"
GOING_BACK = "Going back, backups"
OTHER = "Other engines"

# A terminal narrower than the tables folds their lines; a cell that ends in … could not be copied.
console = Console(highlight=False, soft_wrap=True, width=max(Console().width, 120))
errors = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say that something begins, and how long it took when it is done."""
    started = time.monotonic()
    console.print(f"[bold]{name}[/] …")
    yield
    console.print(f"[bold]{name}[/] [green]done[/] in {time.monotonic() - started:.0f} s.")


def stream_named(name: str) -> tuple[Source, Stream]:
    """The source and stream that `flights_api.flights` names.

    Raises:
        ConfigurationError: there is no such source or stream; the message names those that there are.
    """
    source_name, _, stream_name = name.partition(".")
    source = source_named(source_name)
    if not stream_name:
        known = " or ".join(f"`{source_name}.{stream.name}`" for stream in source.streams)
        raise ConfigurationError(f"`{name}` is a source, and no stream of one.", remedy=f"Write {known}.")
    return source, stream_of(source, stream_name)
