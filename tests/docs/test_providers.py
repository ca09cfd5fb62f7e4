"""What is written about providers and the doctor is what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from proxy.config import load
from proxy.core.providers import PROFILES
from proxy.guide import GUIDES, TOPICS, remedy
from proxy.guide.pages import documents

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/providers"
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()


def test_every_page_is_up_to_date_and_there_is_no_other() -> None:
    made = documents()
    assert {path.name for path in PAGES.glob("*.md")} == set(made), "run `make docs`"
    for name, text in made.items():
        assert (PAGES / name).read_text() == text, "run `make docs`"


@pytest.mark.parametrize("name", list(PROFILES))
def test_every_profile_has_a_guide(name: str) -> None:
    guide = GUIDES[name]
    assert len(guide.steps) >= 2
    assert set(guide.remedies) <= set(TOPICS)
    assert guide.life
    assert guide.hits, "what users hit"
    for topic in TOPICS:
        assert remedy(name, topic)[-1] in ".`", topic


@pytest.mark.parametrize("name", list(PROFILES))
def test_the_configuration_of_each_page_loads(name: str, tmp_path: Path) -> None:
    text = (PAGES / f"{name}.md").read_text()
    block = text.partition("```toml\n")[2].partition("```")[0]
    secret = tmp_path / "secret"
    secret.write_text("x")
    block = block.replace("/run/secrets/nightporter_client_secret", str(secret)).replace("…", "app")
    block = block.replace("/var/lib/nightporter", str(tmp_path))
    settings = load(env={}, toml=tomllib.loads(block))
    from proxy.wiring import profile_of

    assert profile_of(settings).name == name


def _checks() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "proxy/doctor").glob("*.py"):
        found |= set(
            re.findall(r"\"((?:own|store|app|op|login|config)(?:\.[a-z_]+)*)\",?\s", path.read_text())
        )
        found |= set(re.findall(r"(?:ok|warn|fail|make)\(\s*\"([a-z_.]+)\"", path.read_text()))
    return {each for each in found if "." in each or each in ("config", "login")}


def test_every_check_of_the_doctor_is_in_the_table_and_none_is_invented() -> None:
    table = TROUBLESHOOTING.partition("## Every check")[2].partition("## At run time")[0]
    written = set(re.findall(r"`([a-z_.]+)`", table))
    assert written == _checks()


def test_every_finding_of_a_symptom_exists() -> None:
    symptoms = TROUBLESHOOTING.partition("## Symptoms")[2].partition("## Every check")[0]
    named = set(re.findall(r"`((?:own|store|app|op|login|config)\.[a-z_.]+)`", symptoms))
    assert named
    assert named <= _checks()
