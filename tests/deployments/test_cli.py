"""The command `headwater` as a process."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_does_not_load_prefect_before_it_knows_where_its_server_is() -> None:
    """Prefect takes its settings when it is imported: `headwater demo` would start a server of Prefect's own."""
    loaded = "import sys, deployments.cli; print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"
