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
from asof.engine.plan import Kind, Plan, Step
from asof.operators import BAR_SHAPES

Result = TypeVar("Result")

MORSEL_ROWS = 4096
"""Bars that a morsel wants: its buffers then fit a core's own cache."""
BLOCK_MORSELS = 32
"""Morsels of a block: enough that threads seldom meet at the interpreter's lock."""

_evaluate = compile_loop(machine.evaluate)
_most_events = compile_loop(machine.most_events)
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
    step = block_rows(plan, panel, threads, rows)
    task = _Task(plan, panel, step // BLOCK_MORSELS)
    yield from _over_blocks(task, step, lambda worker, start, stop: each(worker.run(start, stop)), threads)


def evaluate(plan: Plan, panel: Panel, threads: int | None = None, rows: int | None = None) -> tuple[Floats, ...]:
    """The features of every bar of the panel, NaN where missing and infinite where an error; as for `run` otherwise."""
    step = block_rows(plan, panel, threads, rows)
    task = _Task(plan, panel, step // BLOCK_MORSELS)
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
    """The most rows that a block of this panel has: few enough that every thread gets some, many enough that its lookback costs little.

    `rows` says how many a morsel has.
    """
    if rows:
        return BLOCK_MORSELS * rows
    fair = len(panel.ts) // (4 * BLOCK_MORSELS * _threads(threads))
    return BLOCK_MORSELS * max(4 * plan.lookback, min(MORSEL_ROWS, max(256, fair)))


class _Task:
    """What the threads share: the plan as the machine reads it, the panel's arrays, and room for the results of all rows.

    The room is taken at once: thousands of small arrays would cost more in page faults than in arithmetic.
    """

    def __init__(self, plan: Plan, panel: Panel, rows: int) -> None:
        self.plan = plan
        self.rows = rows
        times = (panel.offsets, panel.ts, *panel.event_spans, panel.event_time)
        self._read: list[Floats | Ints] = [np.ascontiguousarray(array, np.int64) for array in times]
        self.panel = np.array([(array.ctypes.data, len(array)) for array in self._read])
        named = [(buffer, panel.columns[name], 0) for name, buffer in plan.bar_columns.items()]
        named += [(buffer, panel.event_columns[name], 1) for name, buffer in plan.event_columns.items()]
        columns = [(buffer, np.ascontiguousarray(column, np.float64), of_events) for buffer, column, of_events in named]
        self._read += [column for _, column, _ in columns]
        leaves = [(buffer, column.ctypes.data, of_events) for buffer, column, of_events in columns]
        steps = plan.steps
        self.program = (
            np.array([s.kind for s in steps], np.int64),
            np.array([s.on for s in steps], np.int64),
            np.array([_words(s) for s in steps], np.int64),
            np.array([_numbers(s) for s in steps], np.float64),
            np.array([compiled(s.operator, s.rescaled) if s.operator else 0 for s in steps], np.int64),
            np.array(plan.windows, np.int64),
            np.array(leaves, np.int64).reshape(-1, 3),
        )
        total = len(panel.ts)
        self.features = [np.empty(total, np.float64) for _ in plan.feature_set.features]
        self.counts = np.zeros((2, total), np.int64)
        longest = max(plan.windows, default=0)
        self.events = int(_most_events(self.panel, plan.lookback, longest, rows)) if plan.windows else 0  # type: ignore[call-overload]


def _words(step: Step) -> list[int]:
    """The step's row of the machine's `at`."""
    words = [0] * AT
    words[0] = step.out if step.kind in (Kind.APPLY, Kind.SPREAD) else step.place
    words[1 : 1 + len(step.inputs)] = step.inputs
    if step.operator:
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
        self._kept = [np.full(max(room, task.events), value) for value in plan.constants.values()]
        self._kept += [np.empty(room) for _ in plan.bar_buffers] + [np.empty(task.events) for _ in plan.event_buffers]
        for buffer, array in zip((*plan.constants, *plan.bar_buffers, *plan.event_buffers), self._kept, strict=True):
            self._buffers[buffer] = array.ctypes.data
        offsets, windows = int(task.panel[0, 1]), len(plan.windows)
        self._scratch = (
            np.empty((3, offsets), np.int64),
            np.empty((windows, room), np.int64),
            np.empty((windows, room), np.int64),
            np.empty((windows, room), np.int64),
            np.zeros((machine.ON_WINDOWS + windows, machine.FRAME), np.int64),
        )

    def evaluate(self, start: int, stop: int) -> Ints:
        """Rows `start` to `stop` of the task's features and counts, and their flags."""
        task = self._task
        addresses = np.array([column.ctypes.data for column in task.features], np.int64)
        flags = np.zeros(stop - start, np.int64)
        results = addresses, flags, task.counts
        _evaluate(start, stop, task.rows, task.plan.lookback, task.program, task.panel, self._buffers, self._scratch, results)
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
