"""What the chart renders, run as the kubelet would: the container's arguments, variables, files and probes."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from charts import generate
from proxy.demo.visitor import NAVIGATION, PROGRAM, Visitor
from tests.chart.manifests import Manifest, manifests, minimal, one, ours, pod_specs
from tests.op.scripted import ScriptedOP
from tests.ports import free_port
from tests.waiting import until

LIMIT_S = 60.0


class _App(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the app")


class Pod:
    """One container of ours as a process: files where its volumes would be, variables as rendered.

    Args:
        found: everything that was rendered.
        secrets: content by name of the Secret and key.
    """

    def __init__(self, found: list[Manifest], home: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        spec = pod_specs(found)[0]
        self.container = ours(spec)
        self._home = home
        self._secrets = secrets
        self._volumes = {volume["name"]: volume for volume in spec["volumes"]}
        self._maps = {each["metadata"]["name"]: each["data"] for each in found if each["kind"] == "ConfigMap"}
        self._mount()
        env = {each["name"]: self._moved(each["value"]) for each in self.container["env"]}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
        self.log = home / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxy", *self.container["args"]],
            env={**kept, **env},
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
        )
        self.operations = int(env["NIGHTPORTER_OPERATIONS_LISTEN"].rpartition(":")[2])

    def _moved(self, path: str) -> str:
        for mount in self.container["volumeMounts"]:
            path = path.replace(mount["mountPath"], f"{self._home}{mount['mountPath']}")
        return path

    def _mount(self) -> None:
        for mount in self.container["volumeMounts"]:
            target = Path(f"{self._home}{mount['mountPath']}")
            target.mkdir(parents=True, exist_ok=True)
            volume = self._volumes[mount["name"]]
            if "configMap" in volume:
                for key, text in self._maps[volume["configMap"]["name"]].items():
                    (target / key).write_text(text)
            for source in volume.get("projected", {}).get("sources", ()):
                for item in source["secret"]["items"]:
                    content = self._secrets[source["secret"]["name"]][item["key"]]
                    (target / item["path"]).write_text(content)

    def write_again(self) -> None:
        """The kubelet brings the files up to date."""
        self._mount()

    def probe(self, name: str) -> int:
        """One of its probes, as the kubelet asks; 0 = no answer."""
        get = self.container[name]["httpGet"]
        ports = {each["name"]: each["containerPort"] for each in self.container["ports"]}
        connection = http.client.HTTPConnection("127.0.0.1", ports[get["port"]], timeout=10)
        try:
            connection.request("GET", get["path"])
            return connection.getresponse().status
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return 0
        finally:
            connection.close()


@pytest.fixture
def op() -> Iterator[ScriptedOP]:
    with ScriptedOP() as made:
        yield made


Start = Callable[..., Pod]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Pod] = []

    def run(found: list[Manifest], secrets: Mapping[str, Mapping[str, str]]) -> Pod:
        made.append(Pod(found, tmp_path, secrets))
        return made[-1]

    yield run
    for pod in made:
        pod.process.terminate()
        pod.process.wait(LIMIT_S)


KEY = "A" * 43


def settings(op: ScriptedOP, port: int, app: int) -> dict[str, Any]:
    return {
        "config": {
            "issuer": op.issuer,
            "client_id": op.client_id,
            "public_url": f"http://127.0.0.1:{port}",
            "upstream": f"http://127.0.0.1:{app}",
            "scopes": ["openid", "offline_access"],
            "store": "memory:",
        },
        "ports": {"http": port, "operations": free_port(), "address": "127.0.0.1"},
        "secrets": {"name": "", "client": {"name": "oidc"}, "cookieKeys": {"name": "keys", "key": "ring"}},
    }


def signed_in(visitor: Visitor, url: str) -> int:
    """The status after following the sign-in to the page that it began with."""
    reply = visitor.get(url, NAVIGATION)
    while reply.redirect:
        reply = visitor.get(reply.redirect, NAVIGATION)
    assert urlsplit(reply.url).path == urlsplit(url).path
    return reply.status


def test_a_sidecar_is_started_before_its_app_and_ready_with_it(op: ScriptedOP, start: Start) -> None:
    port, app_port = free_port(), free_port()
    values = {"replicas": 1, "nightporter": settings(op, port, app_port)}
    chart = generate.ROOT / "charts/examples/native-sidecar"
    pod = start(
        manifests(values, chart), {"oidc": {"client-secret": op.client_secret}, "keys": {"ring": KEY}}
    )
    until(lambda: pod.probe("startupProbe") == 200)
    assert pod.probe("readinessProbe") == 503, "the app is not there yet"
    assert pod.probe("livenessProbe") == 200
    with ThreadingHTTPServer(("127.0.0.1", app_port), _App) as app:
        threading.Thread(target=app.serve_forever, daemon=True).start()
        until(lambda: pod.probe("readinessProbe") == 200)
        assert signed_in(Visitor(), f"http://127.0.0.1:{port}/page") == 200
        app.shutdown()
    assert pod.probe("readinessProbe") == 503
    pod.process.terminate()
    assert pod.process.wait(LIMIT_S) == 0, pod.log.read_text()


def test_a_cookie_key_is_rotated_in_its_secret_without_a_restart_and_nobody_is_signed_out(
    op: ScriptedOP, start: Start
) -> None:
    port = free_port()
    secrets = {"oidc": {"client-secret": op.client_secret}, "keys": {"ring": KEY}}
    with ThreadingHTTPServer(("127.0.0.1", 0), _App) as app:
        threading.Thread(target=app.serve_forever, daemon=True).start()
        values = minimal(replicas=1, **settings(op, port, app.server_port))
        pod = start(manifests(values), secrets)
        until(lambda: pod.probe("readinessProbe") == 200)
        url = f"http://127.0.0.1:{port}/page"
        before = Visitor()
        assert signed_in(before, url) == 200
        secrets["keys"]["ring"] = f"{'B' * 42}A\n{KEY}\n"
        pod.write_again()
        until(lambda: "configuration_reloaded" in pod.log.read_text())
        assert before.get(url, PROGRAM).status == 200
        assert signed_in(Visitor(), url) == 200
        assert before.get(url, NAVIGATION).status == 200
        assert len(op.ledger) == 2, "two sign-ins, no more"
        app.shutdown()


def test_the_releases_test_finds_a_running_sidecar_well_and_an_op_that_is_away(
    op: ScriptedOP, start: Start
) -> None:
    port = free_port()
    values = minimal(replicas=1, **settings(op, port, free_port()))
    found = manifests(values)
    pod = start(found, {"oidc": {"client-secret": op.client_secret}, "keys": {"ring": KEY}})
    until(lambda: pod.probe("readinessProbe") == 200)
    test = one(found, "Pod")["spec"]["containers"][0]
    assert test["command"] == ["/opt/venv/bin/python", "-c"]
    env = {each["name"]: each["value"] for each in test["env"]}
    assert env["PROXY"] == "http://app-nightporter.web:80"
    env |= {"PROXY": f"http://127.0.0.1:{port}", "OPERATIONS": f"http://127.0.0.1:{pod.operations}"}

    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", *test["args"]], env=env, capture_output=True, text=True)

    done = ask()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "all is well"), done.stdout + done.stderr
    assert f"{op.issuer}/authorize" in done.stdout
    pod.process.terminate()
    pod.process.wait(LIMIT_S)
    op.refuse()
    pod = start(found, {"oidc": {"client-secret": op.client_secret}, "keys": {"ring": KEY}})
    until(lambda: pod.probe("readinessProbe") == 200)
    done = ask()
    assert done.returncode == 1
    assert "FAIL a sign-in leads to the provider" in done.stdout
