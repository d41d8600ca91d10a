"""The newest vector of every instrument, in memory, as the bytes that are answered.

1. One thread at a time writes: the loop that makes vectors (`asof.jobs.live`), or what follows a topic or a store. It stores first and
   tells then, so nothing is answered that is not stored.
2. Any thread reads, without a lock: an entry never changes, and takes its place in one step.
3. A vector that cannot be known yet waits until it can; what was known before is answered until then.
4. What became the newest is numbered and kept for a while, for those who follow (`asof.serving.recent`).
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import NotFound, did_you_mean
from asof.features.feature_set import FeatureSet
from asof.jobs.formats import lines, recorded
from asof.jobs.work import Work
from asof.records import micros
from asof.serving.recent import KEPT, Recent
from asof.stores.store import Selection

NEVER = 1 << 62
SHARED_TIMES = 1 << 16


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A vector: its bar's open and when it could be known, in microseconds of Unix time, and its `features.v1` JSON.

    Ten million of them are nothing to Python's collector, which is not told of them.
    """

    ts: int
    available_at: int
    line: bytes


Rows = Iterable[tuple[str, Entry]]
"""Instruments, and a vector of each; later ones take the place of earlier ones."""


class Key(NamedTuple):
    """What vectors are kept by, and then by instrument."""

    version: str
    timeframe: str


class _Due(NamedTuple):
    """A vector that waits, and when it no longer has to. `number` tells those of one moment apart."""

    available_at: int
    number: int
    key: Key
    instrument: str
    entry: Entry


def now() -> int:
    """Microseconds of Unix time."""
    return time.time_ns() // 1_000


