"""Replicas of the newest vectors: what each kind of address is followed by."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

import structlog

from asof.config import Settings
from asof.errors import MissingExtra
from asof.serving.newest import Newest
from asof.serving.polling import StoreReplica
from asof.stores.store import Store
from asof.stores.urls import open_store

if TYPE_CHECKING:
    from asof.telemetry.metrics import Metrics

KAFKA = "kafka://"


class Replica(Protocol):
    """What fills `newest` from elsewhere, on the thread that calls `run`."""

    newest: Newest
    ready: bool
    """Whether everything is there that was when it began."""

    def report(self) -> dict[str, object]:
        """How it is: `source`, `ready`, `vectors`, how far behind, and `trouble`, which says in a sentence what is wrong, or is None."""
        ...

    def run(self) -> None:
        """Fill it and keep it filled, whatever fails for a time, until `stop` is set."""
        ...


def follow(
    url: str, settings: Settings, metrics: Metrics, stop: threading.Event, newest: Newest | None = None
) -> tuple[Replica, Store | None]:
    """Who follows an address: brokers, `kafka://host:port,host:port`, or a store; and the store, which brokers do not have.

    It fills `newest`, where that is given, else one of its own.

    Raises `StoreError`, `ConfigError`, `BrokerError` or `MissingExtra` where it cannot be followed at all.
    """
    if url.startswith(KAFKA):
        return _topic(url.removeprefix(KAFKA).rstrip("/"), settings, metrics, stop, Newest() if newest is None else newest), None
    key = settings.key.get_secret_value() if settings.key else None
    store = open_store(url, create=False, key=key)
    return StoreReplica(store, settings, Newest() if newest is None else newest, metrics, stop), store


def _topic(servers: str, settings: Settings, metrics: Metrics, stop: threading.Event, newest: Newest) -> Replica:
    try:
        from asof.serving.topic import TopicReplica  # noqa: PLC0415  # confluent-kafka is an extra
        from asof.sources.kafka import Brokers  # noqa: PLC0415  # likewise
    except ImportError as error:
        raise MissingExtra(f'a replica of Kafka needs confluent-kafka: pip install "asof[kafka]" ({error})') from None
    log = structlog.get_logger("asof.follow")
    brokers = Brokers(settings.model_copy(update={"kafka_bootstrap_servers": servers or settings.kafka_bootstrap_servers}), log)
    return TopicReplica(brokers, settings.features_topic, newest, metrics, stop, log)
