"""Whole configurations of oauth2-proxy and what they become."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from proxy.config import load
from proxy.config.registry import declared
from proxy.errors import ConfigError
from tests.unit.importing.cases import CASES, Case, run

FILES = {"cookie_keys_file": "A" * 43, "client_key_file": "-----BEGIN PRIVATE KEY-----\n"}


@pytest.fixture(autouse=True)
def _nothing_of_ours_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUITE_CLIENT_SECRET", raising=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_configuration_becomes_ours(case: Case) -> None:
    status, out, err = run(*case.arguments)
    assert out == case.expected.read_text(), "read the difference; python -m tests.unit.importing.cases"
    assert status == case.status
    commented = [line.removeprefix("#").strip() for line in out.splitlines()]
    for line in err.splitlines():
        assert line.strip() in commented, "what stderr says is in the file, too"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_secret_of_the_source_is_repeated(case: Case) -> None:
    _, out, err = run(*case.arguments)
    told = (out + err).replace("canary-free", "")
    assert "canary" not in told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_line_says_where_it_comes_from(case: Case) -> None:
    table = ""
    for line in case.expected.read_text().splitlines():
        if line.startswith("["):
            table = line
        if not line or line.startswith(
            ("#", "    ", "]", "[limits]", "[timeouts]", "[tls]", "[forward_auth]")
        ):
            continue
        assert "  # " in line or table.startswith(("[authorize_params]", "[headers]", "[upstreams]")), line


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_result_is_accepted_once_its_files_are_there(case: Case, tmp_path: Path) -> None:
    toml = tomllib.loads(case.expected.read_text())
    for key in [key for key in toml if key.endswith("_file")]:
        if key.removesuffix("_file") in declared():
            (tmp_path / key).write_text(FILES.get(key, "secret"))
            toml[key] = str(tmp_path / key)
        else:
            del toml[key]  # a CA file: whatever stands in it is judged when it is there
    if toml.get("store", "").startswith("sqlite:"):
        toml["store"] = f"sqlite:{tmp_path}/sessions.db"
    env = {"NIGHTPORTER_CLIENT_ID": "from-a-secret"} if "client_id" not in toml else {}
    toml.pop("tls", None)  # a certificate is judged when it is there
    if case.name == "compose":  # nothing is made up
        with pytest.raises(ConfigError) as refused:
            load(env=env, toml=toml)
        assert [problem.key for problem in refused.value.problems] == ["public_url"]
        return
    settings = load(env=env, toml=toml)
    assert settings.client_id
    assert not settings.insecure_http
