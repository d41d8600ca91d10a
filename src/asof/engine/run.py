"""Running a plan over a panel.

1. `morsels` cuts the panel into pieces: whole instruments, or a stretch of one with its lookback in front.
2. `_Worker.run` evaluates the plan's steps over one morsel into scratch buffers that are used again and again.
3. `_Worker._finish` drops the lookback rows, turns errors into missing values and `COMPUTATION_ERROR`, flags into a bitmask and
   missing values into an Arrow validity bitmap.
4. `run` does this on a pool of threads (the loops hold no lock) and yields the blocks in the panel's order.
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

from asof.engine import finishing
from asof.engine.drivers import compile_loop, compiled
from asof.engine.panel import Floats, Ints, Panel
from asof.engine.plan import Plan, Step
from asof.features.expression import BARS
from asof.operators import BAR_SHAPES, EVENT_SHAPES

Result = TypeVar("Result")
Windows = tuple[Ints, Ints, Ints]

MORSEL_ROWS = 65_536
"""The most bars of a morsel. Smaller ones fit a nearer cache, but threads then spend their time handing the interpreter's lock around."""

_cut_windows = compile_loop(finishing.cut_windows)
_spread = compile_loop(finishing.spread)
_pack_column = compile_loop(finishing.pack_column)
_raise_flag = compile_loop(finishing.raise_flag)


@dataclass(frozen=True)
class Morsel:
    """Instruments `first` to `last`, bars `start` to `stop`, of which the first `warm` are lookback and not wanted."""

    first: int
    last: int
    start: int
    stop: int
    warm: int


class _Results:
    """Room for the results of all rows, taken at once: thousands of small arrays would cost more in page faults than in arithmetic."""

    def __init__(self, plan: Plan, rows: int) -> None:
        self.features = [np.empty(rows, np.float64) for _ in plan.features]
        self.flags = np.empty(rows, np.int64)
        self.event_count = np.empty(rows, np.int64)
        self.ohlcv_count = np.empty(rows, np.int64)


@dataclass(frozen=True)
class Block:
    """The vectors of panel rows `start` to `stop`: one array and validity bitmap (None: all present) for each feature."""

    start: int
    stop: int
    features: tuple[tuple[Floats, NDArray[np.uint8] | None, int], ...]
    flags: Ints
    event_count: Ints
    ohlcv_count: Ints


def morsels(offsets: Ints, lookback: int, rows: int) -> Iterator[Morsel]:
    """Pieces of about `rows` bars that together want every bar once."""
    count = len(offsets) - 1
    first = 0
    while first < count:
        start, stop = int(offsets[first]), int(offsets[first + 1])
        if stop - start > rows:
            for begin in range(start, stop, rows):
                warm = min(lookback - 1, begin - start)
                yield Morsel(first, first + 1, begin - warm, min(begin + rows, stop), warm)
            first += 1
            continue
        last = first + 1
        while last < count and int(offsets[last + 1]) - start <= rows:
            last += 1
        yield Morsel(first, last, start, int(offsets[last]), 0)
        first = last


def run(plan: Plan, panel: Panel, threads: int | None = None, rows: int | None = None) -> Iterator[Block]:
    """The vectors of every bar of the panel, block by block in its order; the bits do not depend on `threads` or `rows`.

    Bars the plan reads must be columns of the panel (a `KeyError` otherwise).
    """
    return run_each(plan, panel, lambda block: block, threads, rows)


