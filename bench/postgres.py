"""PostgreSQL → raw: one large table, eight mixed ones, a merge of 1 % changes, and a run that finds nothing new.

The limit of a full load is `psql` piping a binary COPY into another: no landing, no key, no commit of anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from psycopg import sql

from bench.results import Result
from bench.scene import PSQL, Scene, Timed, shell, timed

PIPE = "psql COPY binary | psql COPY binary"


@dataclass(frozen=True, slots=True)
class Table:
    """A table to generate: its columns, and their values by row number `n`."""

    name: str
    key: str
    columns: str
    values: str
    cursor: str | None = None
    share: float = 1.0
    """Of the rows asked for."""

    @property
    def stream(self) -> str:
        return f"{self.name}:{self.key}" + (f":{self.cursor}" if self.cursor else "")


LINEITEM = Table(
    "lineitem",
    "l_orderkey,l_linenumber",
    "l_orderkey bigint, l_linenumber int, l_partkey int, l_suppkey int, l_quantity numeric(15,2),"
    " l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2), l_returnflag char(1),"
    " l_linestatus char(1), l_shipdate date, l_commitdate date, l_receiptdate date, l_shipinstruct char(25),"
    " l_shipmode char(10), l_comment varchar(44), l_changed timestamptz",
    "n / 4, n % 4, abs(hashint4(n)) % 200000, abs(hashint4(n + 1)) % 10000, n % 50, n % 100000 / 7.0 + 900,"
    " n % 11 / 100.0, n % 9 / 100.0, substr('ANR', n % 3 + 1, 1), substr('OF', n % 2 + 1, 1),"
    " date '1992-01-01' + n % 2500, date '1992-01-01' + n % 2501, date '1992-01-01' + n % 2502, 'DELIVER IN PERSON',"
    " 'TRUCK', substr(md5(n::text) || md5((n + 1)::text), 1, 10 + n % 34),"
    " timestamptz '2020-01-01Z' + n * interval '1 second'",
    cursor="l_changed",
)
"""The shape of TPC-H's largest table, with an instant of its last change."""

MIXED = (
    Table("narrow", "id", "id bigint, value int", "n, n % 1000", share=0.3),
    Table(
        "wide",
        "id",
        "id bigint, " + ", ".join(f"c{i} int" for i in range(60)),
        "n, " + ", ".join(f"n % {i + 2}" for i in range(60)),
        share=0.05,
    ),
    Table("texts", "id", "id bigint, body text", "n, repeat(md5(n::text), 30)", share=0.05),
    Table("documents", "id", "id bigint, doc jsonb", "n, jsonb_build_object('n', n, 'm', md5(n::text))", share=0.1),
    Table(
        "sparse",
        "id",
        "id bigint, a text, b numeric, c timestamptz, d date",
        "n, case when n % 7 = 0 then 'x' end, case when n % 11 = 0 then n end, case when n % 2 = 0 then now() end,"
        " null",
        share=0.1,
    ),
    Table(
        "uuids",
        "id",
        "id uuid, at timestamptz, tags text[]",
        "md5(n::text)::uuid, now(), array['a', md5(n::text)]",
        share=0.1,
    ),
    Table("floats", "id", "id bigint, x double precision, y real", "n, n / 7.0, n / 3.0", share=0.2),
    Table("small", "id", "id int, name text", "n, 'country ' || n", share=0.00005),
)


def fill(scene: Scene, table: Table, rows: int) -> int:
    """Generate a table; how many rows it has."""
    count = max(200, int(rows * table.share))
    with scene.connect("source") as connection:
        connection.execute(f"create table {table.name} ({table.columns})".encode())
        connection.execute(
            f"insert into {table.name} select {table.values} from generate_series(1, {count}) n".encode()
        )
        connection.execute(f"alter table {table.name} add primary key ({table.key})".encode())
        if table.cursor:
            connection.execute(f"create index on {table.name} ({table.cursor})".encode())
        connection.execute(f"vacuum (freeze, analyze) {table.name}".encode())
    return count


