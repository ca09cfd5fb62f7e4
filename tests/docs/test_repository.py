"""The repository's own files: locks with hashes and without addresses, targets that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS = re.compile(r"https?://|index-url|find-links|trusted-host")


@pytest.mark.parametrize("name", ["build", "runtime", "test"])
def test_every_locked_package_has_a_hash_and_no_address(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    assert not ADDRESS.search(text)
    lines = text.replace("\\\n", " ").splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(pins) > (0 if name == "build" else 10)
    for pin in pins:
        assert re.match(r"[a-z0-9.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", pin), pin[:60]


def test_the_test_lock_agrees_with_the_runtime_lock() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9.-]+==\S+)", (ROOT / f"requirements/{name}.txt").read_text(), re.M))

    assert pins("runtime") <= pins("test")


def test_every_dependency_is_locked() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, wanted in (
        ("runtime", [*project["dependencies"], *extras["demo"]]),
        ("test", [*project["dependencies"], *extras["demo"], *extras["test"]]),
    ):
        text = (ROOT / f"requirements/{name}.txt").read_text()
        for requirement in wanted:
            bare = re.split(r"[\[<>=~! ;]", requirement)[0].lower().replace("_", "-")
            assert re.search(rf"^{re.escape(bare)}==", text, re.MULTILINE), f"{bare}: run `make lock`"


def test_the_node_lock_names_no_registry() -> None:
    content = json.loads((ROOT / "tests/op/node/package-lock.json").read_text())
    for name, package in content["packages"].items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name


def test_the_make_targets_that_the_documentation_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    pages = [ROOT / "CONTRIBUTING.md", *ROOT.glob("README.md"), *ROOT.glob("docs/**/*.md")]
    named = {
        name for path in pages for name in re.findall(r"`?\bmake ([a-z]+)\b(?=`|\s+#|\n)", path.read_text())
    }
    assert {"demo", "test", "lint", "format", "lock", "docs", "bench"} <= targets
    assert named <= targets


def test_what_is_run_is_executable() -> None:
    for name in (".ci/run", *(f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir())):
        assert (ROOT / name).stat().st_mode & 0o111, name
