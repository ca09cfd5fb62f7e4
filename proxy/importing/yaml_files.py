"""YAML that holds a configuration of oauth2-proxy: its alpha form, or a workload that runs it."""

from __future__ import annotations

import json
import os
from typing import Any, cast

from proxy.errors import ConfigError, Problem
from proxy.importing import alpha, workload
from proxy.importing.given import Given


def from_yaml(text: str, name: str) -> Given:
    """Read alpha YAML, a Kubernetes manifest or a Compose file, also as JSON; several documents are laid
    over each other.

    Raises:
        ConfigError: PyYAML is missing, it is no YAML, or none of these.
    """
    given = Given()
    found = False
    for document in _documents(text, name):
        if workload.is_one(document):
            given.over(workload.from_workload(document))
            found = True
        elif alpha.is_one(document):
            given.over(alpha.from_alpha(document, name, os.environ))
            found = True
    if not found:
        remedy = "name alpha configuration, a manifest with a container of oauth2-proxy, or a Compose file"
        raise ConfigError([Problem(name, "nothing of oauth2-proxy in it", remedy)])
    return given


def _documents(text: str, name: str) -> list[dict[str, Any]]:
    if name.endswith(".json"):  # needs no PyYAML, which the image leaves out
        try:
            document: object = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError([Problem(name, "not JSON", "save it as JSON")]) from None
        return [cast("dict[str, Any]", document)] if isinstance(document, dict) else []
    try:
        import yaml
    except ImportError:
        remedy = "install nightporter[import], or give the same as JSON (kubectl get -o json, yq -o json)"
        raise ConfigError([Problem(name, "YAML, and PyYAML is not installed", remedy)]) from None
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.MarkedYAMLError as error:
        # Its words may hold a part of the file: only the place is told.
        mark = error.problem_mark
        where = f"at line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigError([Problem(name, f"not YAML {where}", "save it as YAML")]) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError([Problem(name, "not YAML", "save it as YAML")]) from None
    return [cast("dict[str, Any]", document) for document in documents if isinstance(document, dict)]
