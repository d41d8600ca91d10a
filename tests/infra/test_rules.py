"""The rules of Prometheus: they are valid, each alert has a test of its own, says what mends it, and leads to a runbook that is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from asof.telemetry.metrics import Metrics
from tests.servers.prometheus import program
from tests.test_docs import anchors

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "observability"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
TESTS = sorted((FOLDER / "tests").glob("*.yml"))


def rules() -> list[dict[str, object]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, object]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: str) -> str:
    done = subprocess.run([program("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_and_its_rules_are_valid():
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    for path in RULES:
        promtool("check", "rules", str(path))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path):
    promtool("test", "rules", str(path))


def test_every_alert_is_in_those_tests():
    tested = "".join(path.read_text() for path in TESTS)
    expected = {labels for test in TESTS for labels in re.findall(r'alertname="(\w+)"', test.read_text())}
    assert [name for name in alerts() if name not in expected] == []
    assert [name for name in expected if name not in alerts()] == []
    assert "exp_samples: []" in tested


def test_the_configuration_reads_the_service_every_ten_seconds():
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert configuration["global"]["scrape_interval"] == "10s"
    assert [job["job_name"] for job in configuration["scrape_configs"]] == ["feature-store"]


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_what_mends_it_and_where_its_runbook_is(name):
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert len(alert["annotations"]["description"]) > 80
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert page == "docs/operations.md"
    assert anchor == name.lower()
    assert anchor in anchors(ROOT / page)


def test_rules_are_about_metrics_that_there_are():
    there = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    there |= {f"{family.name}{end}" for family in Metrics().registry.collect() for end in ("", "_total", "_bucket")}
    there |= {str(rule["record"]) for rule in rules() if "record" in rule}
    for rule in rules():
        used = set(re.findall(r"\b(?:\w+:)?feature_store_\w+(?::\w+)?|\bprocess_\w+", str(rule["expr"])))
        assert used <= there, f"{rule.get('alert') or rule.get('record')}: {used - there}"
