"""The health check of the image: asks for HEADWATER_HEALTH_URL, and exits 1 unless the answer is a success.

A container that has no such variable serves nothing; as long as it runs, it is well. Only the standard library is
imported: this runs every ten seconds in each container.
"""

from __future__ import annotations

import os
import sys
import urllib.request

_SECONDS = 4.0


def main() -> int:
    """The exit code."""
    url = os.environ.get("HEADWATER_HEALTH_URL")
    if not url:
        return 0
    # A proxy of the environment has no business between a container and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS):
            return 0
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
