"""How far one Prefect server goes: runs of ten tasks, begun by two clients as fast as they can, until all of it is in
the server's database; against as many rows that are committed one by one.

A run of the local stack's own server on its own PostgreSQL, on a machine that has the clients too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

import psutil

from bench.results import Result
from bench.scene import Scene
from deployments.local.environment import process_environment
from deployments.local.server import PostgresServer
from deployments.local.stack import LocalStack

_TASKS = 10
_CLIENTS = 2
_SECONDS = 600.0
"""How long the server may take to write down what it was told."""


def run(scene: Scene, runs: int, rounds: int) -> Iterator[Result]:
    """The benchmark: `runs` flow runs a round, after some that nobody counts."""
    stack = LocalStack(scene.home / "server")
    try:
        postgres = stack.start_postgres()
        server = psutil.Process(stack.start_prefect_server().pid)
        _work(stack, postgres, 2 * _CLIENTS)
        walls, limits, cpu, sizes = [], [], [], [_size(postgres)]
        for _ in range(rounds):
            limits.append(_commits(postgres, runs * (_TASKS + 1)))
            before = _cpu(server, postgres)
            walls.append(_work(stack, postgres, runs))
            cpu.append((_cpu(server, postgres) - before) / (runs * (_TASKS + 1)))
            sizes.append(_size(postgres))
        grown = (sizes[-1] - sizes[0]) / (rounds * runs) / 1024
        yield Result(
            "server_task_runs",
            runs * _TASKS,
            median(walls),
            median(limits),
            median(wall / limit for wall, limit in zip(walls, limits, strict=True)),
            server.memory_info().rss / 2**20,
            f"as many rows committed one by one; {60 * runs / median(walls):.0f} runs of {_TASKS} tasks a minute, "
            f"{1000 * median(cpu):.0f} ms of CPU each flow or task run, {grown:.0f} kB of database each flow run",
        )
    finally:
        stack.destroy()


def _work(stack: LocalStack, postgres: PostgresServer, runs: int) -> float:
    """Seconds from the first run until the server has written down the last task of the last one."""
    expected = _recorded(postgres) + runs * _TASKS
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.server", str(runs // _CLIENTS)],
            env=process_environment(stack.environment()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(_CLIENTS)
    ]
    for client in clients:
        assert client.stdout is not None  # noqa: S101 - asked for
        client.stdout.readline()
    begun = time.monotonic()
    for client in clients:
        assert client.stdin is not None  # noqa: S101 - asked for
        client.stdin.write("go\n")
        client.stdin.flush()
    while _recorded(postgres) < expected:
        if time.monotonic() - begun > _SECONDS:
            raise TimeoutError(f"The server has not written down all {expected} task runs: {_recorded(postgres)}.")
        time.sleep(0.2)
    wall = time.monotonic() - begun
    for client in clients:
        if client.wait():
            raise subprocess.CalledProcessError(client.returncode, client.args)
    return wall


def _recorded(postgres: PostgresServer) -> int:
    with postgres.connect("prefect") as connection:
        row = connection.execute("select count(*) from task_run where state_type = 'COMPLETED'").fetchone()
    assert row is not None  # noqa: S101 - a count
    return int(row[0])


def _size(postgres: PostgresServer) -> int:
    with postgres.connect("prefect") as connection:
        connection.execute("vacuum")
        row = connection.execute("select pg_database_size('prefect')").fetchone()
    assert row is not None  # noqa: S101 - a size
    return int(row[0])


def _commits(postgres: PostgresServer, rows: int) -> float:
    with postgres.connect() as connection:
        connection.execute("create table if not exists limits (id bigint generated always as identity, text text)")
        begun = time.monotonic()
        for _ in range(rows):
            connection.execute("insert into limits (text) values (%s)", ["x" * 200])
        return time.monotonic() - begun


def _cpu(server: psutil.Process, postgres: PostgresServer) -> float:
    """Seconds that the server and its PostgreSQL have computed for, so far."""
    leader = psutil.Process(postgres.pid)
    total = 0.0
    for process in (server, leader, *leader.children()):
        times = process.cpu_times()
        total += times.user + times.system
    times = leader.cpu_times()
    return total + times.children_user + times.children_system


def _client(runs: int) -> None:
    """One that begins runs: imported first, then it waits for a line."""
    import logging

    from prefect import flow, task

    logging.disable(logging.WARNING)

    @task
    def step(number: int) -> int:
        return number

    @flow
    def steps() -> None:
        for number in range(_TASKS):
            step(number)

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for _ in range(runs):
        steps()


if __name__ == "__main__":
    _client(int(sys.argv[1]))
