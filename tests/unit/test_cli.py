"""The command line, as a process: what it prints where, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proxy.config import load
from proxy.config.grammar import decode_keys

CANARY = "canary-71a8"
GOOD = {
    "NIGHTPORTER_ISSUER": "https://login.example.com/realms/main",
    "NIGHTPORTER_CLIENT_ID": "my-app",
    "NIGHTPORTER_CLIENT_SECRET": CANARY,
    "NIGHTPORTER_UPSTREAM": "http://127.0.0.1:9000",
    "NIGHTPORTER_PUBLIC_URL": "https://app.example.com",
    "NIGHTPORTER_STORE": "memory:",
}


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `nightporter` with nothing of ours in the environment but `env`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPORTER_")}
    command = [sys.executable, "-m", "proxy", *arguments]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, timeout=60, check=False)


def test_check_says_ok_and_warns() -> None:
    done = run("check", **GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "warning: store is memory: every session ends when this process stops.",
        "warning: cookie_keys is not set: random keys are used until this process stops.",
        "OK: the configuration can be used.",
    ]


@pytest.mark.parametrize("command", [("check",), ("serve",), ("config", "show")])
def test_a_wrong_configuration_exits_2_with_every_problem_on_stderr(command: tuple[str, ...]) -> None:
    done = run(*command, **GOOD | {"NIGHTPORTER_IDLE_S": "soon", "NIGHTPORTER_UPSTREAM": "app"})
    assert (done.returncode, done.stdout) == (2, "")
    first, *problems = done.stderr.splitlines()
    assert first.startswith("nightporter: 2 problem")
    assert [line.split(":")[0] for line in problems] == ["  - idle_s", "  - upstream"]
    assert CANARY not in done.stderr


def test_the_file_and_set_reach_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "np.toml"
    path.write_text('log_level = "debug"\n[refresh]\nwait_s = 3\n')
    done = run("config", "show", "--config", str(path), "--set", "refresh.wait_s=4", **GOOD)
    assert done.returncode == 0
    assert CANARY not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert 'log_level = "debug"  # file' in lines
    assert "wait_s = 4  # --set" in lines
    assert "# client_secret: set  # environment" in lines
    assert "# cookie_keys: not set  # default" in lines
    assert tomllib.loads(done.stdout)["refresh"]["wait_s"] == 4


def test_keygen_prints_a_key_that_is_accepted() -> None:
    first, second = run("keygen"), run("keygen")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout != second.stdout
    keys = first.stdout + second.stdout
    assert len(decode_keys(keys)) == 2
    settings = load(env=GOOD | {"NIGHTPORTER_COOKIE_KEYS": keys})
    assert settings.cookie_key_bytes() == decode_keys(keys)


def test_schema_and_docs_need_no_configuration() -> None:
    schema, docs = run("config", "schema"), run("config", "docs")
    assert json.loads(schema.stdout)["type"] == "object"
    assert docs.stdout.startswith("# Configuration reference\n")
    assert (schema.returncode, docs.returncode) == (0, 0)


def test_version() -> None:
    done = run("version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == "nightporter"


@pytest.mark.parametrize("arguments", [(), ("fly",), ("serve", "--live"), ("config",), ("config", "hide")])
def test_an_unknown_command_line_exits_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: nightporter")


def test_help_lists_every_setting() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    assert "refresh.wait_s  NIGHTPORTER_REFRESH_WAIT_S  10" in done.stdout


def test_the_light_commands_load_neither_the_server_nor_the_settings() -> None:
    script = (
        "import sys, proxy.cli; proxy.cli.main(['keygen']);"
        "print(sorted({'asyncio', 'starlette', 'authlib', 'httpx2', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[1] == "[]"
