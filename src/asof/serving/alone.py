"""The service that `asof serve` is: it computes nothing, and serves what a store or a topic has.

1. `/health`, `/ready` and `/metrics` answer from the first moment on.
2. What is served is opened, and its newest vectors are followed (`asof.serving.following`). A server that is away is waited for.
3. Where it is asked for, Arrow Flight answers beside, once the store is open.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from asof.config import ConfigError, Settings
from asof.errors import AsofError, StoreError
from asof.feature_store import FeatureStore
from asof.serving.app import application
from asof.serving.following import KAFKA, Replica, follow
from asof.serving.gate import Gate
from asof.serving.newest import Newest
from asof.serving.server import answering
from asof.serving.state import Serving, Watched
from asof.serving.tls import Tls
from asof.stores.urls import scheme_of
from asof.telemetry.metrics import Metrics
from asof.telemetry.traces import tracing

RETRY_SECONDS = 5.0
END_SECONDS = 10.0
NO_STORE = "this service is a replica of a topic, which has the newest vectors alone: ask a service over a store for this"

log = logging.getLogger(__name__)


class Alone:
    """A server of a store or a topic. Raises `ConfigError`, `StoreError` or `MissingExtra` where it cannot begin."""

    def __init__(self, url: str, settings: Settings, host: str, port: int, flight_port: int | None = None) -> None:
        self._url, self._settings, self._host, self._port, self._flight_port = url, settings, host, port, flight_port
        self._gate, self._tls = Gate.of(settings, host), Tls.of(settings)
        self._gate.check(host)
        self._stop = threading.Event()
        self._replica: Replica | None = None
        self._failure: AsofError | None = None
        self._trouble: str | None = None
        self._serving = Serving(settings, Metrics(), Newest(), self._state, self._state)
        if not url.startswith(KAFKA):
            scheme_of(url)
        elif flight_port is not None:
            raise ConfigError("Arrow Flight reads a store, and a topic is none: leave --flight out, or name a store with --from")
        else:
            self._serving.without = NO_STORE

    def _state(self) -> Watched:
        if self._replica is None:
            return False, {"status": "starting", "ready": False, "trouble": self._trouble}
        return self._replica.ready, {"status": "ok" if self._replica.ready else "starting", **self._replica.report()}

    def end(self) -> None:
        """Have it end. Safe to call from a signal's handler."""
        self._stop.set()

    def run(self, serving: Callable[[str], None]) -> None:
        """Serve until `end`; `serving` is told each address. Raises what cannot be served at all."""
        app, stream = application(self._serving, self._gate)
        following = threading.Thread(target=self._follow, args=(serving,), name="asof-follow", daemon=True)
        with tracing(), answering(app, self._host, self._port, self._tls, stream.close) as port:
            serving(f"http{'s' if self._tls else ''}://{f'[{self._host}]' if ':' in self._host else self._host}:{port}")
            following.start()
            self._stop.wait()
            following.join(END_SECONDS)
        if self._serving.store is not None:
            self._serving.store.close()
        if self._failure is not None:
            raise self._failure

    def _follow(self, serving: Callable[[str], None]) -> None:
        """Open what is served, and follow it to the end."""
        try:
            with self._flight(serving) if self._open() else nullcontext():
                if self._replica is not None:
                    self._replica.run()
        except AsofError as error:
            self._failure = error
            self._stop.set()

    def _open(self) -> bool:
        """Whether there is a store or a topic before the end. A server that is away is waited for, a file that is not there is an error."""
        while not self._stop.is_set():
            try:
                self._replica, store = follow(self._url, self._settings, self._serving.metrics, self._stop, self._serving.newest)
            except StoreError as error:
                if not self._url.startswith("postgres"):
                    raise
                self._trouble = str(error)
                self._serving.metrics.store_up.set(0)
                told = {"error": str(error), "seconds": RETRY_SECONDS}
                log.error("the store cannot be used yet", extra=told)  # noqa: TRY400  # the error says all
                self._stop.wait(RETRY_SECONDS)
            else:
                self._serving.store = None if store is None else FeatureStore(store, self._settings)
                return True
        return False

    @contextmanager
    def _flight(self, serving: Callable[[str], None]) -> Iterator[None]:
        """Arrow Flight beside, where it is asked for."""
        if self._flight_port is None or self._serving.store is None:
            yield
            return
        from asof.serving.flight import FlightServer  # noqa: PLC0415  # gRPC is large, and not always needed

        server = FlightServer(self._serving.store, self._host, self._flight_port, self._gate.authenticate, self._tls)
        serving(f"grpc{'+tls' if self._tls else ''}://{f'[{self._host}]' if ':' in self._host else self._host}:{server.port}")
        try:
            yield
        finally:
            server.stop()
