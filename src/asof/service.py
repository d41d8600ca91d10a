"""The service that `asof run` is: events come in, vectors are kept up to date, and both are watched over HTTP.

1. `/health` and `/metrics` answer from the first moment on, and the API as soon as the store is open.
2. The store is opened, and the feature sets are held to its registry. A store that is away is waited for.
3. One thread reads events from Kafka into the store (`jobs.consume`), where brokers are named. Another keeps vectors up to date
   (`jobs.live`). What fails for a time is told, and tried again by whoever it failed.
4. It ends when it is told to, or when one of the two ends: batches that have begun are finished, and what ended it is raised.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import structlog

from asof import definitions
from asof.config import ConfigError, Settings
from asof.errors import BrokerError, MissingExtra, Stopped, StoreError
from asof.feature_store import FeatureStore
from asof.features.feature_set import FeatureSet
from asof.jobs import resampling
from asof.jobs.live import Live, Plan, Published, Several
from asof.serving.app import application
from asof.serving.gate import MAKE_ONE, Gate
from asof.serving.newest import Newest
from asof.serving.server import answering
from asof.serving.state import Serving
from asof.serving.tls import Tls
from asof.serving.watching import health_of, ready_of
from asof.stores.store import Store
from asof.stores.urls import open_store, scheme_of
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from asof.telemetry.traces import tracing

if TYPE_CHECKING:
    from asof.sources.kafka import Brokers

END_SECONDS = 20.0
"""How long a batch that has begun may take to finish."""
RETRY_SECONDS = 5.0
"""How long to wait before a store that is away is tried again."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Service:
    """The service of some settings, over the store of a URL. Raises `StoreError`, `ConfigError` or `MissingExtra` where it cannot begin."""

    def __init__(self, url: str, settings: Settings) -> None:
        scheme_of(url)
        settings.market_calendars.check()
        for higher in settings.resample:
            resampling.check(settings.resample_from, higher)
        self._url = url
        self._settings = settings
        self._brokers = _brokers(settings) if settings.kafka_bootstrap_servers else None
        if settings.mode == "stream" and self._brokers is None:
            raise ConfigError("the mode stream reads bars from Kafka: name its brokers with KAFKA_BOOTSTRAP_SERVERS")
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self.metrics = Metrics()
        self.newest = Newest()
        self.metrics.vectors_held.set_function(lambda: len(self.newest))
        self.health = Health(",".join(settings.feature_set_version), settings.pipeline_version, settings.refresh_seconds)
        self._threads: list[threading.Thread] = []
        self._store: Store | None = None
        how = health_of(self.health, self.metrics)
        ready = ready_of(how, lambda: self._serving.store is not None)
        self._serving = Serving(settings, self.metrics, self.newest, how, ready)
        self._gate, self._tls = Gate.of(settings, settings.health_host), Tls.of(settings)

    def end(self) -> None:
        """Have it end. Safe to call from a signal's handler, and more than once."""
        self._ends.put(None)

    def run(self, serving: Callable[[int], None] = lambda port: None) -> None:
        """Run until it ends; `serving` is told the port. Raises what ended it, unless that was `end`."""
        settings = self._settings
        app, stream = application(self._serving, self._gate)
        with tracing(), answering(app, settings.health_host, settings.health_port, self._tls, stream.close) as port:
            log.info("running", extra={"address": f"{settings.health_host}:{port}"})
            if not self._gate.open and not self._gate.guarded:
                log.warning("nobody may ask for vectors until there are keys", extra={"mend": MAKE_ONE})
            serving(port)
            self._start("compute", self._begin)
            failure = self._ends.get()
            self._stop.set()
            self._wake.set()
            log.info("stopping")
            for thread in self._threads:
                thread.join(END_SECONDS)
            if self._store is not None:
                self._store.close()
        if failure is not None:
            raise failure

    def _start(self, name: str, work: Callable[[], None]) -> None:
        """A thread, whose end is the end of all."""

        def run() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001  # the main thread raises it
                self._ends.put(error)
            self._ends.put(None)

        self._threads.append(threading.Thread(target=run, name=name, daemon=True))
        self._threads[-1].start()

    def _begin(self) -> None:
        store = self._store = self._again(lambda: open_store(self._url))
        self._serving.store = FeatureStore(store, self._settings)
        log.info("the store is open", extra={"store": store.url})
        if self._brokers is not None:
            self._start("consume", self._consumption(store, self._brokers))
        feature_sets = self._again(lambda: self._feature_sets(store))
        self._live(store, feature_sets).run()

    def _again(self, work: Callable[[], T]) -> T:
        """What `work` answers, once the store is there. Raises `Stopped` where that is not before the end."""
        while not self._stop.is_set():
            try:
                return work()
            except (StoreError, BrokerError) as error:
                who, up = ("store", self.metrics.store_up) if isinstance(error, StoreError) else ("broker", self.metrics.broker_up)
                up.set(0)
                self.metrics.compute_failed.labels(who).inc()
                log.error("the %s cannot be used yet", who, extra={"error": str(error), "seconds": RETRY_SECONDS})  # noqa: TRY400  # it says all
            self._stop.wait(RETRY_SECONDS)
        raise Stopped

    def _feature_sets(self, store: Store) -> tuple[FeatureSet, ...]:
        registry = store.registered()
        return tuple(definitions.find(version, self._settings, registry) for version in self._settings.feature_set_version)

    def _live(self, store: Store, feature_sets: tuple[FeatureSet, ...]) -> Live:
        settings = self._settings
        plan = Plan(
            feature_sets,
            settings.timeframes,
            frozenset(settings.tickers) or None,
            settings.pipeline_version,
            settings.refresh_seconds,
            settings.latest_refresh_seconds,
            settings.market_calendars,
            tuple((settings.resample_from, higher) for higher in settings.resample),
        )
        published = Several((self.newest, *([self._publisher()] if settings.mode == "stream" else [])))
        return Live(store, plan, self.metrics, self.health, lambda: datetime.now(UTC), self._stop, self._wake, published)

    def _publisher(self) -> Published:
        """Who publishes vectors: those of the first feature set to the topic, those of others to topics named after them."""
        from asof.jobs.publish import PARTITIONS, Publisher  # noqa: PLC0415  # confluent-kafka is an extra
        from asof.sources.kafka_producer import Producer  # noqa: PLC0415  # likewise

        assert self._brokers is not None
        topics = self._settings.vector_topics
        for name in topics.values():
            self._again(partial(self._brokers.ensure, name, PARTITIONS, cleanup_policy="compact"))
        return Publisher(Producer(self._brokers), topics)

    def _consumption(self, store: Store, brokers: Brokers) -> Callable[[], None]:
        from asof.jobs.consume import Consumption, Feed  # noqa: PLC0415  # confluent-kafka is an extra

        said = structlog.get_logger("asof.consume")
        wake = self._wake.set if self._settings.mode == "stream" else lambda: None
        return Consumption(Feed.of(self._settings), brokers, store, self.metrics, self._stop, said, wake).run


def _brokers(settings: Settings) -> Brokers:
    try:
        from asof.sources.kafka import Brokers  # noqa: PLC0415  # confluent-kafka is an extra
    except ImportError as error:
        mend = 'pip install "asof[kafka]", or set KAFKA_BOOTSTRAP_SERVERS= for none'
        raise MissingExtra(f"events from Kafka need confluent-kafka: {mend} ({error})") from None
    return Brokers(settings, structlog.get_logger("asof.consume"))
