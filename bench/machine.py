"""Processes, their CPU time and memory, and load from wrk. Linux only: it reads /proc."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PROXY_CORE, LOAD_CORE = "0", "1"

HEADERS = {
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

LUA = """
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
    fields = dict(HEADERS["short" if head == "short" else "browser"])
    if cookie:
        fields["Cookie"] = f"theme=dark; {cookie}; lang=en" if head != "short" else cookie
    listed = ", ".join(f'["{name}"] = "{value}"' for name, value in fields.items())
    target = f'"{path}"' if path else '"/item/" .. n .. "?q=" .. n'
    return LUA % ("true" if head == "traced" else "false", listed, target)


def tree(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    for child in children:
        found += tree(int(child))
    return found


def cpu_split_s(*pids: int) -> tuple[float, float]:
    """User and system seconds of processes and their children."""
    user = system = 0
    for pid in pids:
        for each in tree(pid):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2].split()
            user += int(fields[11])
            system += int(fields[12])
    return user / TICK, system / TICK


def cpu_s(*pids: int) -> float:
    return sum(cpu_split_s(*pids))


def resident_mib(*pids: int) -> float:
    """Resident memory of processes and their children."""
    total = 0.0
    for pid in pids:
        for each in tree(pid):
            status = Path(f"/proc/{each}/status").read_text()
            if "VmRSS:" in status:
                total += int(status.partition("VmRSS:")[2].split()[0]) / 1024
    return total


def pin(core: str, *pids: int) -> None:
    """Keep processes, all their threads, on one core."""
    for pid in pids:
        for each in tree(pid):
            subprocess.run(["taskset", "-a", "-cp", core, str(each)], capture_output=True, check=False)


class Load:
    """What a run of wrk said."""

    def __init__(self, out: str) -> None:
        self.requests = int(out.partition(" requests in ")[0].split()[-1])
        self.refused = 0
        if "Non-2xx" in out:
            self.refused = int(out.partition("Non-2xx or 3xx responses:")[2].split()[0])
        counts = out.partition("Socket errors:")[2].partition("\n")[0].split(",")
        self.errors = sum(int(each.split()[-1]) for each in counts if each.strip())
        p99 = re.search(r"(?m)^\s+99%\s+(\S+)$", out)
        self.p99_ms = _ms(p99[1]) if p99 else 0.0


def _ms(text: str) -> float:
    for unit, factor in (("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def wrk(port: int, lua: Path, seconds: int, connections: int = 32, *, strict: bool = True) -> Load:
    """Load on one port; every answer has to be a 2xx, unless it is counted only (`strict`)."""
    out = subprocess.run(
        [
            *("taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"),
            *("-s", str(lua), f"http://127.0.0.1:{port}/"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if out.returncode:
        raise RuntimeError(f"wrk failed: {out.stderr} {out.stdout}")
    out = out.stdout
    load = Load(out)
    # A peer that closes a kept connection now and then is no reason to throw its figure away.
    if strict and (load.refused or load.errors * 1_000 > load.requests or not load.requests):
        raise RuntimeError(f"the run counts for nothing: {out}")
    return load


def described() -> str:
    """This machine in one line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def program(*names: str) -> str:
    """The first of these programs that is installed; "" if none is."""
    for name in names:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/bin")
        if found:
            return found
    return ""