def run_each(
    plan: Plan, panel: Panel, each: Callable[[Block], Result], threads: int | None = None, rows: int | None = None
) -> Iterator[Result]:
    """`run`, with `each` applied to every block on the thread that made it, while the block is still in the cache."""
    count = threads or os.cpu_count() or 1
    pieces = morsels(panel.offsets, plan.lookback, rows or min(MORSEL_ROWS, max(4096, len(panel.ts) // (4 * count))))
    results = _Results(plan, len(panel.ts))
    if count == 1:
        worker = _Worker(plan, panel, results)
        for piece in pieces:
            yield each(worker.run(piece))
        return
    local = threading.local()

    def work(piece: Morsel) -> Result:
        if not hasattr(local, "worker"):
            local.worker = _Worker(plan, panel, results)
        return each(local.worker.run(piece))

    with ThreadPoolExecutor(count, thread_name_prefix="asof") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for piece in pieces:
                waiting.append(pool.submit(work, piece))
                if len(waiting) >= 4 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Worker:
    """One thread's evaluation of a plan: its scratch buffers and constants."""

    def __init__(self, plan: Plan, panel: Panel, results: _Results) -> None:
        self._plan = plan
        self._panel = panel
        self._results = results
        self._pool: list[Floats] = []
        self._constants: dict[str, Floats] = {}

    def run(self, piece: Morsel) -> Block:
        """The block of one morsel."""
        panel = self._panel.slice(piece.first, piece.last, piece.start, piece.stop, self._plan.feature_set.event_window)
        rows = len(panel.ts)
        values: list[Floats] = []
        windows: dict[int, Windows] = {}
        borrowed: dict[int, Floats] = {}
        for i, step in enumerate(self._plan.steps):
            values.append(self._evaluate(i, step, panel, values, windows, borrowed))
            for done in self._plan.free[i]:
                if done in borrowed:
                    self._pool.append(borrowed.pop(done))
        block = self._finish(piece, values, rows)
        self._pool.extend(borrowed.values())
        return block

    def _evaluate(
        self, i: int, step: Step, panel: Panel, values: list[Floats], windows: dict[int, Windows], borrowed: dict[int, Floats]
    ) -> Floats:
        node, rows = step.node, len(panel.event_time) if step.on_events else len(panel.ts)
        if node.domain is None:
            rows = max(len(panel.ts), len(panel.event_time))
        if node.operator is None:
            if node.domain is None:
                return self._constant(node.params[0], rows)
            if not node.name:
                return self._constant(1.0, rows)[:rows]
            return (panel.columns if node.domain == BARS else panel.event_columns)[node.name]
        borrowed[i] = self._buffer(rows)
        out = borrowed[i][:rows]
        inputs = [values[j] for j in step.inputs]
        loop = compiled(node.operator)
        if node.operator.shape in EVENT_SHAPES:
            low, high, which = self._windows(panel, int(node.inputs[0].domain or 0), windows)
            values_of_windows = self._buffer(len(low))
            loop(values_of_windows[: len(low)], low, high, node.operator.minimum, *inputs, *node.params)
            _spread(out, values_of_windows, which)
            self._pool.append(values_of_windows)
        elif node.operator.shape in BAR_SHAPES:
            loop(out, panel.offsets, node.operator.reach(node.params), *(v[:rows] for v in inputs), *node.params)
        else:
            loop(out, *inputs, *node.params)
        return out

    def _windows(self, panel: Panel, length: int, windows: dict[int, Windows]) -> Windows:
        """The distinct windows of the bars, each as its first event and the first behind it, and which one every bar has."""
        if length not in windows:
            low, high, which = (np.empty(len(panel.ts), np.int64) for _ in range(3))
            count = int(_cut_windows(low, high, which, panel.offsets, panel.ts, panel.event_offsets, panel.event_time, length))  # type: ignore[call-overload]
            windows[length] = low[:count], high[:count], which
        return windows[length]

    def _buffer(self, rows: int) -> Floats:
        for k, buffer in enumerate(self._pool):
            if len(buffer) >= rows:
                return self._pool.pop(k)
        return np.empty(rows, np.float64)

    def _constant(self, value: float, rows: int) -> Floats:
        found = self._constants.get(key := repr(value))  # -0.0 is equal to 0.0, but not the same bits
        if found is None or len(found) < rows:
            found = self._constants[key] = np.full(rows, value, np.float64)
        return found

    def _finish(self, piece: Morsel, values: list[Floats], rows: int) -> Block:
        """The wanted rows of the results, in their place among those of all rows."""
        plan, warm, start, stop = self._plan, piece.warm, piece.start + piece.warm, piece.stop
        wanted = stop - start
        flags = self._results.flags[start:stop]
        flags[:] = 0
        for bit, i in enumerate(plan.flags):
            _raise_flag(flags, values[i][warm:rows], 1 << bit)
        error = 1 << len(plan.flags)
        features = []
        for column, i in zip(self._results.features, plan.features, strict=True):
            bitmap = np.zeros((wanted + 7) // 8, np.uint8)
            missing = int(_pack_column(column[start:stop], bitmap, values[i][warm:rows], flags, error))  # type: ignore[call-overload]
            features.append((column[start:stop], bitmap if missing else None, missing))
        event_count, ohlcv_count = self._results.event_count[start:stop], self._results.ohlcv_count[start:stop]
        event_count[:] = 0 if plan.event_count is None else values[plan.event_count][warm:rows]
        ohlcv_count[:] = values[plan.ohlcv_count][warm:rows]
        return Block(start, stop, tuple(features), flags, event_count, ohlcv_count)
