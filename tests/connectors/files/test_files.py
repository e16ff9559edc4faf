"""What files of each format become, whatever pieces they are read in; what is refused; which files are chosen."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from connectors.connections import EnvironmentConnections, ObjectStore
from connectors.destinations.warehouse.file_records import parser_of
from connectors.destinations.warehouse.records import Rejected
from connectors.documents.array import JsonArray
from connectors.errors import ConfigurationError, ContractViolationError, HeadwaterError, MalformedResponseError
from connectors.files import CsvStream, FilesSource, JsonLinesStream, JsonStream, ParquetStream
from connectors.files.places import compiled, dates
from connectors.formats.compression import BadCompressionError, decompressed
from connectors.formats.file_streams import FileStream
from connectors.formats.framing import CsvCutter
from connectors.model import (
    Chunk,
    Cursor,
    Deletes,
    ExtractRequest,
    FileVersion,
    LandingFormat,
    Window,
    WriteDisposition,
)

KEY: dict[str, Any] = {"name": "t", "primary_key": ("a",)}
Values = list[str | None]


def text_of(value: bytes) -> str | None:
    """A value as COPY's text format has it."""
    if value == b"\\N":
        return None
    return (
        value.decode()
        .replace("\\\\", "\x01")
        .replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\\t", "\t")
        .replace("\x01", "\\")
    )


def taken(stream: FileStream, chunks: Iterator[Chunk]) -> tuple[list[dict[str, str | None]], list[Rejected]]:
    """The rows of chunks by the stream's parser, and the records that are none."""
    parser = parser_of(stream, stream.landing_format, (), ())
    assert parser is not None
    rows, rejected = [], []
    for chunk in chunks:
        for row in parser.rows(chunk):
            if isinstance(row, Rejected):
                rejected.append(row)
            else:
                rows.append(dict(zip(parser.columns, map(text_of, row), strict=False)))
    return rows, rejected


def parsed(stream: FileStream, content: bytes, size: int = 1 << 20) -> list[dict[str, str | None]]:
    """The rows of a file that comes in pieces of some size. None of its records may be rejected."""
    file = FileVersion("f", "1", len(content))
    pieces = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
    chunks = [Chunk(piece, 0, file, ends_file=number == len(pieces)) for number, piece in enumerate(pieces, 1)]
    rows, rejected = taken(stream, iter(chunks))
    assert rejected == []
    return rows


def read(folder: Path, stream: FileStream) -> tuple[list[dict[str, str | None]], list[Rejected]]:
    """The rows of a folder's files, through the source."""
    source = FilesSource(name="met", root=ObjectStore("met"), streams=(stream,), settle_seconds=0)
    where = EnvironmentConnections({"HEADWATER_MET_URL": folder.as_uri()})
    return taken(stream, source.extract(stream, ExtractRequest(), where).chunks)


cells = st.text(st.sampled_from("ab\"',;\n\r é\\\t\N{SNOWMAN}\N{GRINNING FACE}"), max_size=6)


