"""The Autobahn cases (by kosoku) through the proxy: the same results as directly."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.integration.datapath.house import House, house, run

LEFT_OUT = ("9.*", "12.*", "13.*")  # load and compression: the frames pass unread all the same


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def results(address: tuple[str, int], out: Path) -> dict[str, Any]:
    """What each case makes of the server at `address`."""
    arguments = ["-m", "fuzzingclient", "-p", "4", "-o", str(out)]
    for case in LEFT_OUT:
        arguments += ["-x", case]
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "kosoku"),
        *arguments,
        "{}:{}".format(*address[:2]),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.wait_for(process.wait(), 90)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    (found,) = json.loads((out / "index.json").read_text()).values()
    # NON-STRICT is a pass too; which of the two it is depends on how segments arrive.
    return {
        case: (result["behavior"].replace("NON-STRICT", "OK"), result["behaviorClose"])
        for case, result in found.items()
    }


@pytest.mark.timeout(240)
def test_autobahn_sees_no_difference(tmp_path: Path) -> None:
    async def body() -> None:
        async with serve(echo, "127.0.0.1", 0, max_size=None, compression=None) as server:
            app = server.sockets[0].getsockname()
            direct = await results(app, tmp_path / "direct")
            h: House
            async with house(app_port=app[1]) as h:
                through = await results(h.address, tmp_path / "through")
                assert h.server.counters.accepted >= len(through)
            assert len(direct) > 200
            assert through == direct

    run(body, 200)
