"""CPU microseconds per proxied request, beside nginx, in one interleaved run.

`make bench`, or ``python -m bench.run [ROUNDS] [SECONDS]``. Needs nginx, wrk and taskset. Proxies run
on core 0, load and upstream on core 1; each is asked by 32 keep-alive connections, every request
with another path and a browser's head. Printed: medians, ratio to nginx, resident memory. Loopback
only, bounded, and everything started here is ended here.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.scenarios.house import House, free_port, until

APP = 'server { listen 127.0.0.1:%d; location / { return 200 "%s"; } }'

TICK = os.sysconf("SC_CLK_TCK")

LUA = """
local n = 0
local head = {
  ["Cookie"] = "%s",
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Language"] = "en-GB,en;q=0.8", ["Accept-Encoding"] = "gzip, deflate, br",
  ["Sec-Fetch-Mode"] = "cors", ["Sec-Fetch-Site"] = "same-origin", ["Sec-Fetch-Dest"] = "empty",
  ["Referer"] = "http://127.0.0.1/page", ["DNT"] = "1", ["Pragma"] = "no-cache",
}
request = function() n = n + 1; return wrk.format("GET", "/item/" .. n .. "?q=" .. n, head) end
"""


def nginx(home: Path, port: int, server: str) -> subprocess.Popen[bytes]:
    """An nginx of ours with one worker, in the foreground."""
    config = home / f"nginx-{port}.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {home}/pid-{port}; error_log {home}/error-{port} error;"
        "events { worker_connections 1024; } http { access_log off; keepalive_requests 1000000000;"
        f"client_body_temp_path {home}/b{port}; proxy_temp_path {home}/p{port}; "
        f"fastcgi_temp_path {home}/f{port}; uwsgi_temp_path {home}/u{port}; scgi_temp_path {home}/s{port};"
        f"{server} }}"
    )
    return subprocess.Popen(["taskset", "-c", "0", shutil.which("nginx") or "nginx", "-c", str(config)])


def tree(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        found += tree(int(child))
    return found


def cpu_s(pid: int) -> float:
    total = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def load(port: int, lua: Path, seconds: int) -> int:
    """Requests answered; any answer that is not 2xx fails the run."""
    out = subprocess.run(
        [
            "taskset",
            "-c",
            "1",
            "wrk",
            "-t1",
            "-c32",
            f"-d{seconds}s",
            "-s",
            str(lua),
            f"http://127.0.0.1:{port}/",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Non-2xx" not in out, out
    assert "Socket errors" not in out, out
    return int(out.partition(" requests in ")[0].split()[-1])


def main(rounds: int = 3, seconds: int = 4) -> int:
    """Measure and print."""
    home = Path(tempfile.mkdtemp(prefix="nightporter-bench-"))
    app_port, plain_port = free_port(), free_port()
    body = "x" * 1024
    app = nginx(home, app_port, APP % (app_port, body))
    plain = nginx(
        home,
        plain_port,
        f"upstream app {{ server 127.0.0.1:{app_port}; keepalive 64; }} server {{ listen 127.0.0.1:{plain_port};"
        "location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ''; } }",
    )
    house = House(home, life_s=3_600.0, clock="real", upstream=f"http://127.0.0.1:{app_port}")
    served = house.replica
    try:
        rest = resident_mib(served.pid)
        browser = house.browser()
        assert browser.visit("/page").text == body
        subprocess.run(["taskset", "-a", "-cp", "1", str(app.pid)], capture_output=True, check=True)
        for pid in tree(app.pid):
            subprocess.run(["taskset", "-cp", "1", str(pid)], capture_output=True, check=True)
        subprocess.run(["taskset", "-a", "-cp", "0", str(served.pid)], capture_output=True, check=True)
        lua = home / "load.lua"
        lua.write_text(LUA % f"theme=dark; {browser.cookie}; lang=en")
        contestants = {
            "nginx, plain": (plain_port, plain.pid),
            "nightporter": (served.port, served.pid),
        }
        costs: dict[str, list[float]] = {name: [] for name in contestants}
        for port, _ in contestants.values():
            until(lambda port=port: load(port, lua, 1) > 0)
        for _ in range(rounds):
            for name, (port, pid) in contestants.items():
                before = cpu_s(pid)
                count = load(port, lua, seconds)
                costs[name].append((cpu_s(pid) - before) / count * 1e6)
        floor = statistics.median(costs["nginx, plain"])
        print(f"{'':16}{'CPU µs/request':>16}{'× nginx':>10}")
        for name, found in costs.items():
            middle = statistics.median(found)
            print(f"{name:16}{middle:16.1f}{middle / floor:10.2f}")
        after = resident_mib(served.pid)
        print(f"resident at rest {rest:.1f} MiB, after a sign-in and the load {after:.1f} MiB")
    finally:
        house.end()
        for process in (plain, app):
            process.terminate()
            process.wait(10)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