@given(
    st.lists(st.tuples(cells, cells), max_size=6),
    st.integers(1, 9),
    st.sampled_from(",;\t|'"),
    st.sampled_from(['"', "~"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"]),
    st.booleans(),
    st.booleans(),
)
def test_a_csv_file_comes_out_as_it_was_written(
    rows: list[tuple[str, str]],
    size: int,
    delimiter: str,
    quote: str,
    encoding: str,
    has_header: bool,
    all_quoted: bool,
) -> None:
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, quotechar=quote, quoting=quoting)
    writer.writerows([("a", "b"), *rows] if has_header else rows)
    stream = CsvStream(
        **KEY,
        pattern="*",
        nulls=(),
        delimiter=delimiter,
        quote=quote,
        encoding=encoding,
        header=() if has_header else ("a", "b"),
    )
    content = text.getvalue().encode(encoding)
    assert parsed(stream, content, size) == [{"a": a, "b": b} for a, b in rows]


@given(st.lists(st.tuples(cells, cells), max_size=6), st.integers(1, 9))
def test_quotes_mean_nothing_where_nothing_is_quoted(rows: list[tuple[str, str]], size: int) -> None:
    plain = [[cell.translate({ord(mark): None for mark in ",\n\r"}) for cell in row] for row in rows]
    content = "".join(",".join(row) + "\n" for row in [["a", "b"], *plain]).encode()
    assert parsed(CsvStream(**KEY, pattern="*", nulls=(), quote=None), content, size) == [
        {"a": a, "b": b} for a, b in plain
    ]


@given(st.text(st.sampled_from('ab",\n'), max_size=30), st.sampled_from(['"', None]))
def test_csv_is_cut_where_records_end_and_nowhere_else(text: str, quote: str | None) -> None:
    def records(part: str) -> list[list[str]]:
        quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
        return list(csv.reader(io.StringIO(part, newline=""), quotechar=quote, quoting=quoting))

    end = CsvCutter(",", quote).end(text)
    assert records(text[:end]) + records(text[end:]) == records(text)
    assert "\n" not in text[end:] or '"' in text[end:]


def test_a_quote_in_the_middle_of_a_value_hides_no_line_break() -> None:
    lines = [f'{number},5" pipe\n' for number in range(200_000)]
    cutter = CsvCutter()
    text = "".join(lines)
    assert cutter.end(text + "1,half") == len(text)
    assert cutter.end('"' + "x\n" * 100_000) == 0


@pytest.mark.parametrize(
    ("content", "definition", "rows"),
    [
        ("a;b\r\n1;2\r\n", {"delimiter": ";"}, [("1", "2")]),
        ("report of May\n\na,b\n1,2\n", {"skip_lines": 2}, [("1", "2")]),
        ("1,2\n3,4\n", {"header": ("a", "b")}, [("1", "2"), ("3", "4")]),
        ("title\n1,2\n", {"header": ("a", "b"), "skip_lines": 1}, [("1", "2")]),
        ("a,b\n1,2", {"final_newline": False}, [("1", "2")]),
        ("a,b\r1,2\r", {}, [("1", "2")]),
        ("a,b\n\n1,2\n\n", {}, [("1", "2")]),
        ("a,b\n", {}, []),
        ("", {}, []),
        ("\ufeff", {}, []),
        ("a,b\n1,NA\n", {"nulls": ("NA",)}, [("1", None)]),
        ("a,b\n1," + "x" * 200_000 + "\n", {}, [("1", "x" * 200_000)]),
    ],
)
def test_dialects_of_csv(content: str, definition: dict[str, Any], rows: list[tuple[str | None, ...]]) -> None:
    stream = CsvStream(**KEY, pattern="*", **definition)
    for size in (3, 1000, 1 << 20):
        assert [tuple(row.values()) for row in parsed(stream, content.encode(), size)] == rows


documents = st.dictionaries(
    st.sampled_from(["a", "b", "c d"]),
    st.none() | st.booleans() | st.integers() | cells | st.lists(st.integers(), max_size=2),
    min_size=1,
)


@given(st.lists(documents, max_size=5), st.integers(1, 9), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_a_file_of_json_lines_comes_out_as_it_was_written(
    found: list[dict[str, Any]], size: int, newline: str, has_mark: bool
) -> None:
    lines = [json.dumps(document, ensure_ascii=False) for document in found]
    content = (("\ufeff" if has_mark else "") + newline.join(lines)).encode()
    expected = parsed(JsonLinesStream(**KEY, pattern="*"), "".join(line + "\n" for line in lines).encode())
    assert parsed(JsonLinesStream(**KEY, pattern="*"), content, size) == expected
    assert len(expected) == len(found)


@given(
    st.lists(documents, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]), st.sampled_from(["", "r", "r.s"])
)
def test_a_json_file_comes_out_as_it_was_written(
    found: list[dict[str, Any]], size: int, indent: int | None, path: str
) -> None:
    document: Any = found
    for name in reversed(path.split(".") if path else []):
        document = {"before": [{"r": 1}], name: document, "after": 'x"]}'}
    content = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    lines = "".join(json.dumps(each) + "\n" for each in found).encode()
    rows = parsed(JsonStream(**KEY, pattern="*", records=path), content, size)
    assert [plain(row) for row in rows] == [plain(row) for row in parsed(JsonLinesStream(**KEY, pattern="*"), lines)]


def plain(row: dict[str, str | None]) -> dict[str, Any]:
    """Without the layout of lists."""
    return {name: value.replace(" ", "") if value else value for name, value in row.items()}


@pytest.mark.parametrize(
    ("document", "path", "why"),
    [
        ('{"a":[]}', "b", "has no b"),
        ('{"a":{"c":[]}}', "a.b", "has no b"),
        ("{}", "a", "has no a"),
        ('{"a":[],"a":[]}', "a", "has a twice"),
        ('{"a":null}', "a", "has no list where its records should be"),
        ("[]", "a", "has no object where a should be"),
        ('{"a":1}', "", "has no list"),
        ("[1][2]", "", "goes on after its end"),
        ("[1,]", "", "is no JSON"),
        ("[1 2]", "", "is no JSON"),
        ("[" * 100_000, "", "too deep"),
        ('["a\nb"]', "", "is no JSON"),
        ("", "", "ends in the middle"),
    ],
)
def test_a_json_file_without_its_records_is_refused(document: str, path: str, why: str) -> None:
    for size in (1, 3, 1 << 20):
        with pytest.raises(MalformedResponseError, match=f"^f {why}|f .*{why}"):
            parsed(JsonStream(**KEY, pattern="*", records=path), document.encode(), size)


def test_a_value_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.documents.array._LONGEST", 10_000)
    array = JsonArray([])
    list(array.feed('["'))
    with pytest.raises(ValueError, match="a value of more than"):
        [list(array.feed("x" * 1000)) for _ in range(1000)]


ROWS = [{"a": 1, "b": 'x, "y"\nz'}, {"a": 2, "b": "ä"}, {"a": 3, "b": "last"}]


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def csv_bytes(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def gzipped(content: bytes) -> bytes:
    """Of two members, as `cat a.gz b.gz` makes."""
    half = len(content) // 2
    return gzip.compress(content[:half]) + gzip.compress(content[half:])


def zstandardized(content: bytes) -> bytes:
    """Of two frames, with the checksum that the command line tool writes."""
    half = len(content) // 2
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    return compressor.compress(content[:half]) + compressor.compress(content[half:])


FORMATS: dict[str, tuple[FileStream, bytes]] = {
    "csv": (CsvStream(**KEY, pattern="*"), csv_bytes(ROWS)),
    "jsonl": (JsonLinesStream(**KEY, pattern="*"), "".join(json.dumps(row) + "\n" for row in ROWS).encode()),
    "json": (JsonStream(**KEY, pattern="*", records="r.s"), json.dumps({"r": {"s": ROWS}, "n": 3}).encode()),
    "parquet": (ParquetStream(**KEY, pattern="*"), parquet(pa.Table.from_pylist(ROWS))),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"": lambda content: content, ".gz": gzipped, ".zst": zstandardized}
EXPECTED = [{"a": str(row["a"]), "b": row["b"]} for row in ROWS]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_anywhere_is_never_taken_for_whole(tmp_path: Path, kind: str, compression: str) -> None:
    """Whether lines are missing at the end, only compression tells: at the end of a line, a plain file is whole."""
    stream, plain_content = FORMATS[kind]
    content = COMPRESSIONS[compression](plain_content)
    path = tmp_path / f"f.{kind}{compression}"
    path.write_bytes(content)
    assert read(tmp_path, stream) == (EXPECTED, [])
    named = []
    for end in range(len(content)):
        path.write_bytes(content[:end])
        try:
            rows, rejected = read(tmp_path, stream)
        except MalformedResponseError as error:
            named.append(error.what.startswith(f"{path.name} "))
            continue
        assert kind in ("csv", "jsonl")
        assert compression == ""
        assert rejected == []
        assert rows == EXPECTED[: len(rows)], "whole records, and nothing else"
        assert end == 0 or content[:end].endswith((b"\n", b"\r", b"}"))
    assert all(named)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_bit_that_fell_over_is_noticed_or_harms_one_row(tmp_path: Path, kind: str, compression: str) -> None:
    """Checksums notice any; without one, what is still of its format cannot be told from what was meant."""
    stream, plain_content = FORMATS[kind]
    content = COMPRESSIONS[compression](plain_content)
    path = tmp_path / f"f.{kind}{compression}"
    choose = random.Random(7)
    for _ in range(150):
        place = choose.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << choose.randrange(8)]) + content[place + 1 :])
        try:
            rows, rejected = read(tmp_path, stream)
        except (MalformedResponseError, ContractViolationError):
            continue
        if compression:
            assert (rows, rejected) == (EXPECTED, []), "a bit that means nothing, such as the time in a gzip header"


