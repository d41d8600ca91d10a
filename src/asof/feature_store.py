"""`asof.connect`: a store with the jobs as methods, and the feature sets of this project."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc

from asof import definitions
from asof.config import Settings, load_settings
from asof.errors import DefinitionError, MissingExtra, NotFound, did_you_mean
from asof.features.feature_set import FeatureSet
from asof.features.label_set import LabelSet
from asof.jobs import backfill as backfilling
from asof.jobs import causes as causing
from asof.jobs import dataset as freezing
from asof.jobs import explain as explaining
from asof.jobs import labelling, reading, trade_bars
from asof.jobs import verify as verifying
from asof.jobs.ages import Age
from asof.jobs.causes import Cause
from asof.jobs.dataset import Dataset, Proof
from asof.jobs.explain import Explained
from asof.jobs.following import Follower
from asof.jobs.ingest import Ingestion, IngestReport, actions_into, books_into, memberships_into
from asof.jobs.level2 import DEPTH
from asof.jobs.live import UNPUBLISHED, Published
from asof.jobs.panels import sort_bars
from asof.jobs.parts import computed, memory_bytes, pieces
from asof.jobs.replay import Replay
from asof.jobs.resampling import Resampled, Resampling
from asof.jobs.verify import Difference, Verified
from asof.jobs.work import Report, Work, joined
from asof.records import BARS, ArrowStream, Frame
from asof.sources.columns import ColumnMapping
from asof.sources.symbols import read_symbols
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Changes, Registered, Selection, Store
from asof.stores.urls import open_store
from asof.timeframes import timeframe as check_timeframe

Time = datetime | str | None
Sets = FeatureSet | str


class FeatureStore:
    """A store and what can be done with it. Use it as a context manager, or `close()` it."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.calendars = settings.market_calendars

    def definition(self, feature_set: Sets) -> FeatureSet:
        """A feature set by its version, or as given; held to what the registry has under that version."""
        registry = self.store.registered()
        if isinstance(feature_set, FeatureSet):
            definitions.check(feature_set, registry)
            return feature_set
        return definitions.find(feature_set, self.settings, registry)

    def registered(self) -> dict[str, Registered]:
        """The registry by version."""
        return self.store.registered()

    def apply(self, feature_set: Sets) -> bool:
        """Register a feature set; whether it was new. Raises `VersionConflict` where its version has another definition."""
        return definitions.register(self.store, self.definition(feature_set), datetime.now(UTC))

    def ingest_bars(
        self,
        *paths: str | Path,
        timeframe: str | None = None,
        columns: dict[str, str] | None = None,
        source: str | None = None,
        timezone: str | None = None,
        unit: str | None = None,
        strict: bool = False,
        symbols: str | Path | None = None,
        symbols_format: str = "table",
    ) -> IngestReport:
        """Bars of Parquet, CSV, JSON lines or Arrow files; see `asof ingest bars`, whose `--map` is `symbols`."""
        mapping = ColumnMapping(columns or {}, timezone, unit)
        names = None if symbols is None else read_symbols(Path(symbols), timezone, symbols_format)
        run = Ingestion(self.store, "bars", datetime.now(UTC), mapping, timeframe, source, strict, symbols=names)
        return run.run(map(Path, paths))

    def ingest_actions(
        self,
        *paths: str | Path,
        columns: dict[str, str] | None = None,
        timezone: str | None = None,
        unit: str | None = None,
        strict: bool = False,
        file_format: str = "table",
    ) -> IngestReport:
        """Splits and dividends of Parquet, CSV, JSON lines or Arrow files, or of Lean's factor files; see `asof ingest actions`."""
        mapping = ColumnMapping(columns or {}, timezone, unit)
        return actions_into(self.store, datetime.now(UTC), mapping, file_format, strict=strict).run(map(Path, paths))

    def ingest_memberships(
        self,
        *paths: str | Path,
        scheme: str | None = None,
        columns: dict[str, str] | None = None,
        timezone: str | None = None,
        unit: str | None = None,
        strict: bool = False,
        file_format: str = "table",
    ) -> IngestReport:
        """Memberships of Parquet, CSV, JSON lines or Arrow files, row by row or as spells; see `asof ingest memberships`."""
        mapping = ColumnMapping(columns or {}, timezone, unit)
        return memberships_into(self.store, datetime.now(UTC), mapping, scheme, file_format, strict=strict).run(map(Path, paths))

    def ingest_events(
        self,
        *paths: str | Path,
        columns: dict[str, str] | None = None,
        timezone: str | None = None,
        unit: str | None = None,
        strict: bool = False,
    ) -> IngestReport:
        """Scored events of Parquet, CSV, JSON lines or Arrow files; see `asof ingest events`."""
        run = Ingestion(self.store, "events", datetime.now(UTC), ColumnMapping(columns or {}, timezone, unit), strict=strict)
        return run.run(map(Path, paths))

    def ingest_trades(
        self,
        *paths: str | Path,
        columns: dict[str, str] | None = None,
        timezone: str | None = None,
        unit: str | None = None,
        strict: bool = False,
    ) -> IngestReport:
        """Trades of Parquet, CSV, JSON lines or Arrow files; see `asof ingest trades`."""
        run = Ingestion(self.store, "trades", datetime.now(UTC), ColumnMapping(columns or {}, timezone, unit), strict=strict)
        return run.run(map(Path, paths))

    def ingest_quotes(
        self,
        *paths: str | Path,
        columns: dict[str, str] | None = None,
        missing_side: str | None = None,
        timezone: str | None = None,
        unit: str | None = None,
        strict: bool = False,
    ) -> IngestReport:
        """Quotes of Parquet, CSV, JSON lines or Arrow files; see `asof ingest quotes`."""
        mapping = ColumnMapping(columns or {}, timezone, unit)
        run = Ingestion(self.store, "quotes", datetime.now(UTC), mapping, strict=strict, missing_side=missing_side)
        return run.run(map(Path, paths))

    def ingest_books(
        self,
        *paths: str | Path,
        columns: dict[str, str] | None = None,
        file_format: str = "table",
        depth: int = DEPTH,
        snapshots: Iterable[str | Path] = (),
        timezone: str | None = None,
        unit: str | None = None,
        strict: bool = False,
    ) -> IngestReport:
        """Order books of Parquet, CSV, JSON lines or Arrow files, or of level 2 updates; see `asof ingest books`."""
        mapping, first = ColumnMapping(columns or {}, timezone, unit), [Path(path) for path in snapshots]
        run = books_into(self.store, datetime.now(UTC), mapping, file_format, depth=depth, snapshots=first, strict=strict)
        return run.run([*first, *map(Path, paths)])

    def bars_from_trades(
        self, timeframe: str, *, instruments: Iterable[str] | None = None, start: Time = None, end: Time = None
    ) -> Changes:
        """Make bars of stored trades, one for each interval in which there were any, and store them; what changed.

        `[start, end]` are opens of bars, both included. Raises `NotFound` where there are no trades. See `asof bars from-trades`.
        """
        names = None if instruments is None else tuple(instruments)
        first, last = _time(start, "start"), _time(end, "end", through=True)
        return trade_bars.store_bars(self.store, timeframe, datetime.now(UTC), names, first, last)

    def bars_by_passing(self, what: str, every: float, *, instruments: Iterable[str] | None = None, start: Time = None) -> Frame:
        """Bars of stored trades that end when `every` of `what` (`trades`, `volume` or `value`) has passed, and with the UTC day.

        From the beginning of the day of `start` on. They have no timeframe, and are not stored. See `asof.jobs.trade_bars`.
        """
        passing, names = trade_bars.Passing(what, every), None if instruments is None else tuple(instruments)
        found = (trade_bars.bars_by_passing(some, passing) for some in trade_bars.stored_trades(self.store, names, _time(start, "start")))
        return Frame(joined(found, BARS).drop_columns(["timeframe"]))

    def withdraw_bars(self, bars: ArrowStream, timeframe: str) -> int:
        """Take bars away: a table of `instrument_id` and `ts`. Their revisions stay, and end now; how many were there.

        The vectors that they reach follow with `catch_up`, or with the service's next cycle.
        """
        check_timeframe(timeframe)
        keys = reading.keys_of(bars, ("instrument_id", "ts"))
        keys = keys.add_column(1, "timeframe", pa.array([timeframe] * len(keys), pa.string()))
        return self.store.withdraw(BARS_TABLE, keys, datetime.now(UTC))

    def withdraw_events(self, events: ArrowStream) -> int:
        """Take events away from instruments: a table of `instrument_id` and `event_id`. Their revisions stay; how many were there."""
        return self.store.withdraw(EVENTS_TABLE, reading.keys_of(events, ("instrument_id", "event_id")), datetime.now(UTC))

    def resample(
        self,
        lower: str,
        higher: str,
        *,
        instruments: Iterable[str] | None = None,
        changed: bool = False,
        progress: backfilling.Progress = lambda done, total: None,
    ) -> Resampled:
        """Make the bars of a higher timeframe of the stored bars of a lower one, where no bars of another source are.

        With `changed`, only those that bars are in which have changed since the last time; the first time, all.
        """
        chosen = None if instruments is None else frozenset(instruments)
        job = Resampling(self.store, lower, higher, datetime.now(UTC), self.calendars, chosen)
        return sum(job.catch_up(), job.begin(progress)) if changed else job.everything(progress)

    def backfill(
        self,
        feature_set: Sets,
        timeframe: str,
        *,
        instruments: Iterable[str] | None = None,
        start: Time = None,
        end: Time = None,
        threads: int | None = None,
        memory: str = "2GB",
        progress: backfilling.Progress = lambda done, total: None,
    ) -> Report:
        """Compute and store vectors; `[start, end]` are bar opens, both included. Registers the set if it is new."""
        work = self._work(feature_set, timeframe, threads)
        return backfilling.backfill(
            work,
            instruments=None if instruments is None else tuple(instruments),
            start=_time(start, "start"),
            end=_time(end, "end", through=True),
            memory=memory_bytes(memory),
            progress=progress,
        )

    def compute(
        self,
        feature_set: Sets,
        timeframe: str,
        *,
        instruments: Iterable[str] | None = None,
        start: Time = None,
        end: Time = None,
        known_at: Time = None,
        threads: int | None = None,
    ) -> Frame:
        """The vectors that stored bars and events give, as they were known at a moment; nothing is written.

        What a backfill at `known_at` would have stored, whether there was one or not.
        """
        check_timeframe(timeframe)
        then = _time(known_at, "known_at")
        chosen, now = self.definition(feature_set), then or datetime.now(UTC)
        work = Work(self.store, chosen, timeframe, now, "compute", threads, self.calendars, then)
        names = None if instruments is None else tuple(instruments)
        parts = pieces(work, names, _time(start, "start"), _time(end, "end", through=True)).parts
        vectors = joined((computed(work, part) for part in parts), work.table.schema)
        return Frame(reading.tabular(work.feature_set, vectors))

    def labels(
        self,
        labels: LabelSet,
        timeframe: str,
        *,
        features: Sets | Iterable[str] | None = None,
        instruments: Iterable[str] | None = None,
        start: Time = None,
        end: Time = None,
        known_at: Time = None,
        threads: int | None = None,
    ) -> Frame:
        """The labels of stored bars, as they were known at a moment; `[start, end]` are bar opens. See `asof.labels.compute`.

        `features` adds those of the stored vectors of the same bars: a feature set (`"fs_v1"`) or some of one (`["fs_v1:ret_1"]`).
        """
        check_timeframe(timeframe)
        then, now = _time(known_at, "known_at"), datetime.now(UTC)
        first, last = _time(start, "start"), _time(end, "end", through=True)
        names = None if instruments is None else tuple(instruments)
        work = Work(self.store, labelling.inputs_of(labels), timeframe, then or now, "labels", threads, self.calendars, then)
        vectors = joined((computed(work, part) for part in pieces(work, names, first).parts), work.table.schema)
        made = labelling.labelled(labels, sort_bars(vectors).table)
        made = made if last is None else made.filter(pc.less_equal(made["ts"], pa.scalar(last, made["ts"].type)))
        if features is None:
            return Frame(made)
        version, some = _wanted(features)
        chosen, selection = self.select(version, timeframe, names, first, last, then)
        found = reading.history(self.store, chosen, selection, some)
        return Frame(labelling.beside(made, found, chosen.select(some or tuple(chosen.features))))

    def catch_up(
        self,
        feature_set: Sets,
        timeframe: str,
        *,
        threads: int | None = None,
        memory: str = "2GB",
        progress: backfilling.Progress = lambda done, total: None,
    ) -> Report:
        """Compute again just the vectors that bars and events reach which have changed since the last time.

        The first time, everything is computed. Bars that have not closed wait until they have.
        """
        follower = Follower(self._work(feature_set, timeframe, threads), "backfill")
        return sum(follower.catch_up(), follower.begin(memory_bytes(memory), progress))

    def _work(self, feature_set: Sets, timeframe: str, threads: int | None) -> Work:
        """A registered feature set over a timeframe; registers it if it is new."""
        check_timeframe(timeframe)
        chosen, now = self.definition(feature_set), datetime.now(UTC)
        definitions.register(self.store, chosen, now)
        return Work(self.store, chosen, timeframe, now, self.settings.pipeline_version, threads, self.calendars)

    def verify(
        self,
        feature_set: Sets,
        timeframe: str,
        *,
        instruments: Iterable[str] | None = None,
        start: Time = None,
        end: Time = None,
        sample: int | None = None,
        seed: int = 0,
        threads: int | None = None,
        memory: str = "2GB",
        against: str = "inputs",
        progress: backfilling.Progress = lambda done, total: None,
    ) -> Verified:
        """Compute stored vectors again from stored inputs and compare them bit for bit; writes nothing. See `asof verify`.

        `against="replay"` compares them with what a replay of the inputs through the live code gives.
        """
        check_timeframe(timeframe)
        if against not in ("inputs", "replay"):
            raise DefinitionError(f"against={against!r} is neither 'inputs' nor 'replay'{did_you_mean(against, ['inputs', 'replay'])}")
        work = Work(self.store, self._registered(feature_set), timeframe, datetime.now(UTC), "verify", threads, self.calendars)
        names = None if instruments is None else tuple(instruments)
        if sample is not None:
            names = verifying.some(work, names, sample, seed)
        first, last = _time(start, "start"), _time(end, "end", through=True)
        verify = partial(verifying.verify, work, instruments=names, start=first, end=last, memory=memory_bytes(memory))
        if against == "inputs":
            return _summed(verify(), progress)
        with closing(open_store("duckdb://")) as scratch:
            Replay(work, scratch, names, seed=seed).run()
            replayed = replace(work, store=scratch)
            return _summed(verify(made=lambda _, part: verifying.stored(replayed, part)), progress)

    def cause(self, feature_set: Sets, timeframe: str, difference: Difference) -> Cause:
        """Why a vector that `verify` found is not what its inputs give: taken apart, with the inputs that have changed since."""
        work = Work(self.store, self.definition(feature_set), timeframe, datetime.now(UTC), "explain", 1, self.calendars)
        return causing.cause(work, difference)

    def replay(
        self,
        feature_set: Sets,
        timeframe: str,
        into: FeatureStore,
        *,
        instruments: Iterable[str] | None = None,
        start: Time = None,
        end: Time = None,
        pace: float | None = None,
        seed: int = 0,
        topic: str | None = None,
        every_moment: bool = False,
        threads: int | None = None,
        progress: backfilling.Progress = lambda done, total: None,
    ) -> Report:
        """Feed stored bars and events through the live code in the order in which they became known, `into` an empty store.

        `[start, end]` are moments of becoming known: what was known before `start` goes in at once. `pace` is how many seconds of history
        pass in one; as fast as it can where it is not given. Moments at which nothing is corrected share a cycle of the loop, whose time
        is the `known_from` of their vectors; with `every_moment` each has its own, so that `into` learns of each vector when it could
        be known. Vectors from `start` on are also published to `topic`, where one is named. See `asof replay`.
        """
        names = None if instruments is None else tuple(instruments)
        first, last = _time(start, "start"), _time(end, "end", through=True)
        work = self._work(feature_set, timeframe, threads)
        publishing = UNPUBLISHED if topic is None else _publisher(self.settings, work.feature_set.version, topic)
        return Replay(work, into.store, names, first, last, pace, seed, published=publishing, every_moment=every_moment).run(progress)

    def explain(self, feature_set: Sets, timeframe: str, instrument: str, ts: datetime | str, *, known_at: Time = None) -> Explained:
        """One vector with the value of every expression, the bars and events that went in, and why its flags are raised."""
        check_timeframe(timeframe)
        at, then = _time(ts, "ts"), _time(known_at, "known_at")
        assert at is not None
        work = Work(self.store, self.definition(feature_set), timeframe, datetime.now(UTC), "explain", 1, self.calendars, then)
        return explaining.explain(work, instrument, at)

    def history(
        self,
        feature_set: Sets | Iterable[str],
        timeframe: str,
        *,
        instruments: Iterable[str] | None = None,
        start: Time = None,
        end: Time = None,
        known_at: Time = None,
    ) -> Frame:
        """Stored vectors by instrument and time; `[start, end]` are bar opens, both included.

        `feature_set` is one (`"fs_v1"`), or some features of one (`["fs_v1:ret_1", "fs_v1:vol_20"]`). `known_at` asks for
        what this store held to be true at that moment, though bars were corrected and events came since.
        """
        version, names = _wanted(feature_set)
        chosen, selection = self.select(version, timeframe, instruments, start, end, known_at)
        return Frame(reading.tabular(chosen, reading.history(self.store, chosen, selection, names)))

    def latest(
        self,
        feature_set: Sets,
        timeframe: str,
        *,
        instruments: Iterable[str] | None = None,
        at: Time = None,
        known_at: Time = None,
    ) -> Frame:
        """The newest stored vector of each instrument, among those available at `at` if given, as held at `known_at`."""
        chosen, selection = self.select(feature_set, timeframe, instruments, None, _time(at, "at"), known_at)
        return Frame(reading.tabular(chosen, reading.latest(self.store, chosen, selection)))

    def get_online_features(self, feature_set: Sets, instruments: Iterable[str], timeframe: str) -> Frame:
        """The newest vectors of these instruments: `latest`, by the name that Feast's users know."""
        return self.latest(feature_set, timeframe, instruments=instruments)

    def get_historical_features(
        self,
        entity_df: ArrowStream,
        features: Sets | Iterable[str],
        timeframe: str,
        *,
        max_age: timedelta | str | None = None,
        timezone: str | None = None,
        known_at: Time = None,
    ) -> Frame:
        """Every entity row (`instrument_id`, `event_timestamp`, anything else) with the features that could be known then.

        `features` is a feature set (`"fs_v1"`) or some of one (`["fs_v1:ret_1", "fs_v1:vol_20"]`). `max_age` is the oldest vector that
        is used: `"3d"` or a `timedelta` by the clock, `"2h trading"` of hours in which its market was open, `"3d trading"` of sessions
        that have begun since. See `asof.jobs.reading.join`.
        """
        version, names = _wanted(features)
        chosen = self._registered(version)
        age = None if max_age is None else Age.of(max_age)
        check_timeframe(timeframe)
        then = _time(known_at, "known_at")
        return Frame(reading.join(self.store, chosen, timeframe, entity_df, names, age, timezone, then, self.calendars))

    def create_dataset(
        self,
        name: str,
        entity_df: ArrowStream,
        features: Sets | Iterable[str],
        timeframe: str,
        *,
        max_age: timedelta | str | None = None,
        timezone: str | None = None,
        known_at: Time = None,
        folder: str | Path = freezing.FOLDER,
    ) -> Dataset:
        """Freeze a training set under a name: `get_historical_features`, of one feature set or several, into files that can be proved.

        `known_at` is now unless it is given, and from then on part of the data set. See `asof dataset create`.
        """
        check_timeframe(timeframe)
        sets = {self._registered(version): names for version, names in _grouped(features).items()}
        return freezing.create(
            self.store,
            name,
            pa.table(entity_df),
            {chosen: chosen.select(names or tuple(chosen.features)) for chosen, names in sets.items()},
            timeframe,
            now=datetime.now(UTC),
            known_at=_time(known_at, "known_at"),
            max_age=None if max_age is None else Age.of(max_age),
            timezone=timezone,
            calendars=self.calendars,
            pipeline_version=self.settings.pipeline_version,
            folder=Path(folder),
        )

    def verify_dataset(self, name: str, *, folder: str | Path = freezing.FOLDER) -> Proof:
        """Hold a data set to its checksums, and to what this store gives again as known at its moment. See `asof dataset verify`."""
        return freezing.verify(self.store, Path(folder), name)

    def select(
        self,
        feature_set: Sets,
        timeframe: str,
        instruments: Iterable[str] | None = None,
        start: Time = None,
        end: Time = None,
        known_at: Time = None,
    ) -> tuple[FeatureSet, Selection]:
        """A registered feature set, and which of its vectors to read. Raises where a name or time is not usable."""
        check_timeframe(timeframe)
        names = None if instruments is None else tuple(instruments)
        first, last = _time(start, "start"), _time(end, "end", through=True)
        return self._registered(feature_set), Selection(timeframe, names, first, last, _time(known_at, "known_at"))

    def wanted(self, features: Sets | Iterable[str]) -> tuple[FeatureSet, tuple[str, ...]]:
        """A registered feature set and which of its features are meant, by `"fs_v1"` or `["fs_v1:ret_1", ...]`."""
        version, names = _wanted(features)
        chosen = self._registered(version)
        return chosen, chosen.select(names or tuple(chosen.features))

    def _registered(self, feature_set: Sets) -> FeatureSet:
        chosen = self.definition(feature_set)
        if chosen.version not in self.store.registered():
            raise NotFound(f"{chosen.version} has no vectors in {self.store.url}: run asof backfill {chosen.version} first")
        return chosen

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def connect(
    url: str | None = None, *, memory: str | None = None, threads: int | None = None, create: bool = True, key: str | None = None
) -> FeatureStore:
    """Open a store: `duckdb:///path`, a plain path, or by default what `ASOF_STORE` or `asof.toml` names, else `asof.duckdb` here.

    A file that is not there is made, unless `create` is false. A running service is a store to read from, with a `key` if it asks for
    one, by default `ASOF_KEY`. Raises `StoreError` where it cannot be opened, saying who holds it.
    """
    settings = load_settings()
    given = key if key is not None or settings.key is None else settings.key.get_secret_value()
    return FeatureStore(open_store(url or settings.store_url, memory=memory, threads=threads, create=create, key=given), settings)


