"""Write the Grafana dashboard `Feature Store Health` from the table of its panels.

`python scripts/generate_dashboard.py` writes `infra/observability/grafana/dashboards/feature_store_health.json`; with `--check` it writes
nothing and exits with 1 where the file is not what this says. To add a panel: an entry in `ROWS`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, TextBoxVariable, ThresholdsConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "infra" / "observability" / "grafana" / "dashboards" / "feature_store_health.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BUDGET = 0.005
"""What the objective, 99.5 % fresh, leaves."""


@dataclass(frozen=True)
class Panel:
    """One panel: what it shows by legend, and where the documentation tells what to do about it.

    `limits` are where orange and red begin, or end where less is worse.
    """

    title: str
    says: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "series"
    docs: str = "operations/#dashboard"
    limits: tuple[float, ...] = ()
    less_is_worse: bool = False
    words: tuple[str, ...] = ()
    width: int = 8
    height: int = 8


def quantiles(metric: str) -> dict[str, str]:
    """The middle and the slow end of a histogram."""
    rate = f"sum by (le) (rate({metric}_bucket[$__rate_interval]))"
    return {"p50": f"histogram_quantile(0.5, {rate})", "p95": f"histogram_quantile(0.95, {rate})"}


def number(title: str, says: str, query: str, unit: str = "short", **more: object) -> Panel:
    """One number, as it is now."""
    return Panel(title, says, {"": query}, unit, "number", width=4, height=4, **more)  # type: ignore[arg-type]


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        number(
            "Service", "Whether it answers Prometheus.", 'min(up{job="feature-store"})',
            docs="operations/#featurestoredown", limits=(0.5, 0.5), less_is_worse=True, words=("down", "up"),
        ),
        number(
            "Last success age", "Since a cycle last ended without a failure. Three cycles without one are stale.",
            "max(time() - (feature_store_last_success_timestamp > 0))", "s", docs="troubleshooting/#no-features", limits=(120, 180),
        ),
        number(
            "Database", "Whether it answered last.", "min(feature_store_store_up)",
            docs="operations/#featurestoredatabaseaway", limits=(0.5, 0.5), less_is_worse=True, words=("away", "up"),
        ),
        number(
            "Reading of events", "Paused while the database is slow or away.", "max(feature_store_kafka_paused)",
            docs="operations/#featurestoreconsumerpaused", limits=(1, 1), words=("on", "paused"),
        ),
        number(
            "Error budget left", "Of the 0.5 % of 30 days in which vectors may be stale; below 0 the objective is missed.",
            f"min(1 - job:feature_store_stale:ratio_30d / {BUDGET})", "percentunit",
            docs="operations/#objective", limits=(0.5, 0.1), less_is_worse=True,
        ),
        number(
            "Alerts", "How many fire.", 'count(ALERTS{alertstate="firing"}) or vector(0)', docs="operations/#alerts", limits=(1, 3)
        ),
    ),
    "Compute": (
        Panel(
            "Compute runs/s", "Cycles that ended, whatever they found to do: one in FEATURE_REFRESH_SECONDS.",
            {"{{instance}}": "sum by (instance) (rate(feature_store_compute_runs_total[$__rate_interval]))"}, "ops",
            docs="troubleshooting/#no-features",
        ),
        Panel(
            "Vectors upserted/s", "Vectors that were new or changed. None while no bar and no event comes in.",
            {"{{instance}}": "sum by (instance) (rate(feature_store_feature_vectors_upserted_total[$__rate_interval]))"}, "ops",
            docs="troubleshooting/#no-features",
        ),
        Panel(
            "Failures by reason", "What could not be computed or written.",
            {"{{reason}}": "sum by (reason) (increase(feature_store_compute_failed_total[$__rate_interval]))"},
            docs="operations/#featurestorecomputefailing", limits=(1, 5),
        ),
        Panel(
            "Compute duration p50 and p95", "Of cycles that found something to do.",
            quantiles("feature_store_compute_duration_seconds"), "s", docs="troubleshooting/#slow", limits=(10, 60),
        ),
        Panel(
            "Upsert duration p50 and p95", "Writing the vectors of a cycle.",
            quantiles("feature_store_db_upsert_duration_seconds"), "s", docs="troubleshooting/#slow", limits=(5, 30),
        ),
        Panel(
            "Compute durations", "How many cycles took how long.",
            {"{{le}}": "sum by (le) (increase(feature_store_compute_duration_seconds_bucket[$__rate_interval]))"}, "s", "heat",
            docs="troubleshooting/#slow",
        ),
    ),
    "Vectors": (
        Panel(
            "Last feature age by timeframe", "Since the open of the newest bar that has a vector: never less than the timeframe.",
            {"{{timeframe}}": "max by (timeframe) (time() - (feature_store_last_feature_ts_timestamp > 0))"}, "s",
            docs="operations/#featurestorefeaturesold",
        ),
        Panel(
            "Quality flags rate", "Flags of the vectors that were written, each a second.",
            {"{{flag}}": "sum by (flag) (rate(feature_store_quality_flag_total[$__rate_interval]))"}, "ops",
            docs="troubleshooting/#flags-that-are-always-there",
        ),
        Panel(
            "Share of vectors with a flag", "Of those written in the last half hour.",
            {"{{flag}}": "max by (flag) (job_flag:feature_store_quality_flag:share_30m)"}, "percentunit",
            docs="operations/#featurestoreflagsjump",
        ),
    ),
    "Events": (
        Panel(
            "Cached events", "Read, and not yet written.", {"{{instance}}": "feature_store_cached_events"},
            docs="troubleshooting/#missing-event-features",
        ),
        Panel(
            "Events by outcome", "Events from the broker, each a second, by what became of them.",
            {"{{outcome}}": "sum by (outcome) (rate(feature_store_events_total[$__rate_interval]))"}, "ops",
            docs="troubleshooting/#missing-event-features",
        ),
        Panel(
            "Refused messages by reason", "Messages that could not be used, and how many were given to the dead-letter topic.",
            {
                "{{reason}}": "sum by (reason) (increase(feature_store_messages_refused_total[$__rate_interval]))",
                "dead letters": "sum(increase(feature_store_dead_letters_total[$__rate_interval]))",
            },
            docs="operations/#featurestoredeadletters", limits=(1, 100),
        ),
        Panel(
            "Kafka lag in messages", "Behind the end of the topic, of all its partitions.",
            {"{{topic}}": "sum by (topic) (feature_store_kafka_lag_messages)"}, docs="troubleshooting/#lag", limits=(1000, 10_000),
        ),
        Panel(
            "Kafka lag in seconds", "Age of the newest event that was stored, while there are newer ones; of the partition that is worst.",
            {"{{topic}}": "max by (topic) (feature_store_kafka_lag_seconds)"}, "s", docs="troubleshooting/#lag", limits=(60, 300),
        ),
        Panel(
            "Reading", "Whether it is paused, and whether the brokers answer: 1 where that is so.",
            {"paused {{instance}}": "feature_store_kafka_paused", "brokers answer {{instance}}": "feature_store_broker_up"},
            docs="operations/#featurestoreconsumerpaused",
        ),
    ),
    "Stream": (
        Panel(
            "Bars by outcome", "Bars from the broker, each a second, by what became of them; none where they do not come from there.",
            {"{{outcome}}": "sum by (outcome) (rate(feature_store_bars_total[$__rate_interval])) or vector(0)"}, "ops",
            docs="streaming/#what-is-promised",
        ),
        Panel(
            "Late rows", "Each a second, that came later than is allowed after they could be known; they count all the same.",
            {"{{kind}}": "sum by (kind) (rate(feature_store_late_total[$__rate_interval]))"}, "ops", docs="streaming/#lateness",
        ),
        Panel(
            "Lateness", "Of the latest row of the last batch.", {"{{kind}}": "max by (kind) (feature_store_lateness_seconds)"}, "s",
            docs="streaming/#lateness",
        ),
    ),
    "Serving": (
        Panel(
            "Requests by route", "Requests that were let in, each a second; those of who watches among them.",
            {"{{route}} {{status}}": "sum by (route, status) (rate(feature_store_http_requests_total[$__rate_interval]))"}, "reqps",
            docs="serving/#what-to-watch",
        ),
        Panel(
            "Request duration p50 and p95", "Of all routes but the stream.", quantiles("feature_store_http_request_duration_seconds"), "s",
            docs="serving/#what-to-watch", limits=(0.1, 1),
        ),
        Panel(
            "Refused", "Requests that were not let in, each a second, by what was decided.",
            {
                "{{verdict}}": 'sum by (verdict) (rate(feature_store_access_decisions_total{verdict!="let-in"}[$__rate_interval]))'
                " or vector(0)"
            },
            "reqps", docs="access/#keys",
        ),
        Panel(
            "Vectors held", "Newest vectors in memory.", {"{{instance}}": "feature_store_vectors_held"}, docs="serving/#the-newest-vectors",
        ),
        Panel(
            "Subscribers", "Clients that follow the stream, and how many were brought to the newest vectors, too far behind for the rest.",
            {
                "{{instance}}": "feature_store_stream_subscribers",
                "brought forward": "sum(increase(feature_store_stream_skips_total[$__rate_interval]))",
            },
            docs="serving/#the-stream",
        ),
        Panel(
            "Replicas", "1 once one has read all that was there when it began.", {"{{instance}}": "feature_store_replica_ready"},
            docs="serving/#replicas",
        ),
    ),
    "Objective: fresh 99.5 % of 30 days": (
        Panel(
            "Fresh", "1 while every instance has had a success within three cycles.", {"{{job}}": "job:feature_store_fresh:bool"},
            docs="operations/#objective",
        ),
        Panel(
            "Burn rate", "How many times faster than allowed the budget is spent: at 1 it lasts 30 days, at 14.4 two.",
            {window: f"max(job:feature_store_stale:ratio_{window}) / {BUDGET}" for window in ("1h", "6h", "3d")},
            docs="operations/#objective", limits=(1, 14.4),
        ),
        Panel(
            "Alerts that fire", "By name.", {"{{alertname}}": 'sum by (alertname) (ALERTS{alertstate="firing"}) or vector(0)'},
            docs="operations/#alerts",
        ),
    ),
    "Process": (
        Panel(
            "Memory", "Resident, of each process.", {"{{instance}}": 'process_resident_memory_bytes{job="feature-store"}'}, "bytes",
            docs="operations/#size",
        ),
        Panel(
            "Processor", "Cores in use.", {"{{instance}}": 'rate(process_cpu_seconds_total{job="feature-store"}[$__rate_interval])'},
            docs="operations/#size",
        ),
        Panel(
            "Open files", "And the most that there may be.",
            {"{{instance}}": 'process_open_fds{job="feature-store"}', "limit": 'min(process_max_fds{job="feature-store"})'},
            docs="operations/#size",
        ),
        Panel(
            "Restarts", "In an hour.", {"{{instance}}": 'changes(process_start_time_seconds{job="feature-store"}[1h])'},
            docs="operations/#featurestorerestarts", limits=(1, 3), width=8, height=6,
        ),
        Panel(
            "Running since", "When each process began.", {"{{instance}}": 'process_start_time_seconds{job="feature-store"} * 1000'},
            "dateTimeAsIso", "number", docs="operations/#upgrade", width=8, height=6,
        ),
        Panel(
            "Build", "What runs.", {"asof {{version}} on Python {{python}}": "sum by (version, python) (feature_store_build_info)"},
            kind="name", docs="operations/#upgrade", width=8, height=6,
        ),
    ),
}  # fmt: skip
"""Every panel, by row. A row is 24 wide."""

DOCUMENTATION = "http://127.0.0.1:8001"
"""Where the documentation is found, unless the reader of the dashboard names another place."""


def build() -> Dashboard:
    """The dashboard."""
    made = (
        Dashboard("Feature Store Health")
        .uid("feature-store-health")
        .description("Whether vectors are fresh and right, and what is wrong where they are not. Written by scripts/generate_dashboard.py.")
        .tags(["asof"])
        .readonly()
        .refresh("10s")
        .time("now-3h", "now")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(TextBoxVariable("docs").label("Documentation").default_value(DOCUMENTATION))
        .annotation(restarts())
    )
    numbers = count(1)
    for row, panels in ROWS.items():
        made.with_row(dashboard.Row(row).id(next(numbers)))
        for panel in panels:
            made.with_panel(KINDS[panel.kind](panel).id(next(numbers)))
    return made


def restarts() -> dashboard.AnnotationQuery:
    """A line across all panels where a process began."""
    expression = 'changes(process_start_time_seconds{job="feature-store"}[1m]) > 0'
    query = prometheus.Dataquery().expr(expression).ref_id("Restart")
    return dashboard.AnnotationQuery().name("Restarts").datasource(SOURCE).enable(True).icon_color("purple").target(query)


def common_of(made: Builder, panel: Panel) -> Builder:
    """What panels of every kind have."""
    made.title(panel.title).description(panel.says).datasource(SOURCE).unit(panel.unit).span(panel.width).height(panel.height)
    made.links([dashboard.DashboardLink("What to do").type("link").url(f"${{docs}}/{panel.docs}").target_blank(True)])
    if panel.limits:
        made.thresholds(thresholds(panel))
    for query, letter in zip(queries(panel), "ABC", strict=False):
        made.with_target(query.ref_id(letter))
    return made


def queries(panel: Panel) -> Iterator[prometheus.Dataquery]:
    for legend, expression in panel.queries.items():
        query = prometheus.Dataquery().expr(expression).legend_format(legend or "__auto")
        if panel.kind in ("number", "name"):
            query.instant()
        if panel.kind == "heat":
            query.format(PromQueryFormat.HEATMAP)
        yield query


def thresholds(panel: Panel) -> ThresholdsConfig:
    """Green, orange from the first limit on, red from the second; or the other way round."""
    first, second = panel.limits
    steps = (
        [(None, "red"), (second, "orange"), (first, "green")]
        if panel.less_is_worse
        else [(None, "green"), (first, "orange"), (second, "red")]
    )
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(value=value, color=colour) for value, colour in steps])


def series(panel: Panel) -> timeseries.Panel:
    made = common_of(timeseries.Panel(), panel).min(0).fill_opacity(8).line_width(1)
    made.legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True))
    made.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if panel.limits:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return made


def shown_number(panel: Panel) -> stat.Panel:
    made = common_of(stat.Panel(), panel).color_mode(BigValueColorMode.BACKGROUND if panel.limits else BigValueColorMode.NONE)
    made.graph_mode(BigValueGraphMode.NONE).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if panel.words:
        results = {str(value): ValueMappingResult(text=word, index=value) for value, word in enumerate(panel.words)}
        made.mappings([ValueMap(options=results)])
    return made.text_mode(BigValueTextMode.NAME if panel.kind == "name" else BigValueTextMode.AUTO)


def heat(panel: Panel) -> heatmap.Panel:
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(32)
    return common_of(heatmap.Panel(), panel).color(colours).y_axis(heatmap.YAxisConfig().unit(panel.unit))


Builder = timeseries.Panel | stat.Panel | heatmap.Panel
KINDS = {"series": series, "number": shown_number, "name": shown_number, "heat": heat}
"""What makes a panel of each kind."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the file is stale")
    wanted = json.dumps(build().build(), cls=JSONEncoder, indent=2) + "\n"
    if parser.parse_args().check:
        fresh = FILE.exists() and FILE.read_text(encoding="utf-8") == wanted
        print("the dashboard is what the script says" if fresh else f"{FILE.name} is stale: run python scripts/generate_dashboard.py")
        return 0 if fresh else 1
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(wanted, encoding="utf-8")
    print(f"wrote {FILE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
