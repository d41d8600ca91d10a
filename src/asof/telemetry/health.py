"""How the service is: what the compute loop tells of itself, and the one place which knows whether the service is well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STALE_CYCLES = 3
"""How many cycles in a row may be missed before the service is stale."""
LEAST_STALE_SECONDS = 15.0
"""Cycles may follow one another faster than anybody needs them to."""


@dataclass
class Health:
    """What the compute loop tells of itself. Any thread may tell, any may ask.

    `starting`: no cycle has succeeded yet. `ok`: the last one has. `degraded`: it has not, but there was a success not long ago.
    `stale`: there was none for `stale_after` seconds. `stopped`: the compute loop runs no more.
    """

    feature_set_version: str
    pipeline_version: str
    refresh_seconds: float
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _active: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)
    _failing: bool = field(default=False, init=False)
    _last_success: float | None = field(default=None, init=False)

    @property
    def stale_after(self) -> float:
        """From this age of the last success on, in seconds, the service is stale."""
        return max(STALE_CYCLES * self.refresh_seconds, LEAST_STALE_SECONDS)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The compute loop runs for as long as the block does."""
        with self._lock:
            self._active, self._ended = True, False
        try:
            yield
        finally:
            with self._lock:
                self._active, self._ended = False, True

    def succeeded(self) -> None:
        """A cycle ended without a failure."""
        with self._lock:
            self._last_success, self._failing = self.clock(), False

    def failed(self) -> None:
        """A cycle, or a part of it, failed."""
        with self._lock:
            self._failing = True

    def report(self, cached_events: int = 0) -> dict[str, object]:
        """What `/health` answers."""
        with self._lock:
            age = None if self._last_success is None else max(0.0, self.clock() - self._last_success)
            return {
                "status": self._status(age),
                "compute_active": self._active,
                "last_success_age_seconds": None if age is None else round(age, 3),
                "cached_events": cached_events,
                "feature_set_version": self.feature_set_version,
                "pipeline_version": self.pipeline_version,
            }

    def _status(self, age: float | None) -> str:
        if self._ended:
            return "stopped"
        if age is None:
            return "starting"
        if age > self.stale_after:
            return "stale"
        return "degraded" if self._failing else "ok"
