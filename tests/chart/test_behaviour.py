"""What the rendered objects do: order, drains, who may connect, what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from charts import generate
from tests.chart.manifests import Manifest, kinds, manifests, minimal, one, ours, pod_specs

NATIVE = generate.ROOT / "charts/examples/native-sidecar"
PLAIN = generate.ROOT / "charts/examples/plain-sidecar"


def deployment(**changes: Any) -> Manifest:
    return one(manifests(minimal(**changes)), "Deployment")


def test_a_native_sidecar_starts_before_the_app_and_holds_it_back_until_it_is_ready() -> None:
    spec = pod_specs(manifests({}, NATIVE))[0]
    first = spec["initContainers"][-1]
    assert (first["name"], first["restartPolicy"]) == ("nightporter", "Always")
    assert first["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert [container["name"] for container in spec["containers"]] == ["app"]


@pytest.mark.parametrize("chart", [NATIVE, PLAIN], ids=["native", "plain"])
def test_the_app_beside_a_sidecar_serves_on_while_the_endpoints_forget_the_pod(chart: Any) -> None:
    spec = pod_specs(manifests({}, chart))[0]
    app = next(container for container in spec["containers"] if container["name"] == "app")
    asleep_s = app["lifecycle"]["preStop"]["sleep"]["seconds"]
    own = ours(spec)["lifecycle"]["preStop"]
    if chart == NATIVE:  # it gets its SIGTERM when the app is gone; until then it only loses connections
        assert own == {"httpGet": {"path": "/let-go", "port": "np-operations"}}
    else:
        assert asleep_s > own["sleep"]["seconds"] + 3
    assert asleep_s >= 10
    assert spec["terminationGracePeriodSeconds"] >= asleep_s + 30 + 5


@pytest.mark.parametrize("chart", [NATIVE, PLAIN], ids=["native", "plain"])
def test_the_service_of_an_app_with_a_sidecar_leads_to_the_sidecar(chart: Any) -> None:
    found = manifests({}, chart)
    port = one(found, "Service")["spec"]["ports"][0]["targetPort"]
    container = ours(pod_specs(found)[0])
    numbers = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert port == "nightporter"
    allowed = one(found, "NetworkPolicy")["spec"]["ingress"]
    assert [rule["port"] for each in allowed for rule in each["ports"]] == [numbers[port]]


def test_the_library_has_its_own_container_and_the_chart_the_same_one() -> None:
    values = generate.yaml.safe_load((NATIVE / "values.yaml").read_text())["nightporter"]
    alone = ours(pod_specs(manifests(minimal(**values)))[0])
    inside = ours(pod_specs(manifests({}, NATIVE))[0])
    different = {name for name in {*inside, *alone} if inside.get(name) != alone.get(name)}
    assert different == {"restartPolicy", "readinessProbe", "lifecycle"}
    assert inside["readinessProbe"]["httpGet"]["path"] == "/readyz/app"


def test_a_rollout_never_has_fewer_pods_than_before() -> None:
    rolling = deployment()["spec"]["strategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_one_process_on_a_volume_ends_before_the_next_one_starts() -> None:
    found = deployment(replicas=1, config={"store": "sqlite:/var/lib/nightporter/sessions/s.db"})
    assert found["spec"]["strategy"] == {"type": "Recreate"}


def test_the_drain_fits_into_the_grace_period() -> None:
    spec = deployment()["spec"]["template"]["spec"]
    asleep = ours(spec)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert (asleep, spec["terminationGracePeriodSeconds"]) == (5, 45)


def test_a_pod_without_a_journal_has_no_local_storage_that_would_block_a_drain() -> None:
    volumes = deployment()["spec"]["template"]["spec"]["volumes"]
    assert [volume["name"] for volume in volumes if "emptyDir" in volume or "hostPath" in volume] == []


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        ({"replicas": 2}, True),
        ({"replicas": 1}, False),
        ({"autoscaling": {"enabled": True, "minReplicas": 1}}, False),
        ({"autoscaling": {"enabled": True, "minReplicas": 2}, "replicas": 1}, True),
        ({"podDisruptionBudget": {"enabled": False}}, False),
    ],
)
def test_a_budget_exists_only_where_it_does_not_block_every_drain(
    changes: dict[str, Any], there: bool
) -> None:
    assert ("PodDisruptionBudget" in kinds(manifests(minimal(**changes)))) is there


def test_an_autoscaler_owns_the_number_of_replicas() -> None:
    assert "replicas" not in deployment(autoscaling={"enabled": True})["spec"]


def test_a_change_of_settings_rolls_the_pods_and_another_release_of_the_chart_does_not() -> None:
    def template(**changes: Any) -> Manifest:
        return deployment(**changes)["spec"]["template"]["metadata"]

    assert template() != template(config={"idle_s": 60})
    assert "helm.sh/chart" not in template()["labels"]


def test_a_secret_is_a_file_that_is_brought_up_to_date_and_never_a_variable() -> None:
    spec = deployment()["spec"]["template"]["spec"]
    container = ours(spec)
    assert all("valueFrom" not in each for each in container["env"])
    assert all("subPath" not in each for each in container["volumeMounts"]), "a subPath is never updated"
    files = {each["name"]: each["value"] for each in container["env"] if each["name"].endswith("_FILE")}
    assert files == {
        "NIGHTPORTER_CLIENT_SECRET_FILE": "/run/secrets/nightporter/client-secret",
        "NIGHTPORTER_COOKIE_KEYS_FILE": "/run/secrets/nightporter/cookie-keys",
    }
    sources = next(v for v in spec["volumes"] if v["name"] == "nightporter-secrets")["projected"]["sources"]
    assert {item["path"] for source in sources for item in source["secret"]["items"]} == {
        "client-secret",
        "cookie-keys",
    }


def test_the_test_pod_gets_no_traffic_and_may_reach_the_operations_port() -> None:
    found = manifests(minimal(networkPolicy={"enabled": True}))
    labels = one(found, "Pod")["metadata"]["labels"]
    for service in (each for each in found if each["kind"] == "Service"):
        assert not service["spec"]["selector"].items() <= labels.items()
    rules = one(found, "NetworkPolicy")["spec"]["ingress"]
    operations = next(rule for rule in rules if rule["ports"][0]["port"] == 4181)
    assert operations["from"] == [{"podSelector": {"matchLabels": {"nightporter/test": "app"}}}]
    assert labels["nightporter/test"] == "app"


def test_the_public_service_does_not_lead_to_the_operations_port() -> None:
    found = manifests(minimal())
    public = one(found, "Service", "-nightporter")
    assert [port["targetPort"] for port in public["spec"]["ports"]] == ["nightporter"]


@pytest.mark.parametrize(
    ("config", "ports"),
    [
        ({"issuer": "https://op.example.com:8443/a"}, {8443, 6379, 80, 53}),
        ({"upstream": "https://my-app"}, {443, 6379, 53}),
        ({"store": "redis://redis:6380/0"}, {443, 6380, 80, 53}),
    ],
)
def test_a_network_policy_follows_the_addresses_in_the_settings(
    config: dict[str, Any], ports: set[int]
) -> None:
    policy = one(manifests(minimal(config=config, networkPolicy={"enabled": True})), "NetworkPolicy")
    assert {rule["port"] for each in policy["spec"]["egress"] for rule in each["ports"]} == ports


def test_routes_take_their_hosts_from_the_public_urls() -> None:
    urls = ["https://app.example.com:8443", "https://www.example.net"]
    found = manifests(
        minimal(
            config={"public_url": urls},
            ingress={"enabled": True},
            httpRoute={"enabled": True, "parentRefs": [{"name": "public"}]},
        )
    )
    hosts = ["app.example.com", "www.example.net"]
    assert [rule["host"] for rule in one(found, "Ingress")["spec"]["rules"]] == hosts
    assert one(found, "HTTPRoute")["spec"]["hostnames"] == hosts


def test_without_a_deployment_nothing_of_it_is_left() -> None:
    found = manifests(minimal(deployment={"enabled": False}, injection={"enabled": True}))
    assert kinds(found) == {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}


def test_injection_lets_a_labelled_pod_start_with_its_guard_or_not_at_all() -> None:
    found = manifests(minimal(deployment={"enabled": False}, injection={"enabled": True}))
    spec = one(found, "MutatingAdmissionPolicy")["spec"]
    assert spec["failurePolicy"] == "Fail"
    assert spec["matchConstraints"]["objectSelector"] == {"matchLabels": {"nightporter/inject": "true"}}
    expression = spec["mutations"][1]["jsonPatch"]["expression"]
    assert 'restartPolicy: "Always"' in expression
    assert "value: variables.upstream" in expression
    assert "configMap" not in expression, "the pod's namespace has no ConfigMap of ours"


def test_every_alert_asks_for_figures_that_exist() -> None:
    import re

    from proxy.shell.telemetry import Telemetry

    found = one(manifests(minimal(prometheusRule={"enabled": True})), "PrometheusRule")
    telemetry = Telemetry()
    told = telemetry.scrape().decode()
    runbook = (generate.ROOT / "docs/runbook.md").read_text()
    for rule in found["spec"]["groups"][0]["rules"]:
        for name in re.findall(r"nightporter_\w+", rule["expr"]):
            family = re.sub(r"_(total|count|sum|bucket)$", "", name)
            assert family in told, f"{rule['alert']}: {name}"
        title = re.search(r'Runbook, "([^"]+)"', rule["annotations"]["description"])
        assert title, rule["alert"]
        assert title[1] in runbook, f"{rule['alert']}: {title[1]}"


def test_selectors_and_names_are_the_ones_of_the_first_version() -> None:
    """They cannot be changed by an upgrade: a Deployment's selector is immutable, a renamed Service is a new one."""
    found = manifests(minimal())
    selector = {"app.kubernetes.io/name": "nightporter", "app.kubernetes.io/instance": "app"}
    assert one(found, "Deployment")["spec"]["selector"] == {"matchLabels": selector}
    names = {(each["kind"], each["metadata"]["name"]) for each in found if each["kind"] != "Pod"}
    assert names == {
        ("ConfigMap", "app-nightporter"),
        ("Deployment", "app-nightporter"),
        ("PodDisruptionBudget", "app-nightporter"),
        ("Service", "app-nightporter"),
        ("Service", "app-nightporter-operations"),
        ("ServiceAccount", "app-nightporter"),
    }


