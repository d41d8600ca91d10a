"""A replica of the newest vectors of a store that others write: it asks again and again, and takes in what has changed.

It asks no oftener than leaves the store nine tenths of its time, however long an answer takes.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from asof import definitions
from asof.config import Settings
from asof.errors import AsofError, DefinitionError, NotFound, StoreError
from asof.features.feature_set import FeatureSet
from asof.records import micros
from asof.serving.newest import Newest
from asof.stores.store import Selection, Store, vectors_table

if TYPE_CHECKING:
    from asof.telemetry.metrics import Metrics

POLL_SECONDS = 1.0
SHARE = 0.1
"""Of the time, that asking may take."""

Seen = dict[str, tuple[int, int]]
"""Of each instrument when its newest vector opens, and when that was computed."""

log = logging.getLogger(__name__)


class StoreReplica:
    """Fills `newest` with the vectors of all registered feature sets over the timeframes of the settings. `run` returns at `stop`."""

    def __init__(self, store: Store, settings: Settings, newest: Newest, metrics: Metrics, stop: threading.Event) -> None:
        self.newest = newest
        self.ready = False
        self._store = store
        self._settings = settings
        self._metrics = metrics
        metrics.vectors_held.set_function(lambda: len(newest))
        self._stop = stop
        self._seen: dict[tuple[str, str], Seen] = {}
        self._left_out: set[str] = set()
        self._polled = time.monotonic()
        self._trouble = "it has not read the store yet"

    def report(self) -> dict[str, object]:
        """How it is: whether it is ready, how long ago the store answered, and what is wrong."""
        return {
            "source": self._store.url,
            "ready": self.ready,
            "vectors": len(self.newest),
            "seconds_behind": round(time.monotonic() - self._polled, 3),
            "trouble": self._trouble or None,
        }

    def run(self) -> None:
        """Fill it, and keep it filled."""
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.poll()
            except StoreError as error:
                self._trouble = str(error)
                self._metrics.store_up.set(0)
                log.error("the store failed", extra={"error": str(error)})  # noqa: TRY400  # the error says all
            took = time.monotonic() - began
            self._stop.wait(max(POLL_SECONDS, took / SHARE - took))

    def poll(self) -> None:
        """Take in what has changed. Raises `StoreError`."""
        began = time.monotonic()
        for feature_set in self._registered():
            for timeframe in self._settings.timeframes:
                self._take(feature_set, timeframe)
        self.ready, self._polled, self._trouble = True, began, ""
        self._metrics.store_up.set(1)
        self._metrics.replica_ready.set(1)

    def _registered(self) -> list[FeatureSet]:
        """The feature sets of the registry. One that cannot be rebuilt here, as it has operators of somebody else's, is left out."""
        registry, found = self._store.registered(), []
        for version in sorted(registry):
            try:
                found.append(definitions.find(version, self._settings, registry))
            except (DefinitionError, NotFound) as error:
                self._leave_out(version, error)
        return found

    def _leave_out(self, version: str, error: AsofError) -> None:
        if version not in self._left_out:
            self._left_out.add(version)
            log.warning("a feature set is not held in memory", extra={"feature_set": version, "reason": str(error)})

    def _take(self, feature_set: FeatureSet, timeframe: str) -> None:
        key = feature_set.version, timeframe
        found = self._store.latest(vectors_table(feature_set), Selection(timeframe, end=datetime.now(UTC)))
        names = found["instrument_id"].to_pylist()
        seen = dict(zip(names, zip(micros(found["ts"]).tolist(), micros(found["computed_at"]).tolist(), strict=True), strict=True))
        before = self._seen.get(key)
        if before is None:
            self.newest.fill(*key, self.newest.rows(feature_set, found))
        elif seen != before:
            changed = pa.array([before.get(name) != seen[name] for name in names], pa.bool_())
            self.newest.put(*key, self.newest.rows(feature_set, found.filter(changed).sort_by("ts")))
            self.newest.drop(*key, sorted(before.keys() - seen.keys()))
        self._seen[key] = seen
