"""An upgrade from every released version of the chart goes through: its values are taken, what is immutable stays."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from charts import generate
from tests.chart.manifests import Manifest, manifests

RELEASED = sorted((Path(__file__).parent / "released").glob("*/*-values.yaml"))
NAMES = [f"{path.parent.name}-{path.name.removesuffix('-values.yaml')}" for path in RELEASED]


def before(path: Path) -> list[Manifest]:
    """What the released chart made of these values."""
    text = (path.parent / path.name.replace("-values", "")).read_text()
    return [found for found in yaml.safe_load_all(text) if found]


def key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


@pytest.mark.parametrize("path", RELEASED, ids=NAMES)
def test_values_of_a_released_version_still_render_and_every_object_is_still_there(path: Path) -> None:
    now = {key(manifest) for manifest in manifests(yaml.safe_load(path.read_text()))}
    assert {key(manifest) for manifest in before(path)} <= now


@pytest.mark.parametrize("path", RELEASED, ids=NAMES)
def test_what_kubernetes_lets_nobody_change_has_not_changed(path: Path) -> None:
    now = {key(manifest): manifest for manifest in manifests(yaml.safe_load(path.read_text()))}
    for manifest in before(path):
        new = now[key(manifest)]
        match manifest["kind"]:
            case "Deployment":
                assert new["spec"]["selector"] == manifest["spec"]["selector"]
            case "PersistentVolumeClaim":
                assert new["spec"] == manifest["spec"]
            case "Service":
                assert new["spec"]["type"] == manifest["spec"]["type"]
                assert new["spec"]["selector"] == manifest["spec"]["selector"]
                ports = [(port["name"], port["port"]) for port in manifest["spec"]["ports"]]
                assert [(port["name"], port["port"]) for port in new["spec"]["ports"]] == ports
            case _:
                assert new["apiVersion"] == manifest["apiVersion"]


@pytest.mark.parametrize("path", RELEASED, ids=NAMES)
def test_a_rollout_from_a_released_version_serves_the_same_ports_all_the_time(path: Path) -> None:
    """The Service's target is a name: pods of both versions must have it."""

    def ports(found: list[Manifest]) -> set[str]:
        container = next(m for m in found if m["kind"] == "Deployment")["spec"]["template"]["spec"][
            "containers"
        ][0]
        return {port["name"] for port in container["ports"]}

    assert ports(before(path)) <= ports(manifests(yaml.safe_load(path.read_text())))


def test_every_version_of_the_chart_is_in_the_upgrade_notes() -> None:
    notes = (generate.CHART / "UPGRADING.md").read_text()
    current = yaml.safe_load((generate.CHART / "Chart.yaml").read_text())["version"]
    headings = re.findall(r"^## (\S+)$", notes, re.MULTILINE)
    assert headings[0] == current
    assert {path.parent.name for path in RELEASED} | {current} == set(headings)