FORWARD_AUTH = sorted((generate.ROOT / "charts/examples").glob("forward-auth-*"))


@pytest.mark.parametrize("path", FORWARD_AUTH, ids=lambda path: path.name)
def test_an_engine_passes_on_every_header_that_we_set_and_the_cookies_without_ours(path: Any) -> None:
    values = generate.yaml.safe_load((path / "values.yaml").read_text())
    found = manifests(values)
    said = generate.yaml.safe_dump_all(found).lower()
    if path.name.endswith("istio"):  # there the mesh's own configuration does it
        said = (path / "README.md").read_text().lower()
    for name in ("user", "email", "preferred-username", "groups", "access-token"):
        assert f"x-forwarded-{name}" in said
    assert "cookie" in said
    assert one(found, "Service", "-auth")["spec"]["ports"][0]["port"] == 4182
    container = ours(pod_specs(found)[0])
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env["NIGHTPORTER_FORWARD_AUTH_LISTEN"] == "0.0.0.0:4182"


def test_nobody_but_the_engine_may_ask() -> None:
    values = generate.yaml.safe_load((FORWARD_AUTH[0] / "values.yaml").read_text())
    rules = one(manifests(values), "NetworkPolicy")["spec"]["ingress"]
    asking = [rule for rule in rules if rule["ports"][0]["port"] == 4182]
    assert len(asking) == 1
    assert asking[0]["from"] == values["networkPolicy"]["authFrom"]
    with pytest.raises(generate.helm_python.HelmError, match="authFrom is empty"):
        manifests({**values, "networkPolicy": {"enabled": True}})


def test_without_forward_auth_its_listener_is_closed() -> None:
    found = manifests(minimal())
    assert not [each for each in found if each["metadata"]["name"].endswith("-auth")]
    assert "FORWARD_AUTH" not in str(ours(pod_specs(found)[0])["env"])


def test_every_example_is_explained_and_listed() -> None:
    listed = (generate.ROOT / "charts/examples/README.md").read_text()
    for path in (generate.ROOT / "charts/examples").iterdir():
        if path.is_dir():
            assert (path / "README.md").read_text().startswith("# ")
            assert f"]({path.name}/README.md)" in listed
