"""Running a plan over a panel.

1. `morsels` cuts the panel into pieces that stay in the processor's cache: whole instruments, or a stretch of one with its
   lookback in front.
2. `_Worker.run` evaluates the plan's steps over one morsel into scratch buffers that are used again and again.
3. `_Worker.finish` drops the lookback rows, turns errors into missing values and `COMPUTATION_ERROR`, flags into a bitmask and
   missing values into an Arrow validity bitmap.
4. `run` does this on a pool of threads (the loops hold no lock) and yields the blocks in the panel's order.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asof.engine import finishing
from asof.engine.drivers import compile_loop, compiled
from asof.engine.panel import Floats, Ints, Panel
from asof.engine.plan import Plan, Step
from asof.features.expression import BARS
from asof.operators import BAR_SHAPES, EVENT_SHAPES

MORSEL_ROWS = 8192
"""Bars of a morsel: a buffer of them is 64 KiB, so a plan's dozen buffers fit in a core's second-level cache."""

_cut_windows = compile_loop(finishing.cut_windows)
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


@dataclass(frozen=True)
class Block:
    """The vectors of panel rows `start` to `stop`: one array and validity bitmap (None: all present) for each feature."""

    start: int
    stop: int
    features: tuple[tuple[Floats, NDArray[np.uint8] | None, int], ...]
    flags: Ints
    event_count: Ints
    ohlcv_count: Ints


def morsels(offsets: Ints, lookback: int, rows: int = MORSEL_ROWS) -> Iterator[Morsel]:
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


def run(plan: Plan, panel: Panel, threads: int | None = None, rows: int = MORSEL_ROWS) -> Iterator[Block]:
    """The vectors of every bar of the panel, block by block in its order; the bits do not depend on `threads` or `rows`.

    Bars the plan reads must be columns of the panel (a `KeyError` otherwise). Memory is bounded: at most a few blocks wait.
    """
    pieces = morsels(panel.offsets, plan.lookback, rows)
    count = threads or os.cpu_count() or 1
    if count == 1:
        worker = _Worker(plan, panel)
        for piece in pieces:
            yield worker.run(piece)
        return
    local = threading.local()

    def work(piece: Morsel) -> Block:
        if not hasattr(local, "worker"):
            local.worker = _Worker(plan, panel)
        block: Block = local.worker.run(piece)
        return block

    with ThreadPoolExecutor(count, thread_name_prefix="asof") as pool:
        waiting: deque[Future[Block]] = deque()
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

    def __init__(self, plan: Plan, panel: Panel) -> None:
        self._plan = plan
        self._panel = panel
        self._pool: list[Floats] = []
        self._constants: dict[str, Floats] = {}

    def run(self, piece: Morsel) -> Block:
        """The block of one morsel."""
        panel = self._panel.slice(piece.first, piece.last, piece.start, piece.stop, self._plan.feature_set.event_window)
        rows = len(panel.ts)
        values: list[Floats] = []
        windows: dict[int, tuple[Ints, Ints]] = {}
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
        self, i: int, step: Step, panel: Panel, values: list[Floats], windows: dict[int, tuple[Ints, Ints]], borrowed: dict[int, Floats]
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
            low, high = self._windows(panel, int(node.inputs[0].domain or 0), windows)
            loop(out, low, high, node.operator.minimum, *inputs, *node.params)
        elif node.operator.shape in BAR_SHAPES:
            loop(out, panel.offsets, node.operator.reach(node.params), *(v[:rows] for v in inputs), *node.params)
        else:
            loop(out, *inputs, *node.params)
        return out

    def _windows(self, panel: Panel, length: int, windows: dict[int, tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
        """For each bar the first event in its window and the first behind it."""
        if length not in windows:
            low, high = np.empty(len(panel.ts), np.int64), np.empty(len(panel.ts), np.int64)
            _cut_windows(low, high, panel.offsets, panel.ts, panel.event_offsets, panel.event_time, length)
            windows[length] = low, high
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
        """The wanted rows of the results, in arrays of their own."""
        plan, warm = self._plan, piece.warm
        wanted = rows - warm
        flags = np.zeros(wanted, np.int64)
        for bit, i in enumerate(plan.flags):
            _raise_flag(flags, values[i][warm:rows], 1 << bit)
        error = 1 << len(plan.flags)
        features = []
        for i in plan.features:
            column, bitmap = np.empty(wanted, np.float64), np.zeros((wanted + 7) // 8, np.uint8)
            missing = _pack_column(column, bitmap, values[i][warm:rows], flags, error)
            features.append((column, bitmap if missing else None, int(missing)))  # type: ignore[call-overload]
        counts = [
            np.zeros(wanted, np.int64) if i is None else values[i][warm:rows].astype(np.int64) for i in (plan.event_count, plan.ohlcv_count)
        ]
        return Block(piece.start + warm, piece.stop, tuple(features), flags, *counts)
