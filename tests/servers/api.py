"""The API over a store, with the real server under it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from asof.config import Settings
from asof.feature_store import FeatureStore
from asof.serving.app import application
from asof.serving.gate import Gate
from asof.serving.newest import Newest
from asof.serving.polling import StoreReplica
from asof.serving.server import answering
from asof.serving.state import Serving
from asof.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Api:
    """An API that runs."""

    url: str
    serving: Serving


def state_of(store: FeatureStore | None, settings: Settings | None = None, *, filled: bool = True) -> Serving:
    """What an API serves: a store, and its newest vectors in memory."""
    chosen, metrics, newest = settings or Settings(), Metrics(), Newest()
    if store is not None and filled:
        StoreReplica(store.store, chosen, newest, metrics, threading.Event()).poll()
    return Serving(chosen, metrics, newest, lambda: (True, {"status": "ok"}), lambda: (True, {"ready": True}), store)


@contextmanager
def api(store: FeatureStore | None, settings: Settings | None = None, *, filled: bool = True) -> Iterator[Api]:
    """An API over a store for the block, on the loopback."""
    serving = state_of(store, settings, filled=filled)
    app, stream = application(serving, Gate.of(serving.settings, "127.0.0.1"))
    with answering(app, "127.0.0.1", 0, before_end=stream.close) as port:
        yield Api(f"http://127.0.0.1:{port}", serving)
