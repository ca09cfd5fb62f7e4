"""What the charts hold twice says the same, and every scenario renders as it was last looked at."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import helm_python
import pytest
import yaml

from charts import generate

SCENARIOS = generate.scenarios()


@pytest.mark.parametrize("path", generate.files(), ids=lambda path: str(path.relative_to(generate.ROOT)))
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    assert path.read_text() == generate.files()[path], "run `make chart`"


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_manifests_of_a_scenario_are_the_ones_in_the_repository(name: str) -> None:
    assert (generate.GOLDEN / f"{name}.yaml").read_text() == generate.golden(name), (
        "look at it, run `make chart`"
    )


def test_there_is_no_manifest_without_a_scenario() -> None:
    assert {path.stem for path in generate.GOLDEN.iterdir()} == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_passes_helms_lint(name: str) -> None:
    chart, values = SCENARIOS[name]
    report = helm_python.lint(
        chart, yaml.safe_load(values.read_text()), strict=True, with_subcharts=True, namespace="web"
    )
    complaints = [m for m in report["messages"] if m["severity"] > 1]
    assert not report["errors"], report["errors"]
    assert not complaints


def test_every_value_says_what_it_is_for() -> None:
    rows = generate.table(generate.values_text()).splitlines()[2:]
    assert len(rows) > 100
    silent = [row for row in rows if row.endswith("|  |")]
    assert silent == []


def test_versions_agree() -> None:
    version = tomllib.loads((generate.ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((generate.CHART / "Chart.yaml").read_text())
    library = yaml.safe_load((generate.LIBRARY / "Chart.yaml").read_text())
    assert {chart["appVersion"], library["appVersion"]} == {version}
    assert chart["version"] == library["version"] == chart["dependencies"][0]["version"]
    names = (generate.LIBRARY / "templates/_names.tpl").read_text()
    assert re.search(r'define "nightporter.version" -\}\}([^{]*)', names)[1] == version  # type: ignore[index]


def test_the_library_is_found_beside_the_chart_too() -> None:
    beside = generate.ROOT / "charts/nightporter-lib"
    assert beside.resolve() == generate.LIBRARY.resolve()


def test_the_chart_can_be_packaged_and_renders_from_the_package(tmp_path: Path) -> None:
    packed = helm_python.package(generate.CHART, destination=tmp_path)
    values = yaml.safe_load((generate.CHART / "ci/minimal-values.yaml").read_text())
    with helm_python.Chart.load(packed) as chart:
        assert chart.render(values, name="app", namespace="web")["nightporter/templates/deployment.yaml"]
