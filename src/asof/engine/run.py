"""Running a plan over a panel.

1. The rows are cut into blocks, and a pool of threads takes one after the other (the compiled loops hold no lock).
2. `_Worker.run` has the machine evaluate the plan over a block, in morsels that stay in the processor's cache, and then turns errors
   into missing values and `COMPUTATION_ERROR`, and missing values into an Arrow validity bitmap.
3. `run` yields the blocks in the panel's order; `evaluate` gives the features of all rows as they are, which stages are made of.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from asof.engine import machine, packing
from asof.engine.drivers import AT, PARAMS, compiled
from asof.engine.native import compile_loop
from asof.engine.panel import Floats, Ints, Panel
from asof.engine.plan import ON_STREAMS, Kind, Plan, Step
from asof.features.streams import EVENTS, STREAMS, Window
from asof.operators import BAR_SHAPES, Shape

Result = TypeVar("Result")

MORSEL_ROWS = 4096
"""Bars that a morsel wants: its buffers then fit a core's own cache."""
MORSEL_POINTS = 16_384
"""Points of a stream that a morsel has, where they are many more than bars."""
BLOCK_MORSELS = 32
"""Morsels of a block: enough that threads seldom meet at the interpreter's lock."""
ALL = np.iinfo(np.int64).max // 2
"""The most points of a window that takes all there are."""

_evaluate = compile_loop(machine.evaluate)
_most_points = compile_loop(machine.most_points)
_pack = compile_loop(packing.pack)


@dataclass(frozen=True)
class Block:
    """The vectors of panel rows `start` to `stop`: one array and validity bitmap (None: all present) for each feature."""

    start: int
    stop: int
    features: tuple[tuple[Floats, NDArray[np.uint8] | None, int], ...]
    flags: Ints
    event_count: Ints
    ohlcv_count: Ints


def run(plan: Plan, panel: Panel, threads: int | None = None, rows: int | None = None) -> Iterator[Block]:
    """The vectors of every bar of the panel, block by block in its order; the bits do not depend on `threads` or `rows`.

    Bars the plan reads must be columns of the panel (a `KeyError` otherwise).
    """
    return run_each(plan, panel, lambda block: block, threads, rows)


def run_each(
    plan: Plan, panel: Panel, each: Callable[[Block], Result], threads: int | None = None, rows: int | None = None
) -> Iterator[Result]:
    """`run`, with `each` applied to every block on the thread that made it, while the block is still in the cache."""
    morsel, morsels = _morsels(plan, panel, threads, rows)
    task = _Task(plan, panel, morsel)
    step = morsel * morsels
    yield from _over_blocks(task, step, lambda worker, start, stop: each(worker.run(start, stop)), threads)


def evaluate(plan: Plan, panel: Panel, threads: int | None = None, rows: int | None = None) -> tuple[Floats, ...]:
    """The features of every bar of the panel, NaN where missing and infinite where an error; as for `run` otherwise."""
    morsel, morsels = _morsels(plan, panel, threads, rows)
    task = _Task(plan, panel, morsel)
    step = morsel * morsels
    for _ in _over_blocks(task, step, lambda worker, start, stop: worker.evaluate(start, stop), threads):
        pass
    return tuple(task.features)


def _over_blocks(task: _Task, step: int, each: Callable[[_Worker, int, int], Result], threads: int | None) -> Iterator[Result]:
    """What `each` makes of every block of `step` rows, with the worker of the thread that it runs on, in the panel's order."""
    count, total = _threads(threads), len(task.features[0])
    if count == 1 or total <= step:
        worker = _Worker(task)
        for start in range(0, total, step):
            yield each(worker, start, min(start + step, total))
        return
    local = threading.local()

    def work(start: int) -> Result:
        if not hasattr(local, "worker"):
            local.worker = _Worker(task)
        return each(local.worker, start, min(start + step, total))

    with ThreadPoolExecutor(count, thread_name_prefix="asof") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for start in range(0, total, step):
                waiting.append(pool.submit(work, start))
                if len(waiting) >= 4 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _threads(wanted: int | None) -> int:
    return wanted or os.cpu_count() or 1


