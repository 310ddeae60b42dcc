"""deploy/: every metric, label and value that alerts and dashboard name is one that /metrics has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.telemetry.catalogue import CODES, CONFIG, METRICS, Metric

DEPLOY = Path(__file__).parent.parent / "deploy"
SCRAPED = {"le", "job", "instance"}
"""Labels that Prometheus adds, or that a histogram has."""
SAMPLES: dict[str, Metric] = {name: metric for metric in METRICS for name in metric.samples}
RULES: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text("utf-8"))
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not there: apt-get install prometheus")

_SELECTOR = re.compile(r"(?<![\w:])(ringrouter_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def alerts() -> Iterator[dict[str, Any]]:
    for group in RULES["groups"]:
        yield from (rule for rule in group["rules"] if "alert" in rule)


def expressions() -> dict[str, str]:
    """Where it stands → PromQL."""
    found = {
        f"rule {rule.get('alert') or rule['record']}": rule["expr"]
        for group in RULES["groups"]
        for rule in group["rules"]
    }
    for panel in DASHBOARD["panels"]:
        for number, target in enumerate(panel.get("targets", ())):
            found[f"panel {panel['title']} {number}"] = target["expr"]
    for one in DASHBOARD["annotations"]["list"]:
        found[f"annotation {one['name']}"] = one["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found[f"variable {variable['name']}"] = variable["query"]["query"]
    return found


@pytest.mark.parametrize("where", expressions())
def test_every_name_is_one_that_metrics_has(where: str) -> None:
    expression = expressions()[where]
    selected = _SELECTOR.findall(expression)
    assert selected or ":ringrouter_" in expression or "up{" in expression
    labels = set(SCRAPED)
    for name, matchers in selected:
        assert name in SAMPLES, name
        metric = SAMPLES[name]
        labels |= set(metric.labels)
        for label, how, value in _MATCHER.findall(matchers):
            assert label in {*metric.labels, *SCRAPED}, (name, label)
            values = metric.labels.get(label, CONFIG)
            if values != CONFIG and "$" not in value:
                fits = [one for one in values if re.fullmatch(value, one)] if "~" in how else [value]
                assert fits, (name, label, value)
                assert set(fits) <= set(values), (name, label, value)
    if ":ringrouter_" in expression:
        labels |= {"service", "ring"}
    for group in _GROUPED.findall(expression):
        assert {one.strip() for one in group.split(",")} - {""} <= labels, group


def test_recorded_series_are_recorded() -> None:
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    named = {name for text in expressions().values() for name in re.findall(r"\w+:ringrouter_\w+:\w+", text)}
    assert named == recorded


@pytest.mark.parametrize("alert", list(alerts()), ids=lambda alert: str(alert["alert"]))
def test_every_alert_says_what_is_wrong_and_how_bad_it_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description"}
    known = {label for name, _ in _SELECTOR.findall(alert["expr"]) for label in SAMPLES[name].labels}
    known |= SCRAPED | ({"service", "ring"} if ":ringrouter_" in alert["expr"] else set())
    text = "".join(alert["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= known


def test_the_panels_lie_beside_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_a_class_of_codes_has_every_code_of_it() -> None:
    """``code=~"5.."`` is how alerts and dashboard ask for failures."""
    assert {code for code in CODES if re.fullmatch("5..", code)} == {code for code in CODES if code.startswith("5")}


@needs_promtool
def test_prometheus_takes_the_rules_and_they_fire() -> None:
    assert PROMTOOL is not None
    for command in (["check", "rules", "prometheus-alerts.yaml"], ["test", "rules", "prometheus-alerts.test.yaml"]):
        done = subprocess.run([PROMTOOL, *command], cwd=DEPLOY, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_what_the_panels_ask(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    asked = [
        text.replace("$__rate_interval", "1m").replace("$service", "shop").replace("$ring", ".*")
        for where, text in expressions().items()
        if where.startswith(("panel", "annotation"))
    ]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(asked)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
