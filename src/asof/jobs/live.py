"""Keeping vectors up to date: a cycle every so many seconds, each for every feature set and timeframe.

1. What is new to the store is backfilled first: a feature set over a timeframe, or an instrument that is new to the settings.
2. Bars of higher timeframes are made first, of those that have changed (`asof.jobs.resampling`): features may look at them.
3. After that a cycle computes what has changed since the last one (`asof.jobs.following`), which mostly is nothing, or one new bar each.
4. What fails is told in the log, in the metrics and in the quality log, and the next cycle tries again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import NO_CALENDARS, Calendars
from asof.errors import BrokerError, NotFound, Stopped, StoreError
from asof.features.feature_set import FeatureSet
from asof.jobs.following import Follower
from asof.jobs.resampling import Resampled, Resampling
from asof.jobs.window import Window
from asof.jobs.work import Report, Work
from asof.records import UTC
from asof.stores.store import SPANS, Selection, Store
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from asof.telemetry.traces import span

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is kept up to date: these feature sets over these timeframes, of some instruments or of all that have bars."""

    feature_sets: tuple[FeatureSet, ...]
    timeframes: tuple[str, ...]
    instruments: frozenset[str] | None
    pipeline_version: str
    refresh_seconds: float
    latest_refresh_seconds: float = 0.0
    calendars: Calendars = NO_CALENDARS
    resampled: tuple[tuple[str, str], ...] = ()
    """Timeframes of bars, and of those that are made of them."""


class Published(Protocol):
    """Who publishes vectors. Both raise `BrokerError` where that fails, and are asked again."""

    def begin(self, work: Work) -> None:
        """Publish what is newest, when the loop begins."""
        ...

    def tell(self, work: Work, made: pa.Table, gone: pa.Table) -> None:
        """Publish vectors that were stored, and that those of some keys are gone."""
        ...


class _Unpublished:
    """Nobody."""

    def begin(self, work: Work) -> None:
        """See `Published.begin`."""

    def tell(self, work: Work, made: pa.Table, gone: pa.Table) -> None:
        """See `Published.tell`."""


UNPUBLISHED = _Unpublished()


@dataclass(frozen=True)
class Several:
    """Several, one after the other: who cannot fail comes first, for what one of them raises the next ones are not told."""

    all: tuple[Published, ...]

    def begin(self, work: Work) -> None:
        """See `Published.begin`."""
        for published in self.all:
            published.begin(work)

    def tell(self, work: Work, made: pa.Table, gone: pa.Table) -> None:
        """See `Published.tell`."""
        for published in self.all:
            published.tell(work, made, gone)


