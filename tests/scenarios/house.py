"""`House`: N replicas of the product as real processes, an OP that does what a test wants, an app
behind them, browsers before them.

Use, in a test::

    def test_a1_…(tmp_path):
        with House(tmp_path) as house:                    # one replica on SQLite, life 300 s
            ada = house.browser()
            ada.sign_in()                                 # walks the redirects, keeps the cookies
            house.expire()                                # the access token is over
            replies = ada.burst(200)                      # 200 at once
            assert {r.status for r in replies} == {200}
            assert len(house.op.refreshes()) == 1         # the OP's ledger

**Several replicas, another store**: ``House(tmp_path, replicas=3, store="redis://127.0.0.1:6379/0")``;
``store`` may be a list, one URL per replica (for a fault proxy before one of them). All replicas have
the same public URL and cookie keys; ``ada.get("/a", replica=2)`` says which one is asked.

**Faults of the OP**: `house.op` is a `tests.op.scripted.ScriptedOP`: set its knobs (`rotation`,
`old_at_dies`, `expires_in`, `rt_in_reply`, …), queue a `Script` for the next call
(``house.op.script_next(Script(after=gate), "refresh")``: processed, the reply held until
``gate.open()``), read its `ledger`. ``House(tmp_path, op=…)`` takes one that you prepared.
K3 (sent, not processed) is ``Script(before=gate)``, K4 (processed, not answered) ``Script(after=gate)``;
then ``gate.wait_reached()`` and ``house.replicas[0].kill()``.

**Time**: with ``clock="movable"`` (the default on SQLite and in memory, where time is the process's own)
``house.advance(seconds)`` moves the clocks of all replicas and of the OP together, and
``replica.ahead(seconds)`` one replica's alone, ``replica.step_wall(seconds)`` its wall clock only; ``house.expire()`` and ``house.into_window()`` use it, so no
test waits for a token to age. With ``clock="real"`` (the default elsewhere; the processes then are
plain ``python -m proxy serve``) use a short ``life_s``, and `expire` waits until the session says so.

**Processes**: `replica.kill()` (SIGKILL), `.stop()` (SIGTERM, the exit status), `.start()`, `.pause()` and
`.resume()` (SIGSTOP, SIGCONT), `.logs()`, `.events("login_failed")`, `.metric("nightporter_refresh_total",
outcome="ok")`, `.ready()`, `.operations("/readyz")`.

Further settings go in as ``env={"NIGHTPORTER_REFRESH_WAIT_S": "2"}``. Nothing sleeps: wait with `until`.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.op.scripted import ScriptedOP
from tests.ports import free_port
from tests.scenarios.app import EchoApp
from tests.scenarios.browser import Browser, Reply, burst, together
from tests.scenarios.clocked import write_ahead
from tests.waiting import until

__all__ = ["Browser", "House", "Replica", "Reply", "burst", "free_port", "together", "until"]

ROOT = Path(__file__).parents[2]

SCOPES = "openid profile email offline_access"


class Replica:
    """One process of the product.

    Args:
        home: holds its log and its clock.
        env: its settings, complete.
        movable: its clocks are the test's.
    """

    def __init__(self, home: Path, env: Mapping[str, str], *, movable: bool) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.env = dict(env)
        self.log = home / "log"
        self.port = _port_of(env["NIGHTPORTER_LISTEN"])
        self.operations_port = _port_of(env["NIGHTPORTER_OPERATIONS_LISTEN"])
        self._clock = home / "clock" if movable else None
        self._ahead_s = self._wall_off_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        if self._clock is not None:
            write_ahead(self._clock, 0.0, 0.0)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def begin(self) -> None:
        """Start the process; `start` also waits until it is ready."""
        program = ["proxy"] if self._clock is None else ["tests.scenarios.clocked", str(self._clock)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *program, "serve"],
                env={**inherited, "PYTHONPATH": str(ROOT), **self.env},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> None:
        self.begin()
        until(self.ready)

    def ready(self) -> bool:
        """Whether it says so; fails if the process ended instead."""
        assert self.running, self.log.read_text()
        try:
            return self.operations("/readyz").status == 200
        except OSError:
            return False

    def operations(self, path: str) -> Reply:
        """Ask the operations port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.operations_port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Reply(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels, 0 if there is none; the metric has to be there."""
        total, text = 0.0, self.operations("/metrics").text
        family = re.sub(r"_(bucket|count|sum)$", "", name)
        assert re.search(rf"(?m)^# TYPE {family} ", text), f"{name} is no metric"
        for line in text.splitlines():
            found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
            if found is None or found[1] != name:
                continue
            said = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            if labels.items() <= said.items():
                total += float(found[3])
        return total

    def logs(self) -> list[dict[str, Any]]:
        """Every line that it has logged."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.logs() if line.get("event") == name]

    def ahead(self, seconds: float) -> None:
        """Set how far this process's clocks are ahead of the machine's."""
        self._ahead_s = seconds
        self._set_clocks()

    def step_wall(self, seconds: float) -> None:
        """Make its wall clock, and only that, wrong by so much (0 = right again)."""
        self._wall_off_s = seconds
        self._set_clocks()

    def _set_clocks(self) -> None:
        assert self._clock is not None, "this replica's clock is the machine's"
        write_ahead(self._clock, self._ahead_s, self._wall_off_s)

    def kill(self) -> None:
        """End it on the spot, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, limit_s: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(limit_s)

    def pause(self) -> None:
        """Freeze it, as a suspended machine or a stalled container."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class House:
    """See the module's docstring.

    Args:
        home: an empty directory.
        replicas: how many processes.
        store: the setting `store` of all, or of each; None = a SQLite file in `home`.
        op: prepared, not yet started or already running; None = a `ScriptedOP` with its defaults.
        life_s: life of the OP's access tokens; None = the OP's own knob.
        clock: see above.
        upstream: an app's URL instead of the echo app's.
        env: further settings by variable.
        start: whether to start the replicas.
    """

    def __init__(
        self,
        home: Path,
        *,
        replicas: int = 1,
        store: str | Sequence[str] | None = None,
        op: ScriptedOP | None = None,
        life_s: float | None = None,
        clock: Literal["movable", "real"] | None = None,
        upstream: str = "",
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.app = EchoApp()
        self.op = op if op is not None else ScriptedOP()
        if not self.op.port:
            self.op.start()
        if life_s is not None:
            self.op.at_life_s = life_s
        stores = [store] * replicas if isinstance(store, str) else list(store or [])
        stores = stores or [f"sqlite:{home / 'sessions.db'}"] * replicas
        assert len(stores) == replicas
        embedded = stores[0].startswith(("sqlite:", "memory:"))
        self._movable = (clock or ("movable" if embedded else "real")) == "movable"
        self._ahead_s = 0.0
        ports = [free_port() for _ in range(replicas)]
        self.url = f"http://127.0.0.1:{ports[0]}"
        shared = {
            "NIGHTPORTER_ISSUER": self.op.issuer,
            "NIGHTPORTER_CLIENT_ID": self.op.client_id,
            "NIGHTPORTER_CLIENT_SECRET": self.op.client_secret,
            "NIGHTPORTER_SCOPES": SCOPES,
            "NIGHTPORTER_UPSTREAM": upstream or self.app.url,
            "NIGHTPORTER_PUBLIC_URL": self.url,
            "NIGHTPORTER_COOKIE_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "NIGHTPORTER_PASS_ACCESS_TOKEN": "true",
            **(env or {}),
        }
        self.replicas = [
            Replica(
                home / f"replica-{n}",
                {
                    "NIGHTPORTER_STORE": stores[n],
                    "NIGHTPORTER_LISTEN": f"127.0.0.1:{port}",
                    "NIGHTPORTER_OPERATIONS_LISTEN": f"127.0.0.1:{free_port()}",
                    **shared,
                },
                movable=self._movable,
            )
            for n, port in enumerate(ports)
        ]
        if not start:
            return
        try:
            for replica in self.replicas:
                replica.begin()
            for replica in self.replicas:
                until(replica.ready)
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> House:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def replica(self) -> Replica:
        """The first one, for houses that have only one."""
        return self.replicas[0]

    def browser(self) -> Browser:
        """A new browser, without cookies."""
        return Browser(self.url, [replica.port for replica in self.replicas])

    def somebody(self, sub: str = "ada-1", path: str = "/page?x=1", *, replica: int = 0) -> Browser:
        """A browser whose person, `sub`, has signed in."""
        self.op.user = {**self.op.user, "sub": sub, "email": f"{sub}@example.com"}
        browser = self.browser()
        reply = browser.sign_in(path, replica=replica)
        assert reply.user == sub
        return browser

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass for all replicas and the OP, at once."""
        assert self._movable, "this house lives in real time"
        self._ahead_s += seconds
        for replica in self.replicas:
            replica.ahead(self._ahead_s)
        self.op.advance(seconds)

    def expire(self, browser: Browser | None = None, *, replica: int = 0) -> None:
        """Let every access token that was issued until now run out.

        Args:
            browser: in real time: whose token is waited for; sign it in last.
        """
        if self._movable:
            return self.advance(self.op.at_life_s + 1.0)
        assert browser is not None, "in real time somebody's token must be waited for"
        until(lambda: browser.session(replica=replica)["access_token"]["expires_in_s"] <= 0)
        whole = time.monotonic() + 1.0  # the page tells whole seconds, rounded down
        return until(lambda: time.monotonic() > whole)

    def into_window(self) -> None:
        """Tokens that were just issued are due for renewal, and alive."""
        life = self.op.at_life_s
        self.advance(life - 0.3 * min(60.0, 0.2 * life))

    def end(self) -> None:
        """End everything that was started."""
        for replica in self.replicas:
            replica.kill()
        self.op.stop()
        self.app.stop()


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])
