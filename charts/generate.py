"""Write what the charts hold twice: schemas, values of the library, tables of values, golden manifests.

`make chart` runs it; a test fails when a file differs from what it would write. Sources are
charts/nightporter/values.yaml (names, defaults, comments) and the settings' one declaration
(proxy/config/declaration.py), from which the schema of `config` comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

from proxy.config.reference import schema as settings_schema
from proxy.config.registry import GROUPS, declared

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts/nightporter"
LIBRARY = CHART / "charts/nightporter-lib"
GOLDEN = ROOT / "tests/chart/golden"
PART_TWO = "\n# Part two:"
HEADER = "Made by `make chart`: change charts/nightporter/values.yaml or charts/generate.py."

# --- values -------------------------------------------------------------------------------


def values_text() -> str:
    return (CHART / "values.yaml").read_text()


def library_values() -> str:
    """Part one of the application chart's values, which is all of the library's."""
    return values_text().split(PART_TWO)[0]


def comments(text: str) -> dict[str, str]:
    """What the comment right above a key says, by the key's path."""
    lines = text.splitlines()
    found: dict[str, str] = {}

    def walk(node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name = f"{path}.{key.value}" if path else key.value
            above: list[str] = []
            line, indent = key.start_mark.line - 1, " " * key.start_mark.column
            while line >= 0 and lines[line].startswith(f"{indent}# "):
                above.insert(0, lines[line].strip()[2:])
                line -= 1
            found[name] = " ".join(above)
            walk(value, name)

    walk(yaml.compose(text), "")
    return found


# --- schema -------------------------------------------------------------------------------

TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
OPEN: dict[str, Any] = {"type": "object"}
OBJECTS = {"type": "array", "items": {"type": "object"}}
STRINGS = {"type": "array", "items": {"type": "string"}}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
COUNT = {"type": "integer", "minimum": 0}
PERCENT = {"type": "integer", "minimum": 0, "maximum": 100_000}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
QUANTITY = {"type": "string", "pattern": "^[0-9.]+[a-zA-Z]*$"}
NAMED = {"type": "array", "items": {"type": "object", "required": ["name"]}}

OVERRIDES: dict[str, dict[str, Any]] = {
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.digest": {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
    "configIn": {"enum": ["configMap", "environment"]},
    "ports.http": PORT,
    "ports.operations": PORT,
    "ports.auth": PORT,
    "journal.sizeLimit": QUANTITY,
    "drain.sleepSeconds": {"type": "integer", "minimum": 1, "maximum": 300},
    "secrets.extra": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name", "key", "path"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "key": {"type": "string", "minLength": 1},
                "path": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"},
            },
        },
    },
    "secrets.providers": {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "required": ["name", "key"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "key": {"type": "string", "minLength": 1},
            },
        },
    },
    "extraArgs": STRINGS,
    "extraEnv": NAMED,
    "extraVolumes": NAMED,
    "extraVolumeMounts": {"type": "array", "items": {"type": "object", "required": ["name", "mountPath"]}},
    "imagePullSecrets": NAMED,
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": PORT,
    "operationsService.port": PORT,
    "service.nodePort": {"type": "integer", "minimum": 0, "maximum": 65535},
    "autoscaling.minReplicas": {"type": "integer", "minimum": 1},
    "autoscaling.maxReplicas": {"type": "integer", "minimum": 1},
    "autoscaling.targetCPUUtilizationPercentage": PERCENT,
    "autoscaling.targetMemoryUtilizationPercentage": PERCENT,
    "podDisruptionBudget.maxUnavailable": {"type": ["integer", "string"]},
    "podDisruptionBudget.minAvailable": {"type": ["integer", "string"]},
    "ingress.hosts": STRINGS,
    "ingress.paths": {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^/"}},
    "httpRoute.hostnames": STRINGS,
    "httpRoute.path": {"type": "string", "pattern": "^/"},
    "httpRoute.parentRefs": NAMED,
    "networkPolicy.egress.opPorts": {"type": "array", "items": PORT},
    "networkPolicy.egress.storePorts": {"type": "array", "items": PORT},
    "persistence.accessModes": STRINGS,
    "persistence.size": QUANTITY,
    "serviceMonitor.interval": DURATION,
    "serviceMonitor.scrapeTimeout": DURATION,
    "podMonitor.interval": DURATION,
    "podMonitor.scrapeTimeout": DURATION,
    "prometheusRule.disabled": STRINGS,
    "injection.apiVersion": {"enum": ["", "v1", "v1beta1", "v1alpha1"]},
    "injection.failurePolicy": {"enum": ["Fail", "Ignore"]},
    "dnsPolicy": {"enum": ["", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]},
    "topologySpreadConstraints": {"type": "array", "items": {"type": "object", "required": ["topologyKey"]}},
}
CHART_SETS = ("listen", "operations_listen", "forward_auth.listen")
"""Settings that follow from the ports, and so are no part of `config`."""