def _publisher(settings: Settings, version: str, topic: str) -> Published:
    try:
        from asof.jobs.publish import for_replay  # noqa: PLC0415  # confluent-kafka is an extra
    except ImportError as error:
        raise MissingExtra(f'publishing needs confluent-kafka: pip install "asof[kafka]" ({error})') from None
    return for_replay(settings, version, topic)


def _summed(pieces: Iterable[tuple[Verified, int]], progress: backfilling.Progress) -> Verified:
    found = Verified()
    for piece, rows in pieces:
        found += piece
        progress(piece.rows, rows)
    return found


def _time(value: Time, what: str, *, through: bool = False) -> datetime | None:
    if isinstance(value, str):
        return reading.parse_time(value, what, through=through)
    if value is not None and value.tzinfo is None:
        return reading.parse_time(value.isoformat(), what)
    return value


def _wanted(features: Sets | Iterable[str]) -> tuple[Sets, tuple[str, ...] | None]:
    """A feature set and some of its features, from `"fs_v1"` or `["fs_v1:ret_1", ...]`."""
    grouped = _grouped(features)
    if len(grouped) != 1:
        raise NotFound(f"features of one set at a time, such as ['fs_v1:ret_1']; given were {', '.join(sorted(map(str, grouped)))}")
    return next(iter(grouped.items()))


def _grouped(features: Sets | Iterable[str]) -> dict[Sets, tuple[str, ...] | None]:
    """Feature sets and which of their features, None for all, from `"fs_v1"` or `["fs_v1:ret_1", "other_v1"]`."""
    if isinstance(features, FeatureSet):
        return {features: None}
    parts = [text.partition(":") for text in ([features] if isinstance(features, str) else features)]
    if not parts:
        raise NotFound("no features are named: say which, such as fs_v1 or fs_v1:ret_1")
    found: dict[Sets, tuple[str, ...] | None] = {}
    for version in dict.fromkeys(version for version, _, _ in parts):
        names = [name for of, _, name in parts if of == version]
        found[version] = tuple(dict.fromkeys(names)) if all(names) else None
    return found


__all__ = ["FeatureStore", "connect"]
