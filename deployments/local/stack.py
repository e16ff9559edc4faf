"""The local stack as one thing: bring it up, see how it is, take it down.

Promises: every method is idempotent, and safe while another process does the same; what one command started, any
later one finds, and nothing else is ever stopped. A command that was killed leaves a state that the next one
completes (`up`) or clears (`down`).

`up` is the usual order of things with places for the caller's own steps. The methods it is made of are public, to be
put together otherwise; those that do not depend on each other may run in threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from deployments.local import processes, services
from deployments.local.environment import (
    CHECK_DATABASE,
    PREFECT_DATABASE,
    WAREHOUSE,
    WAREHOUSE_CREATORS,
    WAREHOUSE_ROLES,
    prefect_variables,
    process_environment,
    role_name,
    stack_variables,
    write_environment_file,
)
from deployments.local.errors import LocalStackError
from deployments.local.files import SharedLock
from deployments.local.layout import PROJECT_ROOT, STACK_LOCK, log_file, prepare, remove
from deployments.local.ports import LOOPBACK, choose_port, holder, is_free
from deployments.local.postgres import LocalPostgres
from deployments.local.processes import Phase, ProcessRecord, Service
from deployments.local.secrets import Secrets
from deployments.local.server import PostgresServer
from deployments.local.state import State, StateFile

# Longer than any `up` takes; whoever waits that long is told who holds the lock.
_LOCK_SECONDS = 300.0

logger = logging.getLogger(__name__)

Step = Callable[["LocalStack"], None]
Systems = Callable[["LocalStack"], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as it is now. `condition` is for people: running, starting, not answering, failed, died, stopped."""

    name: str
    condition: str
    pid: int | None
    address: str | None
    since: datetime | None
    log: Path

    @property
    def is_healthy(self) -> bool:
        return self.condition == "running"


