"""What is written about the configuration is what the code does: page, schema, examples."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from proxy.config import load
from proxy.config.reference import listing, page, schema
from proxy.config.registry import declared
from proxy.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "config").glob("*.toml"))


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == page(), "run `make docs`"


def test_every_setting_is_documented_everywhere() -> None:
    for setting in declared().values():
        assert len(setting.help) > 15, setting.key
        assert setting.help[-1] in ".`)", setting.key
        assert f"`{setting.variable}`" in page()
        assert setting.variable in listing()


def _flat(content: dict[str, Any], group: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in content.items():
        if "properties" in value:
            assert value["additionalProperties"] is False
            found |= _flat(value["properties"], f"{name}.")
        else:
            found[group + name] = value
    return found


def test_the_schema_covers_every_setting_and_nothing_else() -> None:
    made = schema()
    assert made["additionalProperties"] is False
    properties = _flat(made["properties"])
    expected = (
        {"providers"}
        | set(declared())
        | {f"{each.key}_file" for each in declared().values() if each.has_file}
    )
    assert set(properties) == expected
    for key, content in properties.items():
        assert content["description"], key
        assert {"type", "enum", "anyOf"} & set(content), key


def _fits(value: Any, content: dict[str, Any]) -> bool:
    """As much of JSON schema as ours uses."""
    if "enum" in content:
        return value in content["enum"]
    if "anyOf" in content:
        return any(_fits(value, each) for each in content["anyOf"])
    match content["type"]:
        case "object":
            inner = content.get("properties", {})
            other = content.get("additionalProperties")
            return isinstance(value, dict) and all(
                _fits(item, inner[name]) if name in inner else bool(other) and _fits(item, other)
                for name, item in value.items()
            )
        case "array":
            return isinstance(value, list) and all(_fits(item, content["items"]) for item in value)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case _:
            right = isinstance(value, int) if content["type"] == "integer" else isinstance(value, int | float)
            return right and content["minimum"] <= value <= content["maximum"]


def test_defaults_and_examples_fit_their_own_schema() -> None:
    for key, content in _flat(schema()["properties"]).items():
        for value in [*content.get("examples", ()), *([content["default"]] if "default" in content else ())]:
            assert _fits(value, content), (key, value)


def test_there_are_examples() -> None:
    names = {path.stem for path in EXAMPLES}
    assert names >= {"minimal", "production", "single-host", "keycloak", "google", "entra"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_the_schema(path: Path) -> None:
    assert _fits(tomllib.loads(path.read_text()), schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_once_its_secrets_and_directories_are_there(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# "), "an example says what it is for"
    contents = {"cookie_keys_file": "A" * 43, "client_key_file": "-----BEGIN PRIVATE KEY-----\n"}
    toml = tomllib.loads(text)
    for key in [key for key in toml if key.endswith("_file") and key != "ca_file"]:
        (tmp_path / key).write_text(contents.get(key, "secret"))
        toml[key] = str(tmp_path / key)
    if toml["store"].startswith("sqlite:/"):
        toml["store"] = f"sqlite:{tmp_path}/{os.path.basename(toml['store'])}"
    env = {"NIGHTPORTER_CLIENT_SECRET": "secret"} if "NIGHTPORTER_CLIENT_SECRET" in text else {}
    settings = load(env=env, toml=toml)
    assert not settings.insecure_http


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_as_it_stands_lacks_nothing_but_its_files(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(env={}, toml=tomllib.loads(path.read_text()))
    for problem in caught.value.problems:
        assert problem.key in ("client_secret", "client_key", "cookie_keys", "store")
        assert (
            "No such file" in problem.found or "does not exist" in problem.found or "not set" in problem.found
        )
