"""The service that `asof run` is: events come in, vectors are kept up to date, and both are watched over HTTP.

1. `/health` and `/metrics` answer from the first moment on.
2. One thread reads events from Kafka into the store (`jobs.consume`), where brokers are named. Another keeps vectors up to date
   (`jobs.live`). What fails for a time is told, and tried again by whoever it failed.
3. It ends when it is told to, or when one of the two ends: batches that have begun are finished, and what ended it is raised.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from queue import SimpleQueue

import structlog

from asof import definitions
from asof.config import Settings
from asof.errors import MissingExtra, StoreError
from asof.features.feature_set import FeatureSet
from asof.jobs.live import Live, Plan
from asof.serving.health import serve
from asof.stores.store import Store
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from asof.telemetry.traces import tracing

END_SECONDS = 20.0
"""How long a batch that has begun may take to finish."""
RETRY_SECONDS = 5.0
"""How long to wait before the store is asked again for its feature sets."""

log = logging.getLogger(__name__)


class Service:
    """The service of some settings, over a store. Raises `ConfigError` and `MissingExtra` where it cannot be begun."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._stop = threading.Event()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self.metrics = Metrics()
        self.health = Health(",".join(settings.feature_set_version), settings.pipeline_version, settings.refresh_seconds)
        self._parts: dict[str, Callable[[], None]] = {"compute": self._compute}
        if settings.kafka_bootstrap_servers:
            self._parts["consume"] = self._consumption()

    def end(self) -> None:
        """Have it end. Safe to call from a signal's handler, and more than once."""
        self._ends.put(None)

    def run(self, serving: Callable[[int], None] = lambda port: None) -> None:
        """Run until it ends; `serving` is told the port. Raises what ended it, unless that was `end`."""
        settings = self._settings
        with tracing(), serve(self.health, self.metrics, settings.health_host, settings.health_port) as port:
            log.info("running", extra={"store": self._store.url, "address": f"{settings.health_host}:{port}"})
            serving(port)
            threads = [threading.Thread(target=self._run, args=[work], name=name, daemon=True) for name, work in self._parts.items()]
            for thread in threads:
                thread.start()
            failure = self._ends.get()
            self._stop.set()
            log.info("stopping")
            for thread in threads:
                thread.join(END_SECONDS)
        if failure is not None:
            raise failure

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # the main thread raises it
            self._ends.put(error)
        else:
            self._ends.put(None)

    def _compute(self) -> None:
        settings = self._settings
        plan = Plan(
            self._feature_sets(),
            settings.timeframes,
            frozenset(settings.tickers) or None,
            settings.pipeline_version,
            settings.refresh_seconds,
            settings.latest_refresh_seconds,
            settings.market_calendars,
        )
        Live(self._store, plan, self.metrics, self.health, lambda: datetime.now(UTC), self._stop).run()

    def _feature_sets(self) -> tuple[FeatureSet, ...]:
        """The feature sets, held to the registry. A store that is away is waited for."""
        while not self._stop.is_set():
            try:
                registry = self._store.registered()
            except StoreError as error:
                self.metrics.store_up.set(0)
                self.metrics.compute_failed.labels("store").inc()
                log.error("the store cannot be used yet", extra={"error": str(error), "seconds": RETRY_SECONDS})  # noqa: TRY400  # it says all
                self._stop.wait(RETRY_SECONDS)
            else:
                return tuple(definitions.find(version, self._settings, registry) for version in self._settings.feature_set_version)
        return ()

    def _consumption(self) -> Callable[[], None]:
        try:
            from asof.jobs.consume import Consumption, Feed  # noqa: PLC0415  # confluent-kafka is an extra
            from asof.sources.kafka import Brokers  # noqa: PLC0415  # likewise
        except ImportError as error:
            raise MissingExtra(
                f'events from Kafka need confluent-kafka: pip install "asof[kafka]", or set KAFKA_BOOTSTRAP_SERVERS= for none ({error})'
            ) from None
        said = structlog.get_logger("asof.consume")
        brokers = Brokers(self._settings, said)
        return Consumption(Feed.of(self._settings), brokers, self._store, self.metrics, self._stop, said).run
