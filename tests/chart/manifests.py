"""What the chart's tests share: rendering, and finding things in what was rendered."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from charts import generate

Manifest = dict[str, Any]

MINIMAL: dict[str, Any] = yaml.safe_load((generate.CHART / "ci/minimal-values.yaml").read_text())


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values with changes, as Helm merges them: maps by key, None removes."""
    made = copy.deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = merged(made[key], value)
        elif value is None:
            made.pop(key, None)
        else:
            made[key] = value
    return made


def minimal(**changes: Any) -> dict[str, Any]:
    """The least that works, with changes."""
    return merged(MINIMAL, changes)


def manifests(values: dict[str, Any], chart: Path = generate.CHART, **options: str) -> list[Manifest]:
    """Every object that these values render to."""
    return [
        found
        for text in generate.render(chart, values, **options).values()
        for found in yaml.safe_load_all(text)
        if found
    ]


def one(found: list[Manifest], kind: str, ending: str = "") -> Manifest:
    """The only object of a kind (whose name ends so)."""
    some = [m for m in found if m["kind"] == kind and m["metadata"]["name"].endswith(ending)]
    assert len(some) == 1, f"{len(some)} of kind {kind}"
    return some[0]


def kinds(found: list[Manifest]) -> set[str]:
    return {manifest["kind"] for manifest in found}


def pod_specs(found: list[Manifest]) -> list[Manifest]:
    """Specs of every pod that is made."""
    specs: list[Manifest] = []
    for manifest in found:
        if manifest["kind"] == "Pod":
            specs.append(manifest["spec"])
        elif manifest["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            specs.append(manifest["spec"]["template"]["spec"])
    return specs


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def ours(spec: Manifest) -> Manifest:
    """Nightporter's container of a pod."""
    return next(container for container in containers(spec) if container["name"] == "nightporter")
