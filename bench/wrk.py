"""Load from wrk: heads that come again, or not quite, on many connections."""

from __future__ import annotations

import subprocess
import tempfile

from bench.machine import LOAD_CORE

_HEADERS = {
    "short": {},
    "browser": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-GB,en;q=0.8",
        "Accept-Encoding": "gzip, deflate, br",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Dest": "empty",
        "Referer": "http://127.0.0.1/page",
        "DNT": "1",
        "Pragma": "no-cache",
    },
}

_LUA = """
local n, varied = 0, %s
local head = { %s }
request = function()
  n = n + 1
  if varied then head["X-Trace"] = "00-4bf92f3577b34da6a3ce929d0e0e" .. n .. "-01" end
  return wrk.format("GET", %s, head)
end
"""


def script(cookie: str, head: str, path: str) -> str:
    """A wrk script.

    Args:
        head: ``short``, ``browser``, or ``traced``: a browser's, with another trace id each time.
        path: "" = another path on each request.
    """
    fields = dict(_HEADERS["short" if head == "short" else "browser"])
    if cookie:
        fields["Cookie"] = f"theme=dark; {cookie}; lang=en" if head != "short" else cookie
    listed = ", ".join(f'["{name}"] = "{value}"' for name, value in fields.items())
    target = f'"{path}"' if path else '"/item/" .. n .. "?q=" .. n'
    return _LUA % ("true" if head == "traced" else "false", listed, target)


class Load:
    """What a run of wrk said.

    Attributes:
        requests: answered.
        refused: of those, with something else than a 2xx or 3xx.
        errors: connections that broke.
    """

    def __init__(self, out: str) -> None:
        self.requests = int(out.partition(" requests in ")[0].split()[-1])
        self.refused = 0
        if "Non-2xx" in out:
            self.refused = int(out.partition("Non-2xx or 3xx responses:")[2].split()[0])
        counts = out.partition("Socket errors:")[2].partition("\n")[0].split(",")
        self.errors = sum(int(each.split()[-1]) for each in counts if each.strip())


def wrk(port: int, script: str, seconds: int, *, connections: int = 32, strict: bool = True) -> Load:
    """Load on one port; every answer has to be a 2xx, unless it is counted only (`strict`).

    Args:
        seconds: wrk counts whole ones.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        done = subprocess.run(
            [
                *("taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
                *("-s", lua.name, f"http://127.0.0.1:{port}/"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr} {done.stdout}")
    load = Load(done.stdout)
    # A peer that closes a kept connection now and then is no reason to throw its figure away.
    if strict and (load.refused or load.errors * 1_000 > load.requests or not load.requests):
        raise RuntimeError(f"the run counts for nothing: {done.stdout}")
    return load
