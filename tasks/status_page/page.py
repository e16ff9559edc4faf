"""The page as one file: the template, with the document in it. It asks nobody for anything.

The content security policy allows just this style and this script, by their hashes, and no request at all.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from functools import cache
from importlib.resources import files
from typing import Any

_ESCAPES = str.maketrans({each: f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"})
_SCRIPTS = ("core.js", "charts.js", "sections.js", "lineage.js", "main.js")


def page(document: dict[str, Any]) -> bytes:
    """A document (`tasks.status_page.document`) as a page."""
    before, after = _frame()
    return b"".join((before, _embedded(document), after))


def as_json(document: dict[str, Any]) -> bytes:
    """A document as it is beside the page."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _embedded(document: dict[str, Any]) -> bytes:
    """JSON that means nothing to a parser of HTML, whatever is in it: no tag, comment or entity can begin."""
    return as_json(document).decode().translate(_ESCAPES).encode()


@cache
def _frame() -> tuple[bytes, bytes]:
    """What is before the document, and what is after it."""
    style = _read("page.css")
    script = '(() => {\n"use strict";\n' + "\n".join(map(_read, _SCRIPTS)) + "})();\n"
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "img-src data:",  # the empty icon, lest the browser ask for one
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    html = _read("page.html").replace("__POLICY__", policy)
    html = html.replace("__STYLE__", style).replace("__SCRIPT__", script)
    before, after = html.split("__DATA__")
    return before.encode(), after.encode()


def _read(name: str) -> str:
    return (files(__package__) / "template" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
