"""Bad values are refused by name; good ones become the configuration that was meant."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from charts import generate
from proxy.config import load
from proxy.config.declaration import Settings
from tests.chart.manifests import manifests, merged, minimal, one, ours, pod_specs

BAD: list[tuple[dict[str, Any], str]] = [
    ({"replica": 2}, "replica"),
    ({"config": {"isuer": "https://a"}}, "isuer"),
    ({"config": {"refresh": {"wait": 1}}}, "wait"),
    ({"config": {"refresh": {"wait_s": 61}}}, "wait_s"),
    ({"config": {"idle_s": "a week"}}, "idle_s"),
    ({"config": {"client_auth": "certificate"}}, "client_auth"),
    ({"config": {"client_secret": "in the clear"}}, "client_secret"),
    ({"config": {"cookie_keys": "in the clear"}}, "cookie_keys"),
    ({"config": {"store": "redis://:secret@redis:6379/0"}}, "store"),
    ({"config": {"listen": "0.0.0.0:80"}}, "listen"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"image": {"digest": "sha256:abc"}}, "digest"),
    ({"configIn": "secret"}, "configIn"),
    ({"ports": {"http": 70000}}, "http"),
    ({"secrets": {"client": "my-secret"}}, "client"),
    ({"secrets": {"extra": [{"name": "a", "key": "b", "path": "../c"}]}}, "path"),
    ({"service": {"type": "ExternalName"}}, "type"),
    ({"probes": {"ready": {}}}, "ready"),
    ({"drain": {"sleepSeconds": 0}}, "sleepSeconds"),
    ({"ingress": {"paths": ["app"]}}, "paths"),
    ({"networkPolicy": {"egress": {"opPorts": ["https"]}}}, "opPorts"),
    ({"extraEnv": [{"value": "a"}]}, "name"),
    ({"serviceMonitor": {"interval": "often"}}, "interval"),
    ({"injection": {"failurePolicy": "Retry"}}, "failurePolicy"),
    ({"podDisruptionBudget": {"maxUnavailable": True}}, "maxUnavailable"),
]


@pytest.mark.parametrize(("change", "name"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_a_bad_value_is_refused_and_named(change: dict[str, Any], name: str) -> None:
    with pytest.raises(helm_python.HelmError, match=name):
        manifests(minimal(**change))


INCOMPLETE: list[tuple[dict[str, Any], str]] = [
    ({"config": {"issuer": None}}, "config.issuer (or config.provider) is not set"),
    ({"config": {"client_id": None}}, "config.client_id is not set"),
    ({"config": {"public_url": None}}, "config.public_url is not set"),
    ({"config": {"upstream": None}}, "config.upstream is not set"),
    ({"secrets": {"name": ""}}, "no Secret with the client's secret: create one and name it in secrets.name"),
    (
        {"secrets": {"name": "", "client": {"name": "c"}}},
        "no Secret with the cookie keys, and Redis keeps none",
    ),
    (
        {"config": {"store": None}, "secrets": {"name": "", "client": {"name": "c"}}},
        "no store: write config.store, or name a Secret with its URL in secrets.store.name",
    ),
    ({"config": {"store": "sqlite:/a/b"}}, "a sqlite: store serves one process: write replicas: 1"),
    (
        {"config": {"store": "memory:"}, "replicas": 1, "autoscaling": {"enabled": True}},
        "a memory: store serves",
    ),
    ({"terminationGracePeriodSeconds": 30}, "terminationGracePeriodSeconds is 30, too short"),
    ({"config": {"timeouts": {"drain_s": 120}}}, "make 130"),
    (
        {"config": {"client_auth": "private_key_jwt"}, "secrets": {"name": "", "client": {"name": "c"}}},
        "no Secret holds the key",
    ),
    ({"ca": {"configMap": "a", "secret": "b"}}, "ca.configMap and ca.secret are both set"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
    (
        {"serviceMonitor": {"enabled": True}, "operationsService": {"enabled": False}},
        "operationsService.enabled: true",
    ),
]


@pytest.mark.parametrize(
    ("change", "sentence"), INCOMPLETE, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_missing_fails_the_render_with_a_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(sentence)):
        manifests(minimal(**change))


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(helm_python.HelmError, match="6 problem") as caught:
        manifests({})
    assert str(caught.value).count("\n  - ") == 6


def settings_of(values: dict[str, Any], home: Path) -> Settings:
    """The configuration that the rendered container reads, with its files laid out as the kubelet does."""
    found = manifests(values)
    container = ours(pod_specs(found)[0])
    env = {each["name"]: each["value"] for each in container["env"]}
    for name, text in {
        "client-secret": "secret",
        "client-key": "-----BEGIN PRIVATE KEY-----\n",
        "cookie-keys": "A" * 43,
        "store-url": "memory:",
    }.items():
        (home / name).write_text(text)
    env = {name: value.replace("/run/secrets/nightporter", str(home)) for name, value in env.items()}
    if path := env.pop("NIGHTPORTER_CONFIG", ""):
        assert path == "/etc/nightporter/nightporter.toml"
        text = one(found, "ConfigMap", "-nightporter")["data"]["nightporter.toml"]
        return load(env={**env}, toml=tomllib.loads(text))
    return load(env=env)


RICH: dict[str, Any] = {
    "replicas": 1,
    "config": {
        "store": "memory:",
        "client_auth": "basic",
        "public_url": ["https://app.example.com", "https://www.example.net"],
        "scopes": ["openid", "email"],
        "idle_s": 28800,
        "absolute_s": 86400.5,
        "limits": {"max_fields": 80, "max_head_bytes": 16384},
        "refresh": {"wait_s": 2.5, "reuse": "grace"},
        "headers": {"X-Department": "org.department", "X-Title": "title"},
        "authorize_params": {"prompt": "consent", "ui_locales": 'de "x" & <y>'},
        "pass_access_token": True,
        "allow": ["example.com", "group:a/b"],
        "log_level": "warning",
    },
}


def test_settings_arrive_as_they_were_meant(tmp_path: Path) -> None:
    settings = settings_of(minimal(**RICH), tmp_path)
    assert settings.idle_s == 28800
    assert settings.absolute_s == 86400.5
    assert settings.limits.max_fields == 80
    assert settings.refresh.wait_s == 2.5
    assert settings.public_urls == ("https://app.example.com", "https://www.example.net")
    assert settings.headers == {"X-Department": "org.department", "X-Title": "title"}
    assert settings.authorize_params == {"prompt": "consent", "ui_locales": 'de "x" & <y>'}
    assert settings.allow == ("example.com", "group:a/b")
    assert settings.client_secret.reveal() == "secret"
    assert settings.listen == "0.0.0.0:4180"
    assert settings.operations_listen == "0.0.0.0:4181"


def test_variables_and_a_file_say_the_same(tmp_path: Path) -> None:
    by_file = settings_of(minimal(**RICH), tmp_path)
    by_variables = settings_of(minimal(**merged(RICH, {"configIn": "environment"})), tmp_path)
    assert by_variables == by_file


def test_templates_in_settings_are_filled_in(tmp_path: Path) -> None:
    values = minimal(
        **merged(RICH, {"config": {"public_url": '{{ printf "https://%s.example.com" .Release.Name }}'}})
    )
    assert settings_of(values, tmp_path).public_urls == ("https://app.example.com",)


def test_the_schema_of_config_follows_the_declaration() -> None:
    from proxy.config.registry import declared

    properties = generate.config_schema()["properties"]
    assert "client_secret" not in properties.pop("providers")["additionalProperties"]["properties"]
    found = {key for key, content in properties.items() if "properties" not in content}
    found |= {f"{group}.{key}" for group in properties for key in properties[group].get("properties", ())}
    secrets = {each.key for each in declared().values() if each.kind == "secret"}
    files = {f"{each.key}_file" for each in declared().values() if each.has_file}
    assert found == (set(declared()) | files) - secrets - set(generate.CHART_SETS)


def test_defaults_of_the_values_fit_their_schema() -> None:
    import json

    import jsonschema

    schema = json.loads((generate.CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(yaml.safe_load(generate.values_text()))