class LocalStack:
    """The stack of one home."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.postgres = LocalPostgres(self.home)
        self.secrets = Secrets(self.home)
        self._state = StateFile(self.home)
        self._lock = SharedLock(self.home / STACK_LOCK, timeout_seconds=_LOCK_SECONDS)

    @contextmanager
    def exclusive(self, doing: str) -> Iterator[None]:
        """Keep other processes from starting or stopping anything meanwhile; they wait for their turn."""
        prepare(self.home)
        with self._lock.hold(doing):
            yield

    def up(self, *, migrate: Step | None = None, systems: Systems | None = None, deploy: Step | None = None) -> Path:
        """Bring everything up and return the path of the environment file.

        The caller's steps each run as soon as what they need is there: `migrate` (the warehouse's schemas and grants)
        and `systems` (whatever else is to run; returns variables for the environment) once PostgreSQL answers, beside
        the Prefect server's start; `deploy` (blocks, work pool, deployments) when all of that is done; then the worker
        starts. The first error is raised when the steps beside it have ended; what runs goes on running.
        """
        with self.exclusive("bringing the local stack up"):
            self.start_postgres()
            found: dict[str, str] = {}
            steps: list[Callable[[], object]] = [self.start_prefect_server]
            if migrate is not None:
                steps.append(partial(migrate, self))
            if systems is not None:
                steps.append(lambda: found.update(systems(self)))
            _run_side_by_side(steps)
            self.secrets.set_variables(found)
            environment_file = self.write_environment()
            if deploy is not None:
                deploy(self)
            self.start_worker()
            self.start_watcher()
            return environment_file

    def down(self) -> tuple[str, ...]:
        """Stop everything; returns what had to be stopped, in order. The data stay."""
        if not self.home.exists():
            logger.info("nothing to stop: %s does not exist", self.home)
            return ()
        stopped = []
        errors = []
        with self.exclusive("taking the local stack down"):
            for record in sorted(self._state.read().processes.values(), key=_stopping_order):
                try:
                    if self._stop(record):
                        stopped.append(record.name)
                except LocalStackError as error:
                    errors.append(error)
            if self.postgres.stop():
                logger.info("stopped PostgreSQL")
                stopped.append("postgres")
        if errors:
            raise errors[0]
        if not stopped:
            logger.info("nothing was running")
        return tuple(stopped)

    def destroy(self) -> None:
        """Stop everything and delete the stack's state and databases, wherever they are. There is no way back."""
        if self.home.exists():
            with self.exclusive("destroying the local stack"):
                self.down()
                self.postgres.destroy()
                remove(self.home)

    def status(self) -> tuple[ServiceStatus, ...]:
        """How each service is, PostgreSQL first; empty before the first `up`."""
        state = self._state.read()
        if state.postgres_data is None and not state.processes:
            return ()
        return (self._postgres_status(), *(_status(record) for record in state.processes.values()))

    def start_postgres(self) -> PostgresServer:
        """Start PostgreSQL with the roles and databases of the warehouse and of Prefect."""
        with self.exclusive("starting PostgreSQL"):
            server = self.postgres.start()
            for role in WAREHOUSE_ROLES:
                server.ensure_role(role_name(role), self.secrets.password(role_name(role)))
            server.ensure_database(
                WAREHOUSE,
                role_name("owner"),
                connect=map(role_name, WAREHOUSE_ROLES),
                create=map(role_name, WAREHOUSE_CREATORS),
            )
            # The demo's clock; it moves when nobody is superuser any more.
            server.let_set("headwater.now", role_name("owner"))
            server.ensure_database(CHECK_DATABASE, role_name("owner"), connect=map(role_name, WAREHOUSE_ROLES))
            server.ensure_role(PREFECT_DATABASE, self.secrets.password(PREFECT_DATABASE))
            server.ensure_database(PREFECT_DATABASE, PREFECT_DATABASE)
            # Prefect's migrations take it for granted.
            server.ensure_extension("pg_trgm", PREFECT_DATABASE)
            return server

    def start_prefect_server(self) -> ProcessRecord:
        """Start the Prefect server and wait until its API answers. Needs PostgreSQL."""
        with self.exclusive("starting the Prefect server"):

            def service(port: int) -> Service:
                return services.prefect_server(
                    prefect_variables(self.home, port),
                    port=port,
                    postgres_port=self._postgres_port(),
                    password=self.secrets.password(PREFECT_DATABASE),
                )

            return self.start_on_port(services.PREFECT_SERVER, services.PREFECT_PORT, service)

    def start_worker(self) -> ProcessRecord:
        """Start the worker and wait until the server has heard from it. Needs the Prefect server."""
        return self.start_service(services.prefect_worker(self.environment(), temporary=self.home / "tmp"))

    def start_watcher(self) -> ProcessRecord:
        """Start the watcher. It needs nothing of the others: that they are there is what it looks at."""
        return self.start_service(services.watcher(self.environment()))

    def start_service(self, service: Service) -> ProcessRecord:
        """Start a service and wait until it is ready.

        One that runs already is left alone, unless it was started with another command or other variables: then it is
        restarted.
        """
        with self.exclusive(f"starting {service.name}"):
            record = self._state.read().processes.get(service.name)
            if record is None or not processes.is_running(record) or record.fingerprint != service.fingerprint:
                if record is not None and processes.stop(record):
                    logger.info("stopped %s, which ran with other settings or had left processes", service.name)
                record = processes.spawn(
                    service,
                    environment=process_environment(service.environment),
                    log=log_file(self.home, service.name),
                    folder=PROJECT_ROOT,
                )
                self._save(record)
                logger.info("starting %s (pid %d)", service.name, record.pid)
            try:
                processes.wait_until_ready(service, record)
            except LocalStackError:
                self._save(record.in_phase(Phase.FAILED))
                raise
            record = record.in_phase(Phase.RUNNING)
            self._save(record)
            return record

    def start_on_port(self, name: str, preferred: int, service: Callable[[int], Service]) -> ProcessRecord:
        """Start a service on a port: the one it had, else the preferred, else any; on another one if that is taken by
        somebody else while the service starts, as by a second stack that comes up beside this one.

        Args:
            service: makes it, for a port.
        """
        with self.exclusive(f"starting {name}"):
            for _attempt in range(3):
                port = self.port(name, preferred)
                try:
                    return self.start_service(service(port))
                except LocalStackError:
                    record = self._state.read().processes.get(name)
                    if is_free(port) or (record is not None and processes.is_running(record)):
                        raise
                    logger.info("port %d was taken in that moment by %s", port, holder(port))
            raise LocalStackError(
                f"{name} could not get a port: each one tried was taken while it started.",
                where=f"{LOOPBACK}:{port}, which now belongs to {holder(port)}",
                remedy="Run the same command again.",
            )

    def stop_service(self, name: str) -> bool:
        """Stop one service; True if it had to be ended."""
        if not self.home.exists():
            return False
        with self.exclusive(f"stopping {name}"):
            record = self._state.read().processes.get(name)
            return record is not None and self._stop(record)

    def port(self, service: str, preferred: int) -> int:
        """The port for a service: the one it has while it runs, else one settled now and remembered."""

        def settle(state: State) -> State:
            record = state.processes.get(service)
            if service in state.ports and record is not None and processes.is_running(record):
                return state
            others = frozenset(number for name, number in state.ports.items() if name != service)
            remembered = state.ports.get(service)
            choice = choose_port(preferred, remembered=remembered, avoid=others)
            if choice.number != remembered:
                logger.info("%s gets %s", service, choice.reason)
            return state.with_port(service, choice.number)

        return self._state.update(settle).ports[service]

    def environment(self) -> dict[str, str]:
        """The variables for everything that works with this stack (see environment.py). They include passwords."""
        return stack_variables(
            self.home,
            postgres_port=self._postgres_port(),
            prefect_port=self.port(services.PREFECT_SERVER, services.PREFECT_PORT),
            secrets=self.secrets,
        )

    def write_environment(self) -> Path:
        """Write the variables as a file for a shell to source, and return its path."""
        path = self.home / "env"
        write_environment_file(path, self.environment())
        return path

    def _postgres_status(self) -> ServiceStatus:
        log = log_file(self.home, "postgres")
        try:
            server = self.postgres.server(patience_seconds=2.0)
        except LocalStackError:
            return ServiceStatus("postgres", "not answering", None, None, None, log)
        if server is None:
            return ServiceStatus("postgres", "stopped", None, None, None, log)
        address = f"{server.host}:{server.port}"
        return ServiceStatus("postgres", "running", server.pid, address, server.started_at, log)

    def _postgres_port(self) -> int:
        port = self._state.read().ports.get("postgres")
        if port is None:
            raise LocalStackError(
                "The local stack has no database yet.", where=str(self.home), remedy="Start the local stack first."
            )
        return port

    def _stop(self, record: ProcessRecord) -> bool:
        was_running = processes.stop(record)
        if was_running:
            logger.info("stopped %s", record.name)
        if record.is_optional:
            self._state.update(lambda state: state.without_process(record.name))
        else:
            self._save(record.in_phase(Phase.STOPPED))
        return was_running

    def _save(self, record: ProcessRecord) -> None:
        self._state.update(lambda state: state.with_process(record))


