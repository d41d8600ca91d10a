"""Metrics for Prometheus: every one there is, with its name and what it says."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from asof import __version__

PREFIX = "feature_store"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The buckets of durations."""
REQUEST_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, *SECONDS)
"""Those of requests, which mostly take less."""


class Metrics:
    """The metrics of one service, in a registry of their own. No label holds an instrument: their number is not ours to bound."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", says, labels, registry=self.registry)

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", says, labels, registry=self.registry)

        def histogram(name: str, says: str) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", says, registry=self.registry, buckets=SECONDS)

        self.compute_runs = counter("compute_runs", "Cycles of the compute loop that have ended, whatever they found to do")
        self.vectors_upserted = counter("feature_vectors_upserted", "Vectors that were new or changed, and were written")
        self.compute_failed = counter("compute_failed", "What could not be computed or written, by reason", "reason")
        self.quality_flags = counter("quality_flag", "Flags raised by the vectors that were computed", "flag")
        self.compute_seconds = histogram("compute_duration_seconds", "A cycle of the compute loop that found something to do")
        self.upsert_seconds = histogram("db_upsert_duration_seconds", "Writing the vectors of a cycle to the database")
        self.last_success = gauge("last_success_timestamp", "When a cycle of the compute loop last ended without a failure, in Unix time")
        self.last_feature_ts = gauge("last_feature_ts_timestamp", "The open of the newest bar that has a vector, in Unix time", "timeframe")
        self.cached_events = gauge("cached_events", "Events that were read and wait to be written")

        self.events = counter("events", "Events read from the broker, by what became of them", "outcome")
        self.bars = counter("bars", "Bars read from the broker, by what became of them", "outcome")
        self.late = counter("late", "Rows that came later than is allowed after they could be known; they count all the same", "kind")
        self.lateness = gauge("lateness_seconds", "How late the latest row of the last batch was", "kind")
        self.messages_refused = counter("messages_refused", "Messages that could not be used, by reason", "reason")
        self.dead_letters = counter("dead_letters", "Messages given to the dead-letter topic")
        self.lag_messages = gauge("kafka_lag_messages", "Messages behind the end of a partition", "topic", "partition")
        self.lag_seconds = gauge(
            "kafka_lag_seconds", "Age of the newest message that was stored, while there are newer ones", "topic", "partition"
        )
        self.paused = gauge("kafka_paused", "1 while reading is paused because the database is slow or away, else 0")
        self.offsets_out_of_range = counter(
            "kafka_offsets_out_of_range", "Times that the broker no longer had the messages where reading was to go on"
        )
        self.broker_up = gauge("broker_up", "1 where the brokers answered last, else 0")
        self.store_up = gauge("store_up", "1 where the database answered last, else 0")
        self.stale_after = gauge("stale_after_seconds", "From this age of the last success on `/health` says `stale`")
        self.vectors_held = gauge("vectors_held", "Newest vectors that are held in memory to be served")
        self.replica_ready = gauge("replica_ready", "1 once a replica has read all that was there when it began, else 0")
        self.access = counter("access_decisions", "Requests that need a key, by what was decided: let-in, or why not", "verdict")
        self.requests = counter("http_requests", "Requests that were let in, by route and status", "route", "status")
        self.request_seconds = Histogram(
            f"{PREFIX}_http_request_duration_seconds",
            "From a request's head to the last of its answer, by route",
            ("route",),
            registry=self.registry,
            buckets=REQUEST_SECONDS,
        )
        self.subscribers = gauge("stream_subscribers", "Clients that follow the stream of new vectors")
        self.stream_skips = counter("stream_skips", "Times that a client was brought to the newest vectors, for it was too far behind")
        self.build = Info(f"{PREFIX}_build", "What runs here", registry=self.registry)
        self.build.info({"version": __version__, "python": platform.python_version()})
        ProcessCollector(registry=self.registry)  # memory, processor time, open files, and when the process began

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)

    def value(self, gauge: Gauge) -> float:
        """The value of a gauge without labels, or the largest of one that has some; 0 where there is none."""
        return max((sample.value for family in gauge.collect() for sample in family.samples), default=0.0)
