"""A workload that runs oauth2-proxy: a Kubernetes manifest or a Compose file."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

from proxy.importing import alpha
from proxy.importing.arguments import from_arguments, from_environment
from proxy.importing.files import from_toml
from proxy.importing.given import Elsewhere, Given

_REFERENCE = re.compile(r"\$\((\w+)\)")


def is_one(document: Mapping[str, Any]) -> bool:
    """Whether a YAML document is a manifest or a Compose file."""
    return ("kind" in document and "apiVersion" in document) or isinstance(document.get("services"), dict)


def from_workload(document: Mapping[str, Any]) -> Given:
    """Read the files, variables and arguments that a workload gives to oauth2-proxy."""
    given = Given()
    for item in _items(document):
        if item.get("kind") == "ConfigMap":
            _from_config_map(item, given)
    for item in _items(document):
        count = cast("dict[str, Any]", item.get("spec") or {}).get("replicas")
        if isinstance(count, int) and any(_containers(item)):
            given.replicas = max(given.replicas, count)
    for container in _containers(document):
        env = _environment(container, given)
        words = [*_words(container.get("command")), *_words(container.get("args"))]
        given.over(from_environment(env))
        given.over(from_arguments(words, partial(_resolved, env)))
        for name in ("config", "alpha-config"):
            given.values.pop(name, None)
    return given


def _items(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if str(document.get("kind", "")).endswith("List"):
        for item in cast("list[object]", document.get("items") or []):
            if isinstance(item, dict):
                yield from _items(cast("dict[str, Any]", item))
    else:
        yield document


def _from_config_map(item: Mapping[str, Any], given: Given) -> None:
    for key, text in cast("dict[str, object]", item.get("data") or {}).items():
        if not isinstance(text, str):
            continue
        if key.endswith((".cfg", ".toml", ".conf")):
            given.over(from_toml(text, key))
        elif key.endswith((".yaml", ".yml")):
            import yaml

            content = yaml.safe_load(text)
            if isinstance(content, dict) and alpha.is_one(cast("dict[str, Any]", content)):
                given.over(alpha.from_alpha(cast("dict[str, Any]", content), key, os.environ))


def _containers(node: object) -> Iterator[dict[str, Any]]:
    """Every container or service of oauth2-proxy, wherever it is."""
    if isinstance(node, list):
        for item in cast("list[object]", node):
            yield from _containers(item)
    elif isinstance(node, dict):
        table = cast("dict[str, Any]", node)
        if re.search(r"oauth2[-_]proxy", str(table.get("image", ""))):
            # Compose calls the arguments a command.
            yield (
                table
                if "args" in table or "environment" not in table
                else {**table, "env": table["environment"]}
            )
            return
        for value in table.values():
            yield from _containers(value)


def _environment(container: Mapping[str, Any], given: Given) -> dict[str, str]:
    env: dict[str, str] = {}
    variables: object = container.get("env") or {}
    if isinstance(variables, dict):
        env = {str(name): str(value) for name, value in cast("dict[Any, Any]", variables).items()}
    else:
        for variable in cast("list[object]", variables):
            if isinstance(variable, str):
                name, _, value = variable.partition("=")
                env[name] = value
            elif isinstance(variable, dict):
                _take(cast("dict[str, Any]", variable), env, given)
    if container.get("envFrom") or container.get("env_file"):
        given.troubles.append(("envFrom", "variables that stand elsewhere: name them with --env-file"))
    return env


def _take(variable: Mapping[str, Any], env: dict[str, str], given: Given) -> None:
    name = str(variable.get("name", ""))
    source = cast("dict[str, Any]", variable.get("valueFrom") or {})
    secret = cast("dict[str, Any]", source.get("secretKeyRef") or {})
    if secret:
        env[name] = Elsewhere(f"the key {secret.get('key')} of the Secret {secret.get('name')}")
    elif source:
        given.troubles.append((name, "a value that stands elsewhere: name it with --env-file"))
    else:
        env[name] = str(variable.get("value", ""))


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return shlex.split(value)
    return [str(word) for word in cast("list[object]", value)] if isinstance(value, list) else []


def _resolved(env: Mapping[str, str], text: str) -> str:
    """A value with `$(NAME)` replaced, as the kubelet does; what is kept elsewhere stays there."""
    for name in _REFERENCE.findall(text):
        if isinstance(env.get(name), Elsewhere):
            return env[name]
    return _REFERENCE.sub(lambda match: env.get(match[1], match[0]), text)
