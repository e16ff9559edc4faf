"""Bodies as they are taken in: whole, decompressed within bounds, and what was asked for.

HTTP says how long a body is, or marks its end; httpx sees to that. What it does not see: a gzip stream that stops early
inside a body that is whole, one that unpacks to a thousand times its size, and a login page with status 200.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterable, Mapping

from connectors.errors import ConfigurationError, HeadwaterError, MalformedResponseError

ACCEPT_ENCODING = "gzip"
"""The one compression that is asked for: every server has it, and its end is marked."""

_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|script|meta|title|\?xml)\b", re.IGNORECASE)
_JSON = re.compile(rb"\s*[\[{]")
_BOM = b"\xef\xbb\xbf"


def take_in(blocks: Iterable[bytes], headers: Mapping[str, str], limit: int, place: str) -> bytes:
    """A body, decompressed.

    Args:
        headers: of the answer, by name in lower case.
        limit: bytes, before and after decompression.

    Raises:
        MalformedResponseError: it is damaged, cut, or compressed in another way than was asked for.
        ConfigurationError: it is longer than the limit.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(place, limit)
    taken = []
    size = 0
    for block in blocks:
        taken.append(block)
        size += len(block)
        if size > limit:
            raise _too_large(place, limit)
    body = b"".join(taken)
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise _malformed(f"The answer of {place} is compressed as `{encoding}`, which was not asked for.")
    return _unpacked(body, limit, place)


def _unpacked(body: bytes, limit: int, place: str) -> bytes:
    """The content of a gzip file: mostly one member, which must be whole; RFC 1952, 2.2 allows several."""
    try:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        content = member.decompress(body, limit + 1)
        if member.unused_data and len(content) <= limit:
            content = gzip.GzipFile(fileobj=io.BytesIO(body)).read(limit + 1)
        elif not member.eof and len(content) <= limit:
            raise EOFError("its end is missing")
    except (zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise _malformed(f"The answer of {place} broke off or is damaged: it is no whole gzip ({error}).") from error
    if len(content) > limit:
        raise _too_large(place, limit)
    return content


def check_kind(body: bytes, headers: Mapping[str, str], accept: str, place: str, *, quotes: bool = True) -> None:
    """Refuse what cannot be the data that was asked for: a web page, and text whose end cannot be told.

    Raises:
        MalformedResponseError: it is a web page, as a login or a proxy in between sends with status 200.
        ConfigurationError: it is neither JSON, whose end is marked, nor does the answer say how long it is.
    """
    if "html" in accept:
        return
    beginning = body[:200].removeprefix(_BOM)
    asks_json = _asks_json(accept)
    is_page = _PAGE.match(beginning) is not None or (asks_json and beginning.lstrip().startswith(b"<"))
    # Some servers call everything HTML that they write, also JSON; of other formats nothing tells them apart.
    is_called_page = "html" in headers.get("content-type", "").lower()
    if is_page or (is_called_page and not (asks_json and _JSON.match(beginning))):
        words = " ".join(beginning[:80].decode("utf-8", "replace").split())
        raise _malformed(
            f"{place} answered with a web page (of a login, of a proxy in between?), which cannot be read as data"
            + (f"; it begins: {words}" if quotes else "")
        )
    ends = ("content-length", "transfer-encoding", "content-encoding")
    if not asks_json and body and not any(name in headers for name in ends):
        raise ConfigurationError(
            f"The answer of {place} does not say how long it is, so one that broke off would pass for whole.",
            remedy="Ask the source's owner for HTTP/1.1, or read the stream as JSON.",
        )


def _asks_json(accept: str) -> bool:
    kinds = [kind.partition(";")[0].strip() for kind in accept.split(",")]
    return any(kind == "application/json" or kind.endswith("+json") for kind in kinds)


def _malformed(what: str) -> HeadwaterError:
    return MalformedResponseError(
        what, remedy="If it lasts, look at what the source sends, and at what is between it and this machine."
    )


def _too_large(place: str, limit: int) -> HeadwaterError:
    return ConfigurationError(
        f"The answer of {place} is larger than {limit:,} bytes (decompressed, if it is compressed).",
        remedy="Ask for smaller pages, or raise max_body_bytes in the source's limits.",
    )
