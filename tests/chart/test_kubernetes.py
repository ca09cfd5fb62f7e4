"""Every rendered object against the API schemas of every supported Kubernetes, and PodSecurity `restricted`."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from charts import generate
from tests.chart.manifests import Manifest, containers, pod_specs

SCENARIOS = list(generate.scenarios())
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]

# Kinds of others, whose schemas are not Kubernetes': the golden manifests are their check.
FOREIGN = {
    *("HTTPRoute", "ServiceMonitor", "PodMonitor", "PrometheusRule"),
    *("AuthorizationPolicy", "EnvoyFilter", "IngressRoute", "Middleware", "SecurityPolicy"),
}
# Not in every version of Kubernetes.
SINCE = {"MutatingAdmissionPolicy": 34, "MutatingAdmissionPolicyBinding": 34}


def documents(name: str) -> list[Manifest]:
    return [found for found in yaml.safe_load_all((generate.GOLDEN / f"{name}.yaml").read_text()) if found]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_rendered_is_valid_in_every_supported_kubernetes(name: str, version: str) -> None:
    checked = 0
    for document in documents(name):
        if document["kind"] in FOREIGN or int(version[2:]) < SINCE.get(document["kind"], 0):
            continue
        kubernetes_validate.validate(document, version, strict=True)
        checked += 1
    assert checked or name == "injection" or name.startswith("example-")


def test_only_foreign_kinds_are_left_out() -> None:
    for name in SCENARIOS:
        for document in documents(name):
            group = document["apiVersion"].partition("/")[0]
            known = "." not in group or (group.endswith(".k8s.io") and not group.startswith("gateway."))
            assert known != (document["kind"] in FOREIGN), document["kind"]


def test_the_check_itself_finds_mistakes() -> None:
    document = next(found for found in documents("minimal") if found["kind"] == "Deployment")
    document["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def restricted(spec: dict[str, Any]) -> list[str]:
    """What PodSecurity `restricted` would refuse (the policy of Kubernetes 1.30 and later)."""
    found: list[str] = []
    pod = spec.get("securityContext", {})
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("host namespaces")
    allowed = {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"),
        "secret",
    }
    found += [f"volume {v['name']}" for v in spec.get("volumes", ()) if not allowed & set(v)]
    for container in containers(spec):
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{container['name']}: privilege escalation")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            found.append(f"{container['name']}: capabilities")
        if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
            found.append(f"{container['name']}: root")
        if own.get("runAsUser", pod.get("runAsUser", 1)) == 0:
            found.append(f"{container['name']}: user 0")
        if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") != "RuntimeDefault":
            found.append(f"{container['name']}: seccomp")
        if any(port.get("hostPort") for port in container.get("ports", ())):
            found.append(f"{container['name']}: host port")
    return found


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "everything"])
def test_every_pod_fits_pod_security_restricted(name: str) -> None:
    for spec in pod_specs(documents(name)):
        assert restricted(spec) == []


def test_our_container_needs_nothing_from_the_pod_to_be_restricted() -> None:
    for spec in pod_specs(documents("everything")):
        alone = {"containers": [c for c in containers(spec) if c["name"] in ("nightporter", "test")]}
        assert restricted(alone) == []


def test_the_check_of_restricted_finds_a_pod_that_is_not() -> None:
    spec = pod_specs(documents("minimal"))[0]
    del spec["containers"][0]["securityContext"]["capabilities"]
    assert restricted(spec) == ["nightporter: capabilities"]
