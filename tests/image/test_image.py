"""The image that users get, built and run: what is in it, and what it does when it must stop."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo.visitor import PROGRAM, Visitor
from tests.image.conftest import StartContainer
from tests.image.engine import ROOT, Engine
from tests.image.house import COOKIE_KEY, App, come_in, free_port, settings_for, until
from tests.op.node_op import NodeOP
from tests.op.scripted import Gate, Script, ScriptedOP

pytestmark = pytest.mark.timeout(600)

MAX_BYTES = 110_000_000
REST_MIB = 64
"""What the chart requests for a sidecar at rest."""


@pytest.fixture(scope="module")
def files(engine: Engine, image: str) -> Iterator[dict[str, tarfile.TarInfo]]:
    """Every file of the image."""
    container = engine.run("create", image)
    try:
        exported = engine.export(container)
    finally:
        engine.run("rm", container)
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        yield {f"/{member.name}": member for member in archive.getmembers()}


def test_the_image_is_small_and_says_what_it_is(engine: Engine, image: str) -> None:
    found = json.loads(engine.run("image", "inspect", image))[0]
    assert found["Size"] <= MAX_BYTES
    config = found["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/opt/venv/bin/nightporter"]
    assert config["Cmd"] == ["serve"]
    labels = config["Labels"]
    version = engine.run("run", "--rm", image, "version").split()[1]
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    # The label that marks a stand-in is of its base; whether it is there depends on the network.
    assert "PATH=/opt/venv/bin:/usr/bin" in config["Env"]


def test_there_is_no_shell_no_package_manager_and_nothing_that_gains_rights(
    files: dict[str, tarfile.TarInfo],
) -> None:
    names = {Path(name).name for name, found in files.items() if found.isfile() or found.issym()}
    tools = {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "pip", "pip3", "perl", "curl", "wget"}
    assert not names & tools
    assert [name for name, found in files.items() if found.isfile() and found.mode & 0o6000] == []
    owned = [name for name, found in files.items() if name.startswith("/opt/") and found.uid != 0]
    assert owned == [], "the user that runs it must not be able to change it"


def test_every_module_has_bytecode_that_needs_no_source(files: dict[str, tarfile.TarInfo]) -> None:
    packages = "/opt/venv/lib/python3.13/site-packages/"
    sources = [name for name in files if name.startswith(packages + "proxy/") and name.endswith(".py")]
    assert len(sources) > 50
    for name in sources:
        path = Path(name)
        assert str(path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc") in files, name


def test_wrong_settings_end_it_with_status_two_and_every_problem(engine: Engine, image: str) -> None:
    done = engine.ask("run", "--rm", "--env", "NIGHTPORTER_CLIENT_ID=a", image)
    assert done.returncode == 2
    for key in ("issuer", "client_secret", "upstream", "public_url", "store"):
        assert f"- {key}: " in done.stderr


def test_somebody_signs_in_with_nothing_to_write_to(start: StartContainer, op: ScriptedOP, app: App) -> None:
    container = start({**settings_for(op, app), "NIGHTPORTER_STORE": "memory:"})
    visitor = Visitor()
    page = come_in(visitor, f"{container.url}/page?x=1")
    assert page.status == 200, container.log()
    assert json.loads(page.body)["x-forwarded-email"] == "ada@example.com"
    assert Visitor().get(f"{container.url}/page", PROGRAM).status == 401


def test_somebody_signs_in_at_a_certified_op_and_every_replica_on_redis_knows_them(
    start: StartContainer, redis_url: str, app: App, tmp_path: Path
) -> None:
    """Two containers on one Redis, one of them ended and made anew: nobody notices."""
    ports = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    op = NodeOP(tmp_path, urls[0])
    try:
        settings = {
            **op.settings,
            "NIGHTPORTER_UPSTREAM": f"http://127.0.0.1:{app.server_port}",
            "NIGHTPORTER_COOKIE_KEYS": COOKIE_KEY,
            "NIGHTPORTER_STORE": redis_url,
            "NIGHTPORTER_PUBLIC_URL": urls[0],
        }
        first, second = (start(settings, port=port) for port in ports)
        visitor = Visitor()
        page = come_in(visitor, f"{urls[0]}/page", lambda form: op.sign_in(visitor, form, "ada"))
        assert json.loads(page.body)["x-forwarded-user"] == "ada", first.log()
        assert visitor.get(f"{urls[1]}/page", PROGRAM).status == 200, second.log()
        first.terminate()
        assert first.exit_status() == 0
        assert visitor.get(f"{urls[1]}/page", PROGRAM).status == 200
        again = start(settings, port=ports[0])
        assert visitor.get(f"{again.url}/page", PROGRAM).status == 200
        assert len(op.ledger("token", "authorization_code")) == 1
    finally:
        op.stop()


def test_at_rest_it_takes_no_more_than_the_chart_requests(
    start: StartContainer, op: ScriptedOP, app: App
) -> None:
    container = start({**settings_for(op, app), "NIGHTPORTER_STORE": "memory:"})
    found = container.memory_mib()
    print(f"memory at rest: {found:.1f} MiB")
    assert 1 < found < REST_MIB


def test_sigterm_lets_a_request_and_a_refresh_in_flight_land(
    start: StartContainer, op: ScriptedOP, app: App, tmp_path: Path
) -> None:
    op.at_life_s = 5.0
    places: dict[Path, str] = {}
    for name in ("sessions", "journal"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)  # the container's user is nobody here
        places[tmp_path / name] = f"/var/lib/nightporter/{name}"
    settings = {
        **settings_for(op, app),
        "NIGHTPORTER_STORE": "sqlite:/var/lib/nightporter/sessions/sessions.db",
        "NIGHTPORTER_JOURNAL_DIR": "/var/lib/nightporter/journal",
    }
    container = start(settings, mounts=places)
    visitor = Visitor()
    assert come_in(visitor, f"{container.url}/page").status == 200

    gate = op.script_next(Script(after=Gate()), "refresh").after
    assert gate is not None

    def refreshing() -> bool:
        visitor.get(f"{container.url}/page", PROGRAM)  # the one that finds the token due starts it
        return gate.reached.is_set()

    until(refreshing, what="a refresh")
    answers: list[int] = []
    slow = threading.Thread(
        target=lambda: answers.append(visitor.get(f"{container.url}/slow", PROGRAM).status)
    )
    slow.start()
    assert app.reached.wait(60)

    container.terminate()
    until(lambda: container.probe("/readyz") == 503, what="unready while it drains")
    assert container.probe("/livez") == 200
    app.go_on.set()
    slow.join(60)
    assert answers == [200]
    assert container.state("Running") == "true", "it waits for the refresh"
    gate.open()
    assert container.exit_status() == 0, container.log()

    calls = len(op.refreshes())
    again = start(settings, mounts=places, port=container.port)
    assert visitor.get(f"{again.url}/page", PROGRAM).status == 200
    assert (calls, op.invalid_grant, op.reuse_events) == (1, 0, 0)


def test_the_bill_of_materials_lists_what_is_in_the_image(engine: Engine, image: str, tmp_path: Path) -> None:
    target = tmp_path / "sbom.json"
    subprocess.run(["make", "--silent", "sbom", f"SBOM={target}"], cwd=ROOT, check=True, capture_output=True)
    sbom = json.loads(target.read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "nightporter"
    listed = {(found["name"], found["version"]) for found in sbom["components"]}
    look = (
        "import importlib.metadata as m; print(*{f'{d.name.lower().replace(chr(95), chr(45))}=={d.version}'"
        " for d in m.distributions() if d.name})"
    )
    said = engine.run("run", "--rm", "--entrypoint", "/opt/venv/bin/python", image, "-c", look).split()
    installed = {(name, version) for name, _, version in (word.partition("==") for word in said)}
    assert {name for name, _ in installed} >= {"nightporter", "cryptography", "uvloop"}
    assert {pair for pair in installed if pair[0] != "nightporter"} <= listed
    hashed = [found["name"] for found in sbom["components"] if not found["externalReferences"]]
    assert hashed == []


def test_the_dockerfile_has_nothing_to_complain_about() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["base-images", "build-image", "install-test-tools"])
def test_the_scripts_parse(name: str) -> None:
    subprocess.run(["bash", "-n", f"scripts/{name}"], cwd=ROOT, check=True)
