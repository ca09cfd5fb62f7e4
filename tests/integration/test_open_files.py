"""A system that allows few open files: what is connected keeps working, what is too much is told so."""

from __future__ import annotations

import http.client
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.house import ROOT, House, until

HARD, POOL = 320, 16


@pytest.mark.timeout(200)
def test_connections_beyond_the_systems_limit_are_turned_away_and_the_others_are_served(
    tmp_path: Path,
) -> None:
    env = {
        "NIGHTPORTER_LIMITS_POOL_SIZE": str(POOL),
        "NIGHTPORTER_PUBLIC_PATHS": "/open/",
        "NIGHTPORTER_TIMEOUTS_HEAD_S": "300",  # silent connections stay for as long as this takes
    }
    house = House(tmp_path, clock="real", env=env, start=False)
    log = house.replica.log.open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve"],
        env={"PYTHONPATH": str(ROOT), **house.replica.env},
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (HARD // 2, HARD)),
    )
    house.replica._process = process
    socks: list[socket.socket] = []
    try:
        until(house.replica.ready)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(rf"Max open files +{HARD} +{HARD} ", limits)
        (said,) = house.replica.events("too_few_open_files")
        assert said["allowed"] == HARD
        most = int(said["max_connections"])
        assert most < HARD - POOL
        first = http.client.HTTPConnection("127.0.0.1", house.replica.port, timeout=60)
        first.request("GET", "/open/kept")
        assert first.getresponse().read()
        port = house.replica.port
        socks.extend(socket.create_connection(("127.0.0.1", port), 60) for _ in range(HARD + 40))
        refused = [sock for sock in socks[most:] if sock.recv(64).startswith(b"HTTP/1.1 503 ")]
        assert len(refused) == len(socks) - most
        first.request("GET", "/open/still")
        assert first.getresponse().status == 200
        assert house.replica.metric("nightporter_connections_taken_total", result="refused") >= len(refused)
        for sock in socks:
            sock.close()
        until(lambda: house.replica.metric("nightporter_connections") <= 1)
        again = http.client.HTTPConnection("127.0.0.1", house.replica.port, timeout=60)
        again.request("GET", "/open/again")
        assert again.getresponse().status == 200
        again.close()
        first.close()
    finally:
        for sock in socks:
            sock.close()
        log.close()
        house.end()