@dataclass
class Live:
    """The loop, and what it remembers from one cycle to the next."""

    store: Store
    plan: Plan
    metrics: Metrics
    health: Health
    clock: Callable[[], datetime]
    stop: threading.Event = field(default_factory=threading.Event)
    """Set by who wants it to end."""
    wake: threading.Event = field(default_factory=threading.Event)
    """Set by who has something for the loop to do before its time."""
    published: Published = UNPUBLISHED
    """Who publishes what is stored."""
    trouble: StoreError | BrokerError | None = None
    """What failed last, of the store or the broker."""
    _works: dict[tuple[str, str], Work] = field(default_factory=dict)
    _windows: dict[tuple[str, str], Window] = field(default_factory=lambda: defaultdict(Window))
    _met: set[tuple[str, str]] = field(default_factory=set)
    _newest: dict[str, datetime] = field(default_factory=dict)
    _refreshed: float = -1e9

    def run(self) -> None:
        """Cycles until `stop` is set; the piece of work that has begun then is finished."""
        with self.health.computing(), suppress(Stopped):
            while not self.stop.is_set():
                began = time.monotonic()
                self.wake.clear()
                with span("cycle"):
                    done = self.cycle()
                self.wake.wait(max(0.0, self._until(done.next_close) - (time.monotonic() - began)))

    def _until(self, next_close: datetime | None) -> float:
        """Seconds to the next cycle: until a bar closes that is there already, or as the plan says."""
        closing = self.plan.refresh_seconds if next_close is None else (next_close - self.clock()).total_seconds()
        return min(self.plan.refresh_seconds, closing)

    def cycle(self) -> Report:
        """Everything that is to do now. Raises `Stopped` once it is to stop."""
        done, began = Report(), time.perf_counter()
        healthy = True
        for lower, higher in self.plan.resampled:
            with self._failures(timeframe=higher) as failed:
                done += self._resample(
                    Resampling(self.store, lower, higher, self.clock(), self.plan.calendars, self.plan.instruments, "service")
                )
            healthy &= not failed
        for feature_set in self.plan.feature_sets:
            for timeframe in self.plan.timeframes:
                with self._failures(feature_set, timeframe) as failed:
                    done += self._keep_up(self._work(feature_set, timeframe))
                healthy &= not failed
        if done.computed or done.withdrawn:
            self.metrics.compute_seconds.observe(time.perf_counter() - began)
            self.metrics.upsert_seconds.observe(done.writing)
            with self._failures() as failed:
                self._refresh()
            healthy &= not failed
        self.metrics.compute_runs.inc()
        if healthy and not done.failed:
            self.health.succeeded()
            self.metrics.last_success.set(self.clock().timestamp())
        else:
            self.health.failed()
        return done

    def _work(self, feature_set: FeatureSet, timeframe: str) -> Work:
        plan, key, now = self.plan, (feature_set.version, timeframe), self.clock()
        if key not in self._works:
            self._works[key] = Work(self.store, feature_set, timeframe, now, plan.pipeline_version, calendars=plan.calendars)
        return self._works[key].at(now)

    @contextmanager
    def _failures(self, feature_set: FeatureSet | None = None, timeframe: str | None = None) -> Iterator[list[str]]:
        """What fails inside is told, and does not stop what comes after."""
        failed: list[str] = []
        try:
            yield failed
            self.metrics.store_up.set(1)
        except (StoreError, BrokerError) as error:
            failed.append(str(error))
            self.trouble = error
            self._windows.clear()
            who, up = ("store", self.metrics.store_up) if isinstance(error, StoreError) else ("broker", self.metrics.broker_up)
            up.set(0)
            self.metrics.compute_failed.labels(who).inc()
            version = feature_set.version if feature_set else None
            told = {"feature_set": version, "timeframe": timeframe, "error": str(error)}
            log.error("the %s failed", who, extra=told)  # noqa: TRY400  # the error says all

    def _keep_up(self, work: Work) -> Report:
        key, done = (work.feature_set.version, work.timeframe), Report()
        follower = Follower(work, "service", self.plan.instruments, self.published.tell, self._windows[key])
        if key not in self._met:
            done = self._meet(follower)
            self._tell(work, done)
            self.published.begin(work)
            self._met.add(key)
        for report in follower.catch_up():
            self._tell(work, report)
            done += report
            self._go_on()
        return done

    def _resample(self, job: Resampling) -> Report:
        """Bring the bars of a higher timeframe up to date."""
        done, key = Resampled(), (job.lower, job.higher)
        if key not in self._met:
            with suppress(NotFound):  # there is nothing yet
                done = job.begin(self._go_on)
            self._met.add(key)
        for piece in job.catch_up():
            done += piece
            self._go_on()
        if done.made or done.withdrawn:
            changes = done.changes
            told = {"inserted": changes.inserted, "corrected": changes.corrected, "withdrawn": done.withdrawn}
            log.info("bars", extra={"timeframe": job.higher, "made_of": job.lower, **told})
        return Report(next_close=done.next_close)

    def _meet(self, follower: Follower) -> Report:
        """The first time: what the store does not have at all."""
        work = follower.work
        self.store.register(work.feature_set, work.now)
        try:
            done = follower.begin(progress=self._go_on)
        except NotFound as error:
            log.warning("there is nothing to compute yet", extra={"feature_set": work.feature_set.version, "reason": str(error)})
            done = Report()
        if missing := self._without_vectors(work):
            done += follower.backfill(missing, progress=self._go_on)
        return done

    def _go_on(self, *progress: int) -> None:  # noqa: ARG002  # how far a backfill is
        """Between two pieces of work: whether to do the next one."""
        if self.stop.is_set():
            raise Stopped

    def _without_vectors(self, work: Work) -> frozenset[str]:
        """The instruments of the settings that have bars but no vectors. Those that have no bars are noted."""
        if self.plan.instruments is None:
            return frozenset()
        names = tuple(sorted(self.plan.instruments))
        found = self.store.latest(work.table, Selection(work.timeframe, names))
        if len(found):
            self._note_newest(work.timeframe, pc.max(found["ts"]).as_py())
        missing = sorted(self.plan.instruments - set(found["instrument_id"].to_pylist()))
        now = pa.array([work.now] * len(missing), UTC)
        spans = pa.table([pa.array(missing, pa.string()), now, now], schema=SPANS)
        barred = set(self.store.around(work.timeframe, spans, 1, ("instrument_id",))["instrument_id"].to_pylist())
        without = tuple(name for name in missing if name not in barred)
        if without:
            work.log_without_bars(without)
            log.warning("instruments have no bars", extra={"timeframe": work.timeframe, "instruments": list(without)})
        return frozenset(missing) & barred

    def _tell(self, work: Work, done: Report) -> None:
        """What was done, in metrics and log."""
        metrics, changes = self.metrics, done.changes
        metrics.vectors_upserted.inc(changes.inserted + changes.corrected)
        for flag, times in done.flags.items():
            metrics.quality_flags.labels(flag).inc(times)
        if done.newest:
            self._note_newest(work.timeframe, done.newest)
        about = {"feature_set": work.feature_set.version, "timeframe": work.timeframe}
        for name, why in done.failed.items():
            metrics.compute_failed.labels("instrument").inc()
            log.error("an instrument failed", extra=about | {"instrument": name, "error": why})
        if done.computed or done.withdrawn:
            told = {"inserted": changes.inserted, "corrected": changes.corrected, "withdrawn": done.withdrawn}
            log.info("vectors", extra={**about, "computed": done.computed, **told})

    def _note_newest(self, timeframe: str, ts: datetime) -> None:
        self._newest[timeframe] = max(ts, self._newest.get(timeframe, ts))
        self.metrics.last_feature_ts.labels(timeframe).set(self._newest[timeframe].timestamp())

    def _refresh(self) -> None:
        """What the store keeps ready for reading, where it is behind by more than the settings allow."""
        if self.plan.latest_refresh_seconds and time.monotonic() - self._refreshed >= self.plan.latest_refresh_seconds:
            self.store.refresh()
            self._refreshed = time.monotonic()