def _stopping_order(record: ProcessRecord) -> int:
    """The watcher first, whom all that follows would alarm; then the worker, while its runs can still report to the
    server; the server after all who may talk to it."""
    return {services.WATCHER: 0, services.PREFECT_WORKER: 1, services.PREFECT_SERVER: 3}.get(record.name, 2)


def _status(record: ProcessRecord) -> ServiceStatus:
    address = None if record.health_url is None else "{0.scheme}://{0.netloc}".format(urlsplit(record.health_url))
    if not processes.is_running(record):
        condition = record.phase.value if record.phase in {Phase.STOPPED, Phase.FAILED} else "died"
        return ServiceStatus(record.name, condition, None, address, None, record.log)
    url = record.health_url
    is_working = record.phase is Phase.RUNNING if url is None else processes.answers(url)
    condition = "running" if is_working else "starting" if record.phase is Phase.STARTING else "not answering"
    return ServiceStatus(record.name, condition, record.pid, address, record.started_at, record.log)


def _run_side_by_side(steps: Sequence[Callable[[], object]]) -> None:
    """Run the steps in threads; when all have ended, raise the first error. Further ones are logged.

    In threads that end with the process: whoever presses Ctrl-C need not wait until the Prefect server is up.
    """
    errors: list[BaseException] = []

    def run(step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 (raised again below, where somebody hears it)
            errors.append(error)

    threads = [threading.Thread(target=run, args=[step], daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors[1:]:
        logger.error("%s", error)
    if errors:
        raise errors[0]
