"""deploy/compose: every file it names is there, and each service takes the one it gets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.config.load import load_settings

COMPOSE = Path(__file__).parent.parent / "deploy" / "compose"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))["services"]
VOLUMES = set(yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))["volumes"])
DOCKERFILE = (COMPOSE.parent.parent / "Dockerfile").read_text("utf-8")
PROMTOOL = shutil.which("promtool")


def files_of(service: str) -> dict[str, Path]:
    """Path in the container → what is mounted there from here."""
    mounts = [one.split(":") for one in SERVICES[service].get("volumes", ())]
    return {there: (COMPOSE / here).resolve() for here, there, *_ in mounts if here.startswith(".")}


def test_what_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for place, path in files_of(name).items():
            assert path.exists(), (name, place)
        named = [one.partition(":")[0] for one in service.get("volumes", ())]
        assert {one for one in named if not one.startswith(".")} <= VOLUMES
        assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_every_image_is_pinned_and_only_the_shop_is_open_to_the_network() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            assert re.fullmatch(r"[a-z/-]+:v?\d[\w.-]*", service["image"]), name
        open_to_all = [one for one in service.get("ports", ()) if not one.startswith("127.0.0.1:")]
        assert open_to_all == (["8080:8080"] if name == "router" else [])


def test_the_router_takes_its_config_and_asks_whom_there_is() -> None:
    router = SERVICES["router"]
    settings = load_settings(files_of("router")["/etc/ring-router"] / "router.yaml")
    assert settings.listen[0].address.port == 8080
    for version in settings.services["shop"].versions.values():
        for endpoint in version.endpoints:
            assert f"-listen=:{endpoint.url.port}" in SERVICES[endpoint.url.host]["command"]
    assert router["environment"]["REDIS_URL"] == "redis://redis:6379/0"
    assert router["read_only"]
    assert router["cap_drop"] == ["ALL"]
    assert router["tmpfs"] == ["/tmp"]
    assert f"state:{settings.state_dir}" in router["volumes"]
    assert f'VOLUME ["{settings.state_dir}"]' in DOCKERFILE
    assert int(router["stop_grace_period"].removesuffix("s")) >= settings.shutdown.delay + settings.timeouts.drain + 5


def test_prometheus_asks_the_router_under_the_name_that_the_alerts_have() -> None:
    files = files_of("prometheus")
    config = yaml.safe_load(files["/etc/prometheus/prometheus.yml"].read_text("utf-8"))
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "ring-router"
    settings = load_settings(COMPOSE / "router" / "router.yaml")
    assert job["static_configs"] == [{"targets": [f"router:{settings.admin.listen.port}"]}]
    assert [f"/etc/prometheus/{one}" for one in config["rule_files"]] == [
        one for one in files if one != "/etc/prometheus/prometheus.yml"
    ]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not there: apt-get install prometheus")
def test_prometheus_takes_its_config(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    for place, path in files_of("prometheus").items():
        shutil.copy(path, tmp_path / Path(place).name)
    command = [PROMTOOL, "check", "config", tmp_path / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_grafana_is_given_the_dashboard_and_where_it_asks() -> None:
    files = files_of("grafana")
    (source,) = yaml.safe_load(files["/etc/grafana/provisioning/datasources/prometheus.yaml"].read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    assert source["isDefault"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load(files["/etc/grafana/provisioning/dashboards/ring-router.yaml"].read_text())[
        "providers"
    ]
    (dashboard,) = (path for place, path in files.items() if place.startswith(provider["options"]["path"] + "/"))
    variables = json.loads(dashboard.read_text("utf-8"))["templating"]["list"]
    assert [one["query"] for one in variables if one["type"] == "datasource"] == [source["type"]]
