"""deploy/kubernetes: what a cluster is given. Read from deploy/kubernetes/rendered, which Kustomize is held against."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.config.load import load_settings

KUBERNETES = Path(__file__).parent.parent / "deploy" / "kubernetes"
OVERLAYS = ("edge", "sidecar")
RELEASES = ("1.30", "1.33", "1.36")
"""The oldest with `preStop: sleep`, and newer ones."""
KUBECTL = shutil.which("kubectl")
STOP_MARGIN_SECONDS = 5
PROBES = {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/live"}

Manifest = dict[str, Any]


def rendered(overlay: str) -> list[Manifest]:
    return list(yaml.safe_load_all((KUBERNETES / "rendered" / f"{overlay}.yaml").read_text("utf-8")))


def only(overlay: str, kind: str) -> Manifest:
    (found,) = (one for one in rendered(overlay) if one["kind"] == kind)
    return found


def pod(overlay: str) -> Manifest:
    spec: Manifest = only(overlay, "Deployment")["spec"]["template"]["spec"]
    return spec


def router(overlay: str) -> Manifest:
    spec = pod(overlay)
    (found,) = (one for one in (*spec.get("initContainers", ()), *spec["containers"]) if one["name"] == "router")
    return dict(found)


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not there (Debian: kubernetes-client)")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_committed_is_what_kustomize_makes(overlay: str) -> None:
    assert KUBECTL is not None
    made = subprocess.run(
        [KUBECTL, "kustomize", KUBERNETES / "overlays" / overlay], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    remedy = f"kubectl kustomize deploy/kubernetes/overlays/{overlay} >deploy/kubernetes/rendered/{overlay}.yaml"
    assert made.stdout == (KUBERNETES / "rendered" / f"{overlay}.yaml").read_text("utf-8"), remedy


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None, reason="PyPI's kubernetes-validate is not installed"
)
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_fits_the_published_schema(overlay: str, release: str) -> None:
    from kubernetes_validate import ValidationError, validate

    for manifest in rendered(overlay):
        assert validate(manifest, release, strict=True) == release
    wrong = only(overlay, "Deployment")
    wrong["spec"]["template"]["spec"]["topologySpread"] = []
    with pytest.raises(ValidationError):
        validate(wrong, release, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_config_in_it_is_valid_and_the_one_beside_it(overlay: str, tmp_path: Path) -> None:
    data = only(overlay, "ConfigMap")["data"]
    assert data == {"router.yaml": (KUBERNETES / "overlays" / overlay / "router.yaml").read_text("utf-8")}
    (tmp_path / "router.yaml").write_text(data["router.yaml"])
    settings = load_settings(tmp_path / "router.yaml")
    ports = {one["name"]: one["containerPort"] for one in router(overlay)["ports"]}
    assert ports == {"http": settings.listen[0].address.port, "admin": settings.admin.listen.port}
    mounts = {one["mountPath"] for one in router(overlay)["volumeMounts"]}
    assert mounts == {"/etc/ring-router", "/tmp", settings.state_dir}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_router_may_do_nothing_that_it_does_not_need(overlay: str) -> None:
    spec = pod(overlay)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert not spec["automountServiceAccountToken"]
    assert spec["serviceAccountName"] == only(overlay, "ServiceAccount")["metadata"]["name"]
    assert router(overlay)["securityContext"] == {
        "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert "cpu" not in router(overlay)["resources"]["limits"]
    volumes = {one["name"]: one for one in spec["volumes"]}
    assert {one["name"] for one in router(overlay)["volumeMounts"]} == set(volumes)
    assert volumes["config"]["configMap"]["name"] == only(overlay, "ConfigMap")["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_probes_ask_the_admin_side_and_liveness_is_patient(overlay: str) -> None:
    container = router(overlay)
    assert {name: container[name]["httpGet"]["path"] for name in PROBES} == PROBES
    assert {container[name]["httpGet"]["port"] for name in PROBES} == {"admin"}
    live = container["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] >= 60


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_time_to_drain(overlay: str) -> None:
    """Nobody is sent to a pod that is about to end, and then its requests have their time."""
    spec = pod(overlay)
    (serving,) = spec["containers"]
    settings = load_settings(KUBERNETES / "overlays" / overlay / "router.yaml")
    waits = serving["lifecycle"]["preStop"]["sleep"]["seconds"] + settings.shutdown.delay
    if settings.sidecar is not None:
        waits += settings.shutdown.deadline
    assert waits >= 5
    assert waits + settings.timeouts.drain + STOP_MARGIN_SECONDS <= spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_prometheus_reaches_the_admin_side(overlay: str) -> None:
    policy = only(overlay, "NetworkPolicy")["spec"]
    labels = only(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress"]
    by_port = {one["ports"][0]["port"]: one.get("from") for one in policy["ingress"]}
    assert by_port[8080] is None
    assert by_port[9900] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    (job,) = yaml.safe_load((KUBERNETES / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    annotations = only(overlay, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": "9900"}
    assert job["job_name"] == "ring-router"
    assert job["relabel_configs"][0]["regex"] == f"{labels['app.kubernetes.io/part-of']};true"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_leads_to_the_router(overlay: str) -> None:
    service, labels = (
        only(overlay, "Service")["spec"],
        only(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"],
    )
    assert service["selector"].items() <= labels.items()
    assert [one["targetPort"] for one in service["ports"]] == ["http"]
    assert "http" in {one["name"] for one in router(overlay)["ports"]}


def test_the_edge_is_two_pods_at_least_and_loses_one_at_a_time() -> None:
    deployment, scaling, budget = (
        only("edge", kind)["spec"] for kind in ("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget")
    )
    assert "replicas" not in deployment
    assert scaling["minReplicas"] >= 2
    assert scaling["scaleTargetRef"]["name"] == only("edge", "Deployment")["metadata"]["name"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == deployment["selector"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    spread = pod("edge")["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert all(one["labelSelector"] == deployment["selector"] for one in spread)


def test_a_sidecar_is_there_before_its_application_and_after_it() -> None:
    (sidecar,) = pod("sidecar")["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert "startupProbe" in sidecar
    settings = load_settings(KUBERNETES / "overlays" / "sidecar" / "router.yaml")
    assert settings.sidecar is not None
    assert pod("sidecar")["containers"][0]["readinessProbe"]["tcpSocket"]["port"] == settings.sidecar.app.port
    inbound, outbound = settings.listen
    assert inbound.inbound
    assert outbound.outbound
    assert outbound.address.host == "127.0.0.1"