OPEN_OBJECTS = {
    *("resources", "securityContext", "podSecurityContext", "affinity", "dnsConfig", "strategy"),
    *("probes.startup", "probes.liveness", "probes.readiness", "journal.volume", "service.spec"),
    *("autoscaling.behavior", "injection.namespaceSelector", "podMonitor.selector"),
    "podMonitor.namespaceSelector",
}


def config_schema() -> dict[str, Any]:
    """Of `config`: the settings' own, less what the chart sets itself and what belongs into Secrets."""
    found = settings_schema()
    tables = [found["properties"], *(found["properties"][group]["properties"] for group in GROUPS)]
    for setting in declared().values():
        name = setting.key.rpartition(".")[2]
        for table in tables:
            content = table.get(name)
            if content is None or (table is tables[0]) == bool(setting.group):
                continue
            if setting.kind == "secret" or setting.key in CHART_SETS:
                del table[name]
            elif setting.kind == "url":
                content["pattern"] = "^[^@]*$"
                content["description"] += " With a password in it: in a Secret."
    for name in ("client_secret", "client_secret_next", "client_key"):
        del found["properties"]["providers"]["additionalProperties"]["properties"][name]
    return {**{k: v for k, v in found.items() if k != "$schema"}, "title": "Settings of Nightporter"}


def value_schema(path: str, default: Any) -> dict[str, Any]:
    """The schema of one value: as it is overridden, else by its default."""
    if path == "config":
        return config_schema()
    if path in OVERRIDES:
        return dict(OVERRIDES[path])
    name = path.rpartition(".")[2]
    if path in OPEN_OBJECTS:
        return dict(OPEN)
    if name in ("annotations", "nodeSelector") or name.lower().endswith(("labels", "annotations")):
        return dict(TEXTS)
    match default:
        case bool():
            return {"type": "boolean"}
        case int():
            return dict(COUNT)
        case str():
            return {"type": "string"}
        case list():
            return dict(OBJECTS)
        case _:
            inner = {key: value_schema(f"{path}.{key}", value) for key, value in default.items()}
            return {"type": "object", "additionalProperties": False, "properties": inner}


def chart_schema(text: str, title: str, subcharts: tuple[str, ...] = ()) -> str:
    """The schema of a chart's values, as JSON."""
    said = comments(text)
    properties: dict[str, Any] = {}
    for key, default in yaml.safe_load(text).items():
        properties[key] = value_schema(key, default)
    _describe(properties, "", said)
    properties["global"] = {"type": "object", "description": "Values that charts share, as Helm has it."}
    for name in subcharts:
        properties[name] = {"type": "object", "description": "Not used: the library's values are at the top."}
    content = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": HEADER,
        "title": title,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _describe(properties: dict[str, Any], path: str, said: dict[str, str]) -> None:
    for key, content in properties.items():
        name = f"{path}.{key}" if path else key
        if said.get(name) and "description" not in content:
            content["description"] = said[name]
        if name != "config" and isinstance(content.get("properties"), dict):
            _describe(content["properties"], name, said)


