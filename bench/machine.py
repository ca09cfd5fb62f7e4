"""Processes of this machine: their CPU time, their memory, their core. Linux only: it reads /proc."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PROXY_CORE, LOAD_CORE = "0", "1"
_TOOLS = str(Path(__file__).resolve().parent.parent / "build" / "tools")


class Missing(RuntimeError):
    """A program that is not installed."""


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
    """Seconds on a core of processes and their children, to the nanosecond: by the scheduler's account."""
    total = 0
    for pid in pids:
        for each in tree(pid):
            for thread in Path(f"/proc/{each}/task").iterdir():
                with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
                    total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


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


def described() -> str:
    """This machine in one line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


def program(*names: str) -> str:
    """The first of these programs that is installed; "" if none is."""
    places = (
        os.environ.get("PATH", ""),
        "/usr/sbin",
        "/usr/local/bin",
        str(Path(sys.executable).parent),
        _TOOLS,
    )
    for name in names:
        found = shutil.which(name, path=":".join(places))
        if found:
            return found
    return ""


def installed(name: str) -> str:
    """Where a program is.

    Raises:
        Missing: it is not installed.
    """
    found = program(name)
    if not found:
        raise Missing(name)
    return found


def version_of(command: list[str]) -> str:
    """The first line of what a program says of its version."""
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    return (out.stdout + out.stderr).strip().splitlines()[0][:90]
