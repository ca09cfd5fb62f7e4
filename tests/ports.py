"""Ports that stay ours while the server behind them is away."""

from __future__ import annotations

import random
import socket
from pathlib import Path


def free_port() -> int:
    """A loopback port that nobody listens on, from below the kernel's ephemeral range.

    Tests stop servers and start them again on the same port; in between, a port of the
    ephemeral range could become the source port of anybody's outgoing connection.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(200):
        port = random.randrange(10_000, lowest)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port on loopback")