def block_rows(plan: Plan, panel: Panel, threads: int | None = None, rows: int | None = None) -> int:
    """The most rows that a block of this panel has; `rows` says how many a morsel has."""
    each, morsels = _morsels(plan, panel, threads, rows)
    return each * morsels


def _morsels(plan: Plan, panel: Panel, threads: int | None, rows: int | None) -> tuple[int, int]:
    """The rows of a morsel, and the morsels of a block: few enough that every thread gets some, so many that its lookback costs little."""
    if rows:
        return rows, BLOCK_MORSELS
    dense = _dense_rows(plan, panel)
    if dense is not None:
        each = max(4 * plan.lookback, min(MORSEL_ROWS, dense))
        return each, max(1, min(BLOCK_MORSELS, len(panel.ts) // (4 * each * _threads(threads))))
    fair = len(panel.ts) // (4 * BLOCK_MORSELS * _threads(threads))
    return max(4 * plan.lookback, min(MORSEL_ROWS, max(256, fair))), BLOCK_MORSELS


def _dense_rows(plan: Plan, panel: Panel) -> int | None:
    """How many bars a morsel has where points are many more than bars: None where they are not.

    Its points should fit the cache, and be many more than those that it has to read again for the windows of its first bar.
    """
    most = max((len(points.time) for name, points in panel.points.items() if name in plan.reaches), default=0)
    if most <= 4 * len(panel.ts):
        return None
    steps = np.diff(panel.ts)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    again = max(reach.length for reach in plan.reaches.values()) / step
    return int(max(MORSEL_POINTS * len(panel.ts) / most, 4 * again, 1))


class _Task:
    """What the threads share: the plan as the machine reads it, the panel's arrays, and room for the results of all rows.

    The room is taken at once: thousands of small arrays would cost more in page faults than in arithmetic.
    """

    def __init__(self, plan: Plan, panel: Panel, rows: int) -> None:
        self.plan = plan
        self.rows = rows
        self._read: list[Floats | Ints] = [np.ascontiguousarray(array, np.int64) for array in (panel.offsets, panel.ts)]
        self.panel = np.array([(array.ctypes.data, len(array)) for array in self._read])
        self.streams = np.array([self._stream(panel, name) for name in plan.reaches], np.int64).reshape(-1, machine.STREAM)
        named = [(buffer, panel.columns[name], 0) for name, buffer in plan.bar_columns.items()]
        for name, columns in plan.point_columns.items():
            on = ON_STREAMS + STREAMS.index(name)
            named += [(buffer, panel.points[name].columns[column], on) for column, buffer in columns.items()]
        leaves = [(buffer, self._kept(column, np.float64), on) for buffer, column, on in named]
        steps = plan.steps
        self.program = (
            np.array([s.kind for s in steps], np.int64),
            np.array([s.on for s in steps], np.int64),
            np.array([_words(s) for s in steps], np.int64),
            np.array([_numbers(s) for s in steps], np.float64),
            np.array([compiled(s.operator, s.rescaled) if s.operator else 0 for s in steps], np.int64),
            np.array([_cut(plan, window) for window in plan.windows], np.int64).reshape(-1, 3),
            np.array(leaves, np.int64).reshape(-1, 3),
        )
        total = len(panel.ts)
        self.features = [np.empty(total, np.float64) for _ in plan.feature_set.features]
        self.counts = np.zeros((2, total), np.int64)
        self.points = np.zeros(len(plan.reaches), np.int64)
        if plan.reaches:
            _most_points(self.points, self.panel, self.streams, plan.lookback, rows)

    def _kept(self, array: np.ndarray, kind: type) -> int:
        """The address of an array that is there as long as the task."""
        self._read.append(np.ascontiguousarray(array, kind))
        return self._read[-1].ctypes.data

    def _stream(self, panel: Panel, name: str) -> list[int]:
        """A stream as the machine reads it. Windows of events end at the open, which they hold; others at the close, which they do not."""
        points, inclusive = panel.points[name], int(name == EVENTS)
        assert inclusive or panel.closes is not None, "trades, quotes and books need to know when bars close"
        time, starts, stops = (self._kept(array, np.int64) for array in (points.time, *points.spans))
        ends = int(self.panel[1, 0]) if inclusive or panel.closes is None else self._kept(panel.closes, np.int64)
        on, reach = ON_STREAMS + STREAMS.index(name), self.plan.reaches[name].length
        return [on, time, starts, stops, len(points.time), points.spans.shape[1], ends, inclusive, reach + inclusive]


def _cut(plan: Plan, window: Window) -> tuple[int, int, int]:
    """How a window is cut: of which of the plan's streams, how long, and at most how many points."""
    return list(plan.reaches).index(window.stream), window.length + (window.stream == EVENTS), window.most or ALL


def _words(step: Step) -> list[int]:
    """The step's row of the machine's `at`."""
    words = [0] * AT
    words[0] = step.out if step.kind in (Kind.APPLY, Kind.SPREAD) else step.place
    words[1 : 1 + len(step.inputs)] = step.inputs
    if step.operator and step.operator.shape is Shape.AT:
        words[-1] = step.seen - step.on
    elif step.operator:
        words[-1] = step.operator.reach(step.params) if step.operator.shape in BAR_SHAPES else step.operator.minimum
    return words


def _numbers(step: Step) -> list[float]:
    """The step's parameters, as many as every step has."""
    return [*map(float, step.params), *[0.0] * (PARAMS - len(step.params))]


class _Worker:
    """One thread's evaluation of a plan: its buffers."""

    def __init__(self, task: _Task) -> None:
        plan, self._task = task.plan, task
        room = task.rows + plan.lookback - 1
        self._buffers = np.zeros(plan.buffers, np.int64)
        sizes = dict.fromkeys(plan.bar_buffers, room)
        for name, points in zip(plan.reaches, task.points.tolist(), strict=True):
            sizes |= dict.fromkeys(plan.point_buffers[name], points)
        self._kept = {buffer: np.empty(size) for buffer, size in sizes.items()}
        self._kept |= {buffer: np.full(max(room, *task.points, 0), value) for buffer, value in plan.constants.items()}
        for buffer, array in self._kept.items():
            self._buffers[buffer] = array.ctypes.data
        offsets, windows = int(task.panel[0, 1]), len(plan.windows)
        self._scratch = (
            np.empty((1 + 2 * len(plan.reaches), offsets), np.int64),
            np.empty((windows, room), np.int64),
            np.empty((windows, room), np.int64),
            np.empty((windows, room), np.int64),
            np.zeros(machine.ON_WINDOWS, np.int64),
            np.zeros((machine.ON_WINDOWS + windows, machine.FRAME), np.int64),
        )

    def evaluate(self, start: int, stop: int) -> Ints:
        """Rows `start` to `stop` of the task's features and counts, and their flags."""
        task = self._task
        addresses = np.array([column.ctypes.data for column in task.features], np.int64)
        flags = np.zeros(stop - start, np.int64)
        results = addresses, flags, task.counts
        state = self._buffers, self._scratch
        _evaluate(start, stop, task.rows, task.plan.lookback, task.program, task.panel, task.streams, *state, results)
        return flags

    def run(self, start: int, stop: int) -> Block:
        """The block of rows `start` to `stop`."""
        task, flags = self._task, self.evaluate(start, stop)
        error = 1 << len(task.plan.feature_set.flags)
        features = []
        for column in task.features:
            values, bitmap = column[start:stop], np.empty((stop - start + 7) // 8, np.uint8)
            missing = int(_pack(values, bitmap, flags, error))  # type: ignore[call-overload]
            features.append((values, bitmap if missing else None, missing))
        return Block(start, stop, tuple(features), flags, task.counts[1, start:stop], task.counts[0, start:stop])
