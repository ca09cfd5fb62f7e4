"""Workers on one inherited listening socket: nobody is refused while they are replaced one by one."""

from __future__ import annotations

import asyncio
import base64
import http.client
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.shell.crew import merged
from tests.redis.servers import RedisServer, redis_server
from tests.scenarios.house import House, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def crew_of(redis: RedisServer, home: Path) -> House:
    return House(home, store=redis.url, clock="real", env={"NIGHTPORTER_WORKERS": "2"})


def workers(house: House) -> set[int]:
    return {
        int(pid)
        for pid in Path(f"/proc/{house.replica.pid}/task/{house.replica.pid}/children").read_text().split()
    }


def replaced(house: House, before: set[int]) -> bool:
    now = workers(house)
    return len(now) == 2 and not now & before


class Crowd:
    """Keep-alive clients, each of which now and then comes back on a new connection."""

    def __init__(self, house: House, cookie: str) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self.ending = False
        self._port = house.replica.port
        self._head = f"Host: 127.0.0.1:{house.replica.port}\r\nCookie: {cookie}\r\n".encode()

    async def client(self, number: int) -> None:
        reader = writer = None
        count = 0
        while not self.ending:
            count += 1
            try:
                if writer is None or count % (5 + number) == 0:
                    if writer is not None:
                        writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                assert reader is not None
                writer.write(b"GET /n%d HTTP/1.1\r\n%b\r\n" % (count, self._head))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
                await reader.readexactly(length)
                if not head.startswith(b"HTTP/1.1 200 "):
                    self.failures.append(head.decode("latin-1"))
                self.answered += 1
                if b"connection: close" in head.lower():
                    writer.close()
                    writer = None
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{type(error).__name__} {error}")
                writer = None
        if writer is not None:
            writer.close()


def test_replacing_the_workers_under_load_fails_no_request(redis: RedisServer, tmp_path: Path) -> None:
    with crew_of(redis, tmp_path) as house:
        ada = house.somebody()
        crowd = Crowd(house, ada.cookie)

        async def main() -> None:
            clients = [asyncio.create_task(crowd.client(number)) for number in range(12)]
            async with asyncio.timeout(200):
                for _ in range(2):
                    before, goal = workers(house), crowd.answered + 500
                    os.kill(house.replica.pid, signal.SIGUSR1)
                    while not replaced(house, before) or crowd.answered < goal:
                        await asyncio.sleep(0.05)
                crowd.ending = True
                await asyncio.gather(*clients)

        asyncio.run(main())
        assert crowd.failures == []
        assert crowd.answered >= 1_000
        assert ada.get("/after").user == "ada-1"
        assert house.replica.stop() == 0


def test_a_worker_that_dies_is_started_again_and_the_other_serves_meanwhile(
    redis: RedisServer, tmp_path: Path
) -> None:
    with crew_of(redis, tmp_path) as house:
        ada = house.somebody()
        before = workers(house)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in workers(house))
        assert ada.get("/meanwhile").user == "ada-1"
        until(lambda: len(workers(house)) == 2)
        assert house.replica.events("worker_died")
        assert ada.get("/again").user == "ada-1"
        until(lambda: len(house.replica.events("ready")) == 3)
        assert house.replica.stop() == 0
        assert len(house.replica.events("stopped")) == 2


def test_a_configuration_that_cannot_be_used_stops_nobody_who_serves(
    redis: RedisServer, tmp_path: Path
) -> None:
    """Its successors cannot start: the others go on, and it is tried again until it is mended."""
    keys = tmp_path / "keys"
    (tmp_path / "house").mkdir()
    keys.write_text(base64.urlsafe_b64encode(bytes(range(32))).decode())
    env = {
        "NIGHTPORTER_WORKERS": "2",
        "NIGHTPORTER_COOKIE_KEYS": "",
        "NIGHTPORTER_COOKIE_KEYS_FILE": str(keys),
    }
    with House(tmp_path / "house", store=redis.url, clock="real", env=env) as house:
        until(lambda: len(house.replica.events("ready")) == 2)
        ada = house.somebody()
        before = workers(house)
        keys.rename(tmp_path / "away")
        until(lambda: len(house.replica.events("configuration_refused")) >= 2)
        os.kill(house.replica.pid, signal.SIGUSR1)
        until(lambda: house.replica.events("not_replaced"))
        assert before <= workers(house)
        assert ada.get("/meanwhile").user == "ada-1"
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(house.replica.events("worker_died")) >= 3)  # its successors, too
        assert ada.get("/still").user == "ada-1"
        (tmp_path / "away").rename(keys)
        until(lambda: len(house.replica.events("ready")) == 3)
        before = workers(house)
        os.kill(house.replica.pid, signal.SIGUSR1)
        until(lambda: replaced(house, before))
        assert ada.get("/after").user == "ada-1"
        assert house.replica.stop() == 0


