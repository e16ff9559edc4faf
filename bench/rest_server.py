"""A REST API on loopback that costs as little as one can: every answer is made before the first request comes.

`python -m bench.rest_server ROWS LATENCY_MS PAGE_ROWS` prints its address and serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from urllib.parse import parse_qsl, urlsplit

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def pages(rows: int, page_rows: int) -> list[bytes]:
    """Whole answers of `/orders`, so many records of about 349 bytes each, with the offset of the next page."""
    random.seed(7)
    return [_answer(start, min(start + page_rows, rows), rows) for start in range(0, rows, page_rows)]


def _answer(start: int, end: int, rows: int) -> bytes:
    records = b",".join(_record(number) for number in range(start, end))
    following = str(end) if end < rows else "null"
    body = b'{"data":[' + records + f'],"total":{rows},"next":{following}}}'.encode()
    return _HEAD % len(body) + body


def _record(number: int) -> bytes:
    second = number % 86_400
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    record = {
        "id": number,
        "reference": f"ORD-{number:010}",
        "customer_id": random.randrange(1_000_000),  # noqa: S311 - inputs need no cryptography
        "email": f"customer.{number * 7919 % 1_000_003}@example.org",
        "status": ("new", "paid", "sent", "returned")[number % 4],
        "amount": round(number % 9973 / 7, 2),
        "items": number % 13,
        "is_gift": number % 5 == 0,
        "coupon": None if number % 3 else "SPRING",
        "created_at": f"2024-03-{1 + number % 28:02}T{clock}Z",
        "updated_at": f"2024-04-{1 + number // 40_000 % 28:02}T{clock}Z",
        "note": "Leave it with the neighbours, please; ring twice. " + "x" * (number % 40),
        "address": {"street": f"{number % 200} High Street", "city": "Springfield", "zip": f"{number % 99_999:05}"},
    }
    return json.dumps(record, separators=(",", ":")).encode()


class _Answering(asyncio.Protocol):
    _transport: asyncio.Transport

    def __init__(self, answers: list[bytes], latency: float, page_rows: int) -> None:
        self._answers = answers
        self._page_rows = page_rows
        self._latency = latency
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream of bytes
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            parameters = dict(parse_qsl(urlsplit(head.split(b" ", 2)[1].decode()).query))
            number = int(parameters.get("offset", 0)) // self._page_rows
            answer = self._answers[number] if number < len(self._answers) else _answer(0, 0, 0)
            if self._latency:
                asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def _serve(rows: int, latency: float, page_rows: int) -> None:
    answers = pages(rows, page_rows)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(answers, latency, page_rows), "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 1000, int(sys.argv[3])))