class Newest:
    """The newest vectors. It is one of those that the loop tells (`asof.jobs.live.Published`)."""

    def __init__(self, clock: Callable[[], int] = now, kept: int = KEPT) -> None:
        self.recent = Recent(kept)
        self._clock = clock
        self._held: dict[Key, dict[str, Entry]] = {}
        self._writing = threading.RLock()
        self._waiting: dict[tuple[Key, str], dict[int, Entry]] = defaultdict(dict)
        self._queue: list[_Due] = []
        self._queued = 0
        self._due = NEVER
        self._names: dict[str, str] = {}
        self._times: dict[int, int] = {}

    # Reading

    def of(self, version: str, timeframe: str) -> Mapping[str, Entry] | None:
        """The newest vectors by instrument, to look up in; None where none of this set and timeframe are held here.

        It goes on changing: to walk through it take `list(of.items())` first, which is one step.
        """
        if self._clock() >= self._due:
            self.release()
        return self._held.get(Key(version, timeframe))

    def entry(self, version: str, timeframe: str, instrument: str) -> Entry | None:
        """The newest vector of an instrument."""
        held = self.of(version, timeframe)
        return None if held is None else held.get(instrument)

    def instruments(self, version: str, timeframe: str) -> list[str]:
        """The instruments that have a vector, in their order."""
        return sorted(self.of(version, timeframe) or ())

    def series(self) -> list[Key]:
        """The feature sets and timeframes that are held here."""
        return sorted(self._held)

    def __len__(self) -> int:
        """How many vectors are held."""
        return sum(map(len, list(self._held.values())))

    @property
    def due(self) -> int:
        """When the next vector that waits can be known, in microseconds; `NEVER` where none waits."""
        return self._due

    # Writing

    def put(self, version: str, timeframe: str, rows: Rows) -> None:
        """Vectors that are the newest now, in the order in which followers are told of them."""
        with self._writing:
            key, clock = self._open(version, timeframe), self._clock()
            for instrument, entry in rows:
                if entry.available_at > clock:
                    self._wait(key, instrument, entry)
                else:
                    self._take(key, instrument, entry)
        self.recent.announce()

    def fill(self, version: str, timeframe: str, rows: Rows) -> None:
        """Vectors that are the newest, of which nobody is told: what was there before anybody followed."""
        with self._writing:
            key, clock, given = self._open(version, timeframe), self._clock(), list(rows)
            if any(entry.available_at > clock for _, entry in given):
                for instrument, entry in [row for row in given if row[1].available_at > clock]:
                    self._wait(key, instrument, entry)
                given = [row for row in given if row[1].available_at <= clock]
            self._held[key].update(given)

    def drop(self, version: str, timeframe: str, instruments: Iterable[str]) -> None:
        """No vector of these is left."""
        with self._writing:
            key = self._open(version, timeframe)
            for instrument in instruments:
                self._waiting.pop((key, instrument), None)
                if self._held[key].pop(instrument, None) is not None:
                    self.recent.append(version, timeframe, instrument, None)
        self.recent.announce()

    def release(self) -> None:
        """Take in the vectors that waited and can be known by now. Any thread may ask for it."""
        with self._writing:
            clock = self._clock()
            while self._queue and self._queue[0].available_at <= clock:
                _, _, key, instrument, entry = heapq.heappop(self._queue)
                waiting = self._waiting.get((key, instrument), {})
                if waiting.get(entry.ts) is not entry:
                    continue  # another took its place, or it was withdrawn
                self._take(key, instrument, entry, only_newer=True)
            self._due = self._queue[0].available_at if self._queue else NEVER
        self.recent.announce()

    def clear(self) -> None:
        """Forget everything: those who follow begin again, too."""
        with self._writing:
            self._held, self._waiting, self._queue, self._due = {}, defaultdict(dict), [], NEVER
            self.recent.forget()
        self.recent.announce()

    @property
    def shared(self) -> Callable[[str, str], str]:
        """Given an instrument's name twice, the one object that all of its vectors share."""
        return self._names.setdefault

    def _open(self, version: str, timeframe: str) -> Key:
        key = Key(version, timeframe)
        self._held.setdefault(key, {})
        return key

    def _take(self, key: Key, instrument: str, entry: Entry, *, only_newer: bool = False) -> None:
        held = self._held[key]
        if self._waiting and (waiting := self._waiting.get((key, instrument))) is not None:
            waiting.pop(entry.ts, None)
            if not waiting:
                del self._waiting[key, instrument]
        if only_newer and instrument in held and held[instrument].ts > entry.ts:
            return
        held[instrument] = entry
        self.recent.append(*key, instrument, entry.line)

    def _wait(self, key: Key, instrument: str, entry: Entry) -> None:
        self._waiting[key, instrument][entry.ts] = entry
        self._queued += 1
        heapq.heappush(self._queue, _Due(entry.available_at, self._queued, key, instrument, entry))
        self._due = self._queue[0].available_at

    # What the loop tells

    def begin(self, work: Work) -> None:
        """Take in what is newest in the store; see `Published.begin`. What was here of this work before is forgotten."""
        key, found = Key(work.feature_set.version, work.timeframe), self._stored(work, None)
        with self._writing:
            self._waiting = defaultdict(dict, {at: rows for at, rows in self._waiting.items() if at[0] != key})
            self._held[key] = {}
            self.fill(*key, found)

    def tell(self, work: Work, made: pa.Table, gone: pa.Table) -> None:
        """Take in what was stored, by time, and what is left of those whose keys are `gone`; see `Published.tell`."""
        version, timeframe = work.feature_set.version, work.timeframe
        held, without = self.of(version, timeframe) or {}, set(gone["instrument_id"].to_pylist())
        made = made.sort_by([("ts", "ascending"), ("instrument_id", "ascending")])
        rows = self.rows(work.feature_set, made)
        self.put(version, timeframe, [row for row in rows if row[0] not in without and not _older(row[1], held.get(row[0]))])
        if without:
            left = self._stored(work, tuple(sorted(without)))
            self.drop(version, timeframe, sorted(without - {name for name, _ in left}))
            for name in without:
                self._waiting.pop((Key(version, timeframe), name), None)
            self.put(version, timeframe, [row for row in left if row[1] != held.get(row[0])])

    def _stored(self, work: Work, names: tuple[str, ...] | None) -> list[tuple[str, Entry]]:
        """The newest vectors of instruments as the store has them: those that can be known, then those that cannot yet, by time."""
        clock = work.now
        found = work.store.latest(work.table, Selection(work.timeframe, names))
        early = found.filter(pc.greater(found["available_at"], pa.scalar(clock, found["available_at"].type)))
        if not len(early):
            return self.rows(work.feature_set, found)
        late = tuple(sorted(early["instrument_id"].to_pylist()))
        known = work.store.latest(work.table, Selection(work.timeframe, late, end=clock))
        since = pc.min(known["ts"]).as_py() if len(known) == len(late) else None
        rest = pa.concat_tables(list(work.store.read(work.table, Selection(work.timeframe, late, since)))).sort_by("ts")
        found = found.filter(pc.invert(pc.is_in(found["instrument_id"], early["instrument_id"].combine_chunks())))
        return self.rows(work.feature_set, pa.concat_tables([table.select(found.column_names) for table in (found, rest)]))

    def rows(self, feature_set: FeatureSet, vectors: pa.Table) -> list[tuple[str, Entry]]:
        """Vectors as they are kept. One without any feature has no record, and is not."""
        vectors = recorded(feature_set, vectors)
        return list(self._shared(lines(feature_set, vectors), micros(vectors["ts"]).tolist(), micros(vectors["available_at"]).tolist()))

    def _shared(self, written: Iterator[tuple[str, bytes]], opens: list[int], known: list[int]) -> Iterator[tuple[str, Entry]]:
        """Entries whose names and times are the same objects where they are equal: instruments have several vectors, bars one time."""
        if len(self._times) > SHARED_TIMES:
            self._times.clear()
        named, timed = self._names.setdefault, self._times.setdefault
        for (name, line), ts, available_at in zip(written, opens, known, strict=True):
            yield named(name, name), Entry(timed(ts, ts), timed(available_at, available_at), line)


def not_held(newest: Newest, version: str, may_read: Callable[[str], bool]) -> NotFound:
    """What is said of a feature set of which nothing is held. Others are named to those who may read them."""
    held = sorted({key.version for key in newest.series() if may_read(key.version)})
    return NotFound(f"no vectors of {version!r} are held here; there are those of {', '.join(held) or 'none'}{did_you_mean(version, held)}")


def _older(entry: Entry, held: Entry | None) -> bool:
    return held is not None and entry.ts < held.ts