def test_compression_is_what_the_name_says(tmp_path: Path) -> None:
    content = csv_bytes(ROWS)
    stream = CsvStream(**KEY, pattern="*")
    for name, data, why in (
        ("f.csv.gz", content, "f.csv.gz is named as gzip and is not"),
        ("f.csv.gz", zstandardized(content), "f.csv.gz is named as gzip and is zstd"),
        ("f.csv", gzipped(content), "f.csv is gzip, which its name does not say"),
        ("f.csv", b"PK\x03\x04 and so on", "f.csv is zip, which is not read"),
        ("f.csv.gz", gzipped(content) + b"more", "f.csv.gz is damaged gzip"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(MalformedResponseError, match=why):
            read(tmp_path, stream)
        path.unlink()
    (tmp_path / "F.CSV.GZ").write_bytes(gzipped(content) + bytes(512))  # a tape's padding
    assert read(tmp_path, stream) == (EXPECTED, [])


BOMB_BYTES = 256 << 20


def bomb(name: str) -> bytes:
    """A great many zeros."""
    if name == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        return b"".join([packer.compress(bytes(1 << 20)) for _ in range(BOMB_BYTES >> 20)] + [packer.flush()])
    writer = zstandard.ZstdCompressor(1).compressobj(BOMB_BYTES)
    return b"".join([writer.compress(bytes(1 << 20)) for _ in range(BOMB_BYTES >> 20)] + [writer.flush()])


@pytest.mark.parametrize(("name", "ending"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_a_bomb_goes_off_in_little_room(name: str, ending: str) -> None:
    data = bomb(name)
    assert len(data) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(BadCompressionError, match="becomes more than 500 times as large as it is"):
            [len(block) for block in decompressed(iter([data]), f"x{ending}", max_expansion=500)]
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("weather-{date}.csv", "weather-2013-01-01.csv", True),
        ("weather-{date}.csv", "weather-2013-01-01.csv.part", False),
        ("weather-{date}.csv", "old/weather-2013-01-01.csv", False),
        ("in/*.csv", "in/a b.csv", True),
        ("in/*.csv", "in/.a.csv", False),
        ("in/*.csv", "in/sub/a.csv", False),
        ("in/a*.csv", "in/a.csv", True),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv", True),
        ("**/*.csv", "x/.hidden/a.csv", False),
        ("day={date}/part-*.parquet", "day=2013-01-01/part-0.parquet", True),
        ("a+b.csv", "aab.csv", False),
    ],
)
def test_a_pattern_means_what_it_says(pattern: str, path: str, matches: bool) -> None:
    assert bool(compiled(pattern).fullmatch(path)) is matches


def test_days_that_are_looked_for_where_files_are_not_listed() -> None:
    today = date(2024, 3, 1)
    assert [day.isoformat() for day in dates(None, 3, today)] == [
        "2024-02-28",
        "2024-02-29",
        "2024-03-01",
        "2024-03-02",
    ]
    window = Window(datetime(2024, 1, 5, tzinfo=UTC), datetime(2024, 1, 6, tzinfo=UTC))
    assert [day.day for day in dates(window, 3, today)] == [4, 5, 6], "as a folder's files are chosen"


@pytest.mark.parametrize(
    ("definition", "what"),
    [
        ({"event_time": "at"}, "cannot be told apart by date"),
        ({"cursor": Cursor("at")}, "reads files and has a cursor"),
        ({"write": WriteDisposition.REPLACE}, "reads files and is `replace`"),
        ({"deletes": Deletes()}, "reads files and names deletes"),
        ({"pattern": "{date}/{date}"}, "has {date} twice"),
        ({"days": 0}, "has days=0"),
        ({"delimiter": "||"}, "has delimiter='||'"),
        ({"quote": ","}, "not the other's"),
        ({"quote": "\n"}, "Each is one character"),
        ({"encoding": "klingon"}, "`klingon`, which is no encoding"),
        ({"encoding": "base64"}, "`base64`, which is no encoding"),
        ({"skip_lines": -1}, "skips -1 lines"),
        ({"landing": LandingFormat.PARQUET}, "cannot land as `parquet`"),
    ],
)
def test_a_definition_that_cannot_work_is_refused(definition: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CsvStream(**{**KEY, "pattern": "*.csv", **definition})
    assert what in str(caught.value)


def test_the_sources_in_the_manual_are_sources() -> None:
    manual = (Path(__file__).parents[3] / "docs/files.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", manual, re.DOTALL) if "FilesSource(" in block]
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102 - the manual's own example
    assert isinstance(names["partners"], FilesSource)
    assert [each.environment_variable for each in names["rates"].requirements] == [
        "HEADWATER_RATES_URL",
        "HEADWATER_RATES_KEY",
    ]


def test_the_way_to_the_records_is_written_as_for_an_api() -> None:
    assert JsonStream(**KEY, pattern="*", records='"@odata.x".value').path == ["@odata.x", "value"]
    with pytest.raises(ConfigurationError, match="`a..b` is no path into a body"):
        JsonStream(**KEY, pattern="*", records="a..b")


def test_what_landed_in_another_format_is_not_read_as_this_one() -> None:
    with pytest.raises(HeadwaterError, match="What landed is CSV, and the stream's files are JSON"):
        parser_of(JsonStream(**KEY, pattern="*"), LandingFormat.CSV, (), ())
