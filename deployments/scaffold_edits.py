"""A new source's line in each of the lists that name them all. Text is put in; nothing else of a file is touched.

Each function takes a file's text and the words of the source, and returns the text with the source in it. It raises
ConfigurationError where it does not know the file's shape again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Template
from typing import Any

import yaml

from connectors.errors import ConfigurationError

Words = Mapping[str, str]
_SCHEDULE = {"slug": "hourly", "cron": "10 * * * *"}
_DEPLOYMENT = Template("""
  - name: ${deployment}
    description: What is new and changed in ${source}.
    entrypoint: flows.ingest.ingest
    parameters: {source: ${source}}
    tags: [headwater, ingest, ${source}]
    work_pool: *on_the_pool
    concurrency_limit: *one_at_a_time
    schedules:
      - {slug: ${slug}, cron: "${cron}", timezone: ${timezone}}
""")
_ROW = Template("| `ingest/${deployment}` | ${slug} | `${cron}` | What is new and changed in ${source} |\n")
_INGEST = "flows.ingest.ingest"


def registered(text: str, words: Words) -> str:
    """`connectors/registry.py` with an import, in its alphabetical place, and the source at the end of the list."""
    source = words["source"]
    lines = text.splitlines(keepends=True)
    imports = [number for number, line in enumerate(lines) if line.startswith("from connectors.sources.")]
    list_ends = re.search(r"    for source in \(\n(?:        \w+,.*\n)+(?=    \)\n)", text)
    if not imports or list_ends is None:
        raise _unknown_shape("connectors/registry.py", f"an import and an entry of {source}")
    text = f"{text[: list_ends.end()]}        {source},\n{text[list_ends.end() :]}"
    lines = text.splitlines(keepends=True)
    new = f"from connectors.sources.{source} import {source}\n"
    place = next((number for number in imports if lines[number] > new), imports[-1] + 1)
    return "".join([*lines[:place], new, *lines[place:]])


def scheduled(text: str, words: Words) -> str:
    """`prefect.yaml` with a deployment behind the last one that ingests a source."""
    new_entry = f"a deployment of {words['source']}"
    deployments = _deployments(text)
    ingesting = [number for number, each in enumerate(deployments) if each.get("entrypoint") == _INGEST]
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.startswith("  - name:")]
    if not ingesting or len(starts) != len(deployments):
        raise _unknown_shape("prefect.yaml", new_entry)
    last = ingesting[-1]
    timezone = deployments[last]["schedules"][0]["timezone"]
    added = _DEPLOYMENT.substitute(words, **_SCHEDULE, timezone=timezone)
    end = [*starts, len(lines)][last + 1]
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):  # those belong to what comes after
        end -= 1
    edited = "".join([*lines[:end], added, *lines[end:]])
    after = _deployments(edited)
    if [*after[: last + 1], *after[last + 2 :]] != deployments or after[last + 1]["name"] != words["deployment"]:
        raise _unknown_shape("prefect.yaml", new_entry)
    return edited


def timetabled(text: str, words: Words) -> str:
    """`docs/timetable.md` with a row behind the last one that ingests a source."""
    rows = list(re.finditer(r"(?m)^\| `ingest/.*\n", text))
    if not rows:
        raise _unknown_shape("docs/timetable.md", f"a row for {words['source']}")
    end = rows[-1].end()
    return text[:end] + _ROW.substitute(words, **_SCHEDULE) + text[end:]


def _deployments(text: str) -> list[dict[str, Any]]:
    try:
        return list(yaml.safe_load(text)["deployments"])
    except (yaml.YAMLError, KeyError, TypeError):
        return []


def _unknown_shape(file: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{file} has not the shape that {what} could be put into; nothing was written.",
        remedy="Give it the shape that it has in Headwater's own repository, or add the source by hand.",
    )