def pipe(scene: Scene, tables: tuple[Table, ...]) -> float:
    """Seconds of the limit, one table after the other."""
    scene.fresh_database("pipe")
    with scene.connect("pipe") as connection:
        for table in tables:
            connection.execute(f"create table {table.name} ({table.columns})".encode())
    scene.settle()
    return sum(
        shell(
            f"{PSQL} -qXc 'copy {table.name} to stdout (format binary)' {scene.plain('source')}"
            f" | {PSQL} -qXc 'copy {table.name} from stdin (format binary)' {scene.plain('pipe')}"
        )
        for table in tables
    )


def load(scene: Scene, tables: tuple[Table, ...]) -> Timed:
    scene.settle()
    return timed("bench.load", *(table.stream for table in tables), environment=scene.environment)


def run(scene: Scene, rows: int, rounds: int) -> Iterator[Result]:
    """The benchmarks, one after the other."""
    count = fill(scene, LINEITEM, rows)
    full = _against_pipe(scene, "postgres_full", (LINEITEM,), count, rounds)
    yield full
    yield from _increments(scene, count, full)
    small = count // 10
    with scene.connect("source") as connection:
        connection.execute("drop table lineitem")
    fill(scene, LINEITEM, small)
    scene.fresh_warehouse()
    tenth = load(scene, (LINEITEM,))
    # As a ratio of sizes: what ten times the rows weigh beside these.
    yield Result("postgres_memory", count, full.wall_s, tenth.wall_s, full.peak_mb / tenth.peak_mb, full.peak_mb,
                 f"peak memory at {small:,} rows: {tenth.peak_mb:.0f} MiB")  # fmt: skip
    mixed = sum(fill(scene, table, rows) for table in MIXED)
    yield _against_pipe(scene, "postgres_mixed", MIXED, mixed, rounds)


def _against_pipe(scene: Scene, name: str, tables: tuple[Table, ...], rows: int, rounds: int) -> Result:
    limits, loads = [], []
    for _ in range(rounds):
        limits.append(pipe(scene, tables))
        scene.fresh_warehouse()
        loads.append(load(scene, tables))
    _check_rows(scene, tables, rows)
    return Result(
        name,
        rows,
        median(each.wall_s for each in loads),
        median(limits),
        median(each.wall_s / limit for each, limit in zip(loads, limits, strict=True)),
        max(each.peak_mb for each in loads),
        PIPE,
    )


def _increments(scene: Scene, rows: int, full: Result) -> Iterator[Result]:
    """On the warehouse that the last full load has left."""
    with scene.connect("source") as connection:
        changed = connection.execute(
            "update lineitem set l_quantity = l_quantity + 1, l_changed = clock_timestamp() where l_orderkey % 100 = 7"
        ).rowcount
        connection.execute("vacuum analyze lineitem")
    limit = f"the full load of {rows:,} rows"
    merged = load(scene, (LINEITEM,))
    if merged.said["written"] != changed:
        raise SystemExit(f"{merged.said['written']:,} rows were written, and {changed:,} had changed")
    yield Result(
        "merge_1_percent", changed, merged.wall_s, full.wall_s, merged.wall_s / full.wall_s, merged.peak_mb, limit
    )
    none = load(scene, (LINEITEM,))
    if none.said["written"] != 0:
        raise SystemExit(f"{none.said['written']:,} rows were written, and none had changed")
    yield Result("no_change", 0, none.wall_s, full.wall_s, none.wall_s / full.wall_s, none.peak_mb, limit)


def _check_rows(scene: Scene, tables: tuple[Table, ...], expected: int) -> None:
    """A load that is fast because it left something out is none."""
    with scene.connect("warehouse") as connection:
        found = sum(
            connection.execute(
                sql.SQL("select count(*) from {}").format(sql.Identifier("raw_bench", table.name))
            ).fetchone()[0]  # type: ignore[index]  # an aggregate has one row
            for table in tables
        )
    if found != expected:
        raise SystemExit(f"raw has {found:,} rows of {expected:,}")
