"""A provider with as many people as come, and crowds of them signing in."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from tests.op.scripted import ScriptedOP

AT_ONCE = 8
ANSWER_S = 30.0
EACH_S = 0.05
"""A peer that leaves somebody waiting for longer, or the crowd (seen: Envoy's oauth2 filter, after thousands), has no
figure; the run goes on. The slowest of the others needs a third of that for each."""
_NAVIGATION = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nAccept: text/html\r\n"


class CrowdOP(ScriptedOP):
    """Everybody who comes is somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self._came = 0

    def _authorize(self, request: Any) -> Any:
        self._came += 1
        self.user = {**self.user, "sub": f"user-{self._came}", "email": f"user-{self._came}@example.com"}
        return super()._authorize(request)


def sign_in(port: int, people: int) -> None:
    """So many people sign in, each through the provider and back to a page.

    Raises:
        AssertionError: somebody did not arrive.
        OSError: an answer broke off or did not come.
    """

    async def some(turns: list[None]) -> None:
        while turns:
            turns.pop()
            await _one(port)

    async def all_of_them() -> None:
        turns: list[None] = [None] * people
        async with asyncio.timeout(ANSWER_S + EACH_S * people):
            await asyncio.gather(*(some(turns) for _ in range(AT_ONCE)))

    asyncio.run(all_of_them())


async def _one(port: int) -> None:
    origin = f"http://127.0.0.1:{port}"
    url, jar = f"{origin}/page", dict[str, str]()
    for _ in range(10):
        parts = urlsplit(url)
        ours = parts.port == port
        try:
            async with asyncio.timeout(ANSWER_S):
                status, headers = await _get(
                    parts.port or 80, url[len(f"http://{parts.netloc}") :], jar if ours else {}
                )
        except EOFError as error:
            raise ConnectionError("an answer broke off") from error
        for value in headers.get("set-cookie", []) if ours else []:
            name, _, content = value.partition(";")[0].partition("=")
            if content and "max-age=0" not in value.lower():
                jar[name] = content
            else:
                jar.pop(name, None)
        if status == 200:
            assert ours, url
            return
        assert status in (302, 303, 307), (status, url)
        location = headers["location"][0]
        url = f"http://{parts.netloc}{location}" if location.startswith("/") else location
    raise AssertionError("redirects without end")


async def _get(port: int, target: str, jar: dict[str, str]) -> tuple[int, dict[str, list[str]]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cookies = "; ".join(f"{name}={value}" for name, value in jar.items())
    cookie = f"Cookie: {cookies}\r\n" if jar else ""
    writer.write(
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{_NAVIGATION}{cookie}\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers: dict[str, list[str]] = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), []).append(value.strip())
    await reader.read()
    writer.close()
    return int(head[0].split(" ")[1]), headers