# --- documentation ------------------------------------------------------------------------


def table(text: str) -> str:
    """The values as a Markdown table."""
    return "\n".join(
        ["| value | default | meaning |", "|---|---|---|", *_rows(yaml.safe_load(text), "", comments(text))]
    )


def _rows(values: dict[str, Any], path: str, said: dict[str, str]) -> Iterator[str]:
    for key, default in values.items():
        name = f"{path}.{key}" if path else key
        closed = "properties" in value_schema(name, default) and name != "config"
        cell = "" if closed else f"`{json.dumps(default, ensure_ascii=False)}`"
        meaning = said[name]
        if meaning or not closed:
            yield f"| `{name}` | {cell} | {meaning} |"
        if closed:
            yield from _rows(default, name, said)


def readme(source: Path, text: str) -> str:
    """A chart's README: what people wrote, with the table where it says so."""
    return source.read_text().replace("<!-- values -->", f"<!-- {HEADER} -->\n\n{table(text)}")


def group_template() -> str:
    names = json.dumps(list(GROUPS), separators=(",", ":"))
    return (
        f"{{{{/* Tables of the settings that are groups of settings. {HEADER} */}}}}\n"
        f'{{{{- define "nightporter.settings.groups" -}}}}{names}{{{{- end -}}}}\n'
    )


# --- manifests ----------------------------------------------------------------------------


def render(chart: Path, values: dict[str, Any], name: str = "app", namespace: str = "web") -> dict[str, str]:
    """A chart's manifests by template, without notes and empty ones.

    Raises:
        helm_python.HelmError: with Helm's message.
    """
    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        made = loaded.render(values, name=name, namespace=namespace)
    return {
        path.removeprefix(f"{loaded_name(chart)}/"): text
        for path, text in made.items()
        if text.strip() and not path.endswith("NOTES.txt")
    }


def loaded_name(chart: Path) -> str:
    return yaml.safe_load((chart / "Chart.yaml").read_text())["name"]


def scenarios() -> dict[str, tuple[Path, Path]]:
    """Everything that is rendered: name → chart and values."""
    found = {
        path.name.removesuffix("-values.yaml"): (CHART, path)
        for path in sorted((CHART / "ci").glob("*.yaml"))
    }
    for path in sorted((ROOT / "charts/examples").glob("*/values.yaml")):
        own = path.parent / "Chart.yaml"
        found[f"example-{path.parent.name}"] = (path.parent if own.exists() else CHART, path)
    return found


def golden(name: str) -> str:
    """The manifests of a scenario as one text."""
    chart, path = scenarios()[name]
    parts: list[str] = []
    for template, text in sorted(render(chart, yaml.safe_load(path.read_text()) or {}).items()):
        parts.append(f"# {template}\n{text.strip()}\n")
    return re.sub(r"[ \t]+$", "", "---\n".join(parts), flags=re.MULTILINE)


# --- all of it ----------------------------------------------------------------------------


def files() -> dict[Path, str]:
    """Every file that is generated, golden manifests aside, and what it must hold."""
    library, whole = library_values(), values_text()
    return {
        LIBRARY / "values.yaml": library,
        LIBRARY / "values.schema.json": chart_schema(library, "Values of nightporter-lib"),
        LIBRARY / "templates/_groups.tpl": group_template(),
        LIBRARY / "README.md": readme(LIBRARY / "README.in.md", library),
        CHART / "values.schema.json": chart_schema(whole, "Values of nightporter", ("nightporter-lib",)),
        CHART / "README.md": readme(CHART / "README.in.md", whole),
    }


def main() -> None:
    for path, text in files().items():
        path.write_text(text)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    wanted = {f"{name}.yaml" for name in scenarios()}
    for path in GOLDEN.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name in scenarios():
        (GOLDEN / f"{name}.yaml").write_text(golden(name))


if __name__ == "__main__":
    main()
