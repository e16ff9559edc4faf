"""By which addresses others can reach this machine."""

from __future__ import annotations

import socket

from connectors.http.addresses import is_loopback


def own_addresses() -> list[str]:
    """Addresses of this machine that are not loopback, as far as they can be found out."""
    found: set[str] = set()
    try:
        import psutil

        for addresses in psutil.net_if_addrs().values():
            found |= {each.address for each in addresses if each.family == socket.AF_INET}
    except ImportError:  # it comes with the extra `local`
        try:
            found |= {str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        except OSError:
            return []
    return sorted(each for each in found if not is_loopback(each))
