"""Ports of this machine for a server that is told its port.

The kernel gives ports of its own range (32768 to 60999 on Linux) to whoever connects somewhere. A port of that range
that was free when a test looked may be the near end of another test's connection when the server binds it, so the ports
here are none of it.
"""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

_OF_THE_KERNEL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST, _END = 10_000, 65_536


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` neighbouring ports that nothing listens at, anywhere among those that can be had.

    `host` is the address that the server binds, "" for all. RuntimeError where there are none.
    """
    low, high = _kernel_range()
    usable = [*range(_FIRST, low - count), *range(max(_FIRST, high + 1), _END - count)] or range(_FIRST, _END - count)
    # Two processes that look at the same time begin at different places.
    for first in random.SystemRandom().choices(usable, k=200):
        if all(_is_free(host, port) for port in range(first, first + count)):
            return list(range(first, first + count))
    raise RuntimeError(f"no {count} neighbouring ports of {usable[0]} to {usable[-1]} are free")


def free_port() -> int:
    """A port of loopback."""
    return free_ports(1)[0]


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind((host, port))
        return True
    return False


def _kernel_range() -> tuple[int, int]:
    try:
        low, high = map(int, _OF_THE_KERNEL.read_text().split())
    except OSError:  # not Linux: IANA's range of such ports
        return 49_152, 65_535
    return low, high