def test_a_worker_that_dies_while_its_successor_starts_holds_up_nobodys_replacement(
    redis: RedisServer, tmp_path: Path
) -> None:
    with crew_of(redis, tmp_path) as house:
        until(lambda: len(house.replica.events("ready")) == 2)
        before = workers(house)
        os.kill(house.replica.pid, signal.SIGUSR1)
        until(lambda: len(workers(house)) == 3)
        os.kill(min(before), signal.SIGKILL)
        until(lambda: replaced(house, before))
        assert house.somebody().get("/after").status == 200
        assert house.replica.stop() == 0


def runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_whose_supervisor_was_killed_finish_what_they_have_and_make_room(
    redis: RedisServer, tmp_path: Path
) -> None:
    with crew_of(redis, tmp_path) as house:
        until(lambda: len(house.replica.events("ready")) == 2)
        ada = house.somebody()
        orphans = workers(house)
        assert len(orphans) == 2
        sock = socket.create_connection(("127.0.0.1", house.replica.port), 60)
        with sock, sock.makefile("rb") as answer:
            sock.sendall(
                f"POST /half HTTP/1.1\r\nHost: 127.0.0.1:{house.replica.port}\r\nCookie: {ada.cookie}\r\n"
                f"Origin: {house.url}\r\nContent-Length: 10\r\n\r\nfirst".encode()
            )
            until(lambda: bool(house.app.reached("/half")))
            house.replica.kill()
            until(lambda: len(house.replica.events("supervisor_gone")) == 2)
            # Their place is free although one of them is still at work.
            house.replica.start()
            assert not workers(house) & orphans
            assert ada.get("/meanwhile").user == "ada-1"
            assert any(map(runs, orphans))
            sock.sendall(b"later")
            assert answer.readline().startswith(b"HTTP/1.1 200 ")
        until(lambda: not any(map(runs, orphans)))
        assert ada.get("/after").user == "ada-1"
        assert house.app.reached("/half")[0].body_bytes == 10
        assert house.replica.stop() == 0


def test_metrics_are_everybodys_whoever_is_asked(redis: RedisServer, tmp_path: Path) -> None:
    with crew_of(redis, tmp_path) as house:
        until(lambda: len(house.replica.events("ready")) == 2)
        ada = house.somebody()
        for _ in range(20):
            ada.get("/a")
        for _ in range(3):
            text = house.replica.operations("/metrics").text
            counts = re.findall(
                r'nightporter_requests_total\{worker="(\d)",decision="session",status="2xx"\} (\S+)', text
            )
            assert sum(float(count) for _, count in counts) >= 20
            assert len(re.findall(r"(?m)^# HELP nightporter_requests_total ", text)) == 1
            assert set(re.findall(r'nightporter_connections\{worker="(\d)",listener="public"\}', text)) == {
                "0",
                "1",
            }


def test_every_worker_lets_go_whichever_is_asked(redis: RedisServer, tmp_path: Path) -> None:
    with crew_of(redis, tmp_path) as house:
        until(lambda: len(house.replica.events("ready")) == 2)
        connections = [
            http.client.HTTPConnection("127.0.0.1", house.replica.port, timeout=30) for _ in range(24)
        ]
        for connection in connections:
            connection.request("GET", "/kept")
            connection.getresponse().read()
        assert house.replica.operations("/let-go").status < 300
        until(lambda: connections_of(house) == 0)
        for connection in connections:
            connection.close()


def connections_of(house: House) -> float:
    text = house.replica.operations("/metrics").text
    found = re.findall(r'nightporter_connections\{worker="\d",listener="public"\} (\S+)', text)
    assert len(found) == 2
    return sum(map(float, found))


def test_an_address_that_is_taken_is_a_configuration_error(redis: RedisServer, tmp_path: Path) -> None:
    with crew_of(redis, tmp_path / "first") as house:
        second = crew_of_at(redis, tmp_path / "second", house.replica.port)
        try:
            second.replica.begin()
            assert second.replica._process is not None
            assert second.replica._process.wait(60) == 2
            assert "cannot listen" in second.replica.log.read_text()
        finally:
            second.end()


def crew_of_at(redis: RedisServer, home: Path, port: int) -> House:
    env = {"NIGHTPORTER_WORKERS": "2", "NIGHTPORTER_LISTEN": f"127.0.0.1:{port}"}
    return House(home, store=redis.url, clock="real", env=env, start=False)


def test_figures_of_several_workers_are_one_exposition() -> None:
    text = b'# HELP a_total What.\n# TYPE a_total counter\na_total{x="1"} 2.0\n# HELP b Now.\n# TYPE b gauge\nb 3.0\n'
    assert merged({0: text, 1: text}).decode().splitlines() == [
        "# HELP a_total What.",
        "# TYPE a_total counter",
        'a_total{worker="0",x="1"} 2.0',
        'a_total{worker="1",x="1"} 2.0',
        "# HELP b Now.",
        "# TYPE b gauge",
        'b{worker="0"} 3.0',
        'b{worker="1"} 3.0',
    ]
