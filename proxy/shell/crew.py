"""The metrics of all workers in one answer, whichever of them is asked.

Each worker also answers on a unix socket of its own, beside its siblings'. A scrape reaches one of
them; it asks the others and puts a `worker` label on every sample.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_LIMIT_S = 2.0


def path_of(directory: str, number: int) -> str:
    """Where worker `number` answers its siblings."""
    return f"{directory}/{number}.sock"


class Crew:
    """See the module's docstring.

    Args:
        directory: of the sockets.
        number: of this worker.
        scrape: its own figures.
    """

    def __init__(self, directory: str, number: int, scrape: Callable[[], bytes]) -> None:
        self._directory = directory
        self._number = number
        self._scrape = scrape

    async def scrape(self) -> bytes:
        """Everybody's figures in the Prometheus text format; one that does not answer is left out."""
        others = self._others()
        answers = await asyncio.gather(*(self._ask(number, b"/metrics") for number in others))
        found = {self._number: self._scrape()}
        found |= {number: text for number, text in zip(others, answers, strict=True) if text}
        return merged(found)

    async def tell(self, path: bytes) -> None:
        """Have every other worker do what its operations port does at `path`."""
        await asyncio.gather(*(self._ask(number, path) for number in self._others()))

    def _others(self) -> list[int]:
        names = [name for name in os.listdir(self._directory) if name.endswith(".sock")]
        return sorted({int(name.partition(".")[0]) for name in names} - {self._number})

    async def _ask(self, number: int, path: bytes) -> bytes:
        try:
            async with asyncio.timeout(_LIMIT_S):
                reader, writer = await asyncio.open_unix_connection(path_of(self._directory, number))
                try:
                    writer.write(b"GET %b HTTP/1.1\r\nHost: crew\r\nConnection: close\r\n\r\n" % path)
                    answer = await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return b""
        head, _, body = answer.partition(b"\r\n\r\n")
        return body if head.startswith(b"HTTP/1.1 200 ") else b""


def merged(texts: dict[int, bytes]) -> bytes:
    """Expositions of several workers as one: each family once, every sample with its worker.

    Args:
        texts: by the worker's number.
    """
    families: dict[bytes, list[bytes]] = {}
    for number, text in texts.items():
        samples: list[bytes] = []
        for line in text.splitlines():
            if line.startswith(b"# HELP "):
                samples = families.setdefault(line, [])
            elif line.startswith(b"#"):
                if line not in samples:
                    samples.append(line)
            elif line:
                samples.append(_labelled(line, number))
    return b"".join(line + b"\n" for help_line, lines in families.items() for line in (help_line, *lines))


def _labelled(sample: bytes, number: int) -> bytes:
    at = sample.find(b"{")
    if at >= 0:
        return b'%bworker="%d",%b' % (sample[: at + 1], number, sample[at + 1 :])
    name, _, value = sample.partition(b" ")
    return b'%b{worker="%d"} %b' % (name, number, value)
