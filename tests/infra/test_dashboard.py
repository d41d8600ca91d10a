"""The dashboard is what its script says, has what the contract names, and a Prometheus that reads our metrics answers all its queries."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.jobs.streams import message
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres
from tests.servers.prometheus import Prometheus, prometheus
from tests.servers.service import service
from tests.test_docs import anchors

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "observability"
FILE = FOLDER / "grafana" / "dashboards" / "feature_store_health.json"

DASHBOARD = json.loads(FILE.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
CONTRACT = (
    "Last success age",
    "Compute runs/s",
    "Vectors upserted/s",
    "Cached events",
    "Compute duration p50 and p95",
    "Upsert duration p50 and p95",
    "Last feature age by timeframe",
    "Quality flags rate",
    "Failures by reason",
)


def test_the_committed_dashboard_is_what_its_script_says():
    done = subprocess.run(
        [sys.executable, "scripts/generate_dashboard.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_has_the_name_and_the_panels_of_the_contract():
    assert (DASHBOARD["title"], DASHBOARD["uid"], DASHBOARD["refresh"]) == ("Feature Store Health", "feature-store-health", "10s")
    assert set(CONTRACT) <= {panel["title"] for panel in PANELS}


def test_panels_neither_overlap_nor_leave_the_grid():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, f"{panel['title']} lies on another"
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_leads_to_what_to_do(panel):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    (link,) = panel["links"]
    page, anchor = re.fullmatch(r"\$\{docs\}/(\w+)/#(\S+)", link["url"]).groups()
    assert anchor in anchors(ROOT / "docs" / f"{page}.md")


def test_what_provisions_it_finds_it_and_its_prometheus():
    folder = FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    (provider,) = yaml.safe_load((folder / "dashboards" / "feature_store.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    compose = yaml.safe_load((ROOT / "infra" / "docker-compose.yml").read_text())
    assert "./observability/grafana/dashboards:/var/lib/grafana/dashboards:ro" in compose["services"]["grafana"]["volumes"]


BAR = """
INSERT INTO ohlcv (instrument_id, timeframe, ts, open, high, low, close, volume, source)
VALUES ('AAPL', '1m', date_trunc('minute', now()) - {0} * interval '1 minute', 1, 2, 0.5, 1 + {0} % 7, 100, 'ingestor')
ON CONFLICT (instrument_id, timeframe, ts) DO UPDATE SET close = ohlcv.close + 1
"""


def keep_busy(postgres: Postgres, url: str, kafka: Kafka, topic: str, done: threading.Event) -> None:
    """Bars that come and are corrected, events, messages that cannot be used, and now and then a database that hangs up."""
    for k in range(10_000):
        postgres.run(BAR.format(k % 60 + 2), url)
        kafka.write(topic, message(k), b"junk")
        if k % 10 == 0:
            postgres.cut_off(url)
        if done.wait(0.2):
            return


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, kafka: Kafka) -> Iterator[Prometheus]:
    """A Prometheus with our configuration, each second instead of every ten, that watches the real service at work."""
    folder, url, topic, done = tmp_path_factory.mktemp("prometheus"), postgres.database(), kafka.topic(), threading.Event()
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "rules").mkdir()
    for path in (FOLDER / "rules").glob("*.yml"):
        (folder / "rules" / path.name).write_text(re.sub(r"interval: 1m\b", "interval: 1s", path.read_text()))
    topics = {"ENRICHED_TOPIC": topic, "FEATURE_DLQ_TOPIC": f"{topic}.dlq", "KAFKA_GROUP": topic}
    work = threading.Thread(target=keep_busy, args=(postgres, url, kafka, topic, done))
    with service(folder / "service", url, KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap, FEATURE_TIMEFRAMES="1m", **topics) as running:
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [running.address.removeprefix("http://")]
        work.start()
        try:
            with prometheus(configuration, folder) as server:
                yield server
        finally:
            done.set()
            work.join()


def expressions() -> dict[str, str]:
    """Every query of the dashboard, the variables of Grafana replaced."""
    found = {f"{panel['title']}, {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
    return {title: text.replace("$__rate_interval", "10s") for title, text in found.items()}


@pytest.mark.parametrize("title", expressions())
def test_prometheus_answers_every_query_of_the_dashboard_with_series(watched, title):
    watched.wait_for(lambda: watched.query(expressions()[title]), f"an answer to {expressions()[title]}")
    assert all(series["value"][1] != "NaN" for series in watched.query(expressions()[title]))


def test_queries_are_of_metrics_and_not_of_misspelt_ones(watched):
    with pytest.raises(ValueError, match="parse error"):
        watched.query("sum by (")
    assert watched.query("feature_store_compute_run_total") == []


def test_the_annotation_of_restarts_is_understood(watched):
    for annotation in DASHBOARD["annotations"]["list"]:
        assert watched.query(annotation["target"]["expr"]) == []


def test_every_rule_can_be_evaluated_and_a_service_at_work_alarms_only_for_what_it_does(watched):
    def groups() -> list[dict[str, object]]:
        return [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]

    watched.wait_for(lambda: all(rule["health"] == "ok" for rule in groups()), "every rule is evaluated")
    firing = {rule["name"] for rule in groups() if rule["type"] == "alerting" and rule["state"] == "firing"}
    of_a_busy_machine = {"FeatureStoreBudgetBurnsFast"}
    assert firing <= {"FeatureStoreDeadLetters"} | of_a_busy_machine, firing
    fresh = "job:feature_store_fresh:bool"
    watched.wait_for(lambda: watched.query(fresh), "whether it is fresh is recorded")
    assert watched.query(fresh)[0]["value"][1] == "1"
