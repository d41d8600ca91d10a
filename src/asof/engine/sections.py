"""Sections: the rows of a panel that open at one moment and belong together, members of a universe or of one of its groups.

1. `Sections.of` sorts the rows by time and group. Within a section they stay as they are, by instrument.
2. `Sections.apply` has an operator look at each of them (`asof.engine.crossing`), on several threads where there are many.
3. `Sections.latest` tells when the last of a section's rows could be known.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from asof.engine.crossing import CUTS, DRIVERS, carry_section, code_times, count_keys
from asof.engine.native import Loop, compile_loop, named
from asof.engine.panel import Floats, Ints
from asof.operators import Operator

MOST_KEYS = 4
"""Keys for each row, up to which rows are counted by key; more are sorted."""
FEW_ROWS = 100_000
"""Up to so many rows one thread does all."""


@cache
def driver(operator: Operator) -> Callable[..., object]:
    """The operator's kernel inside its driver, not compiled."""
    kernel = named(operator.kernel, f"kernel_{operator.key}")
    drive = DRIVERS[operator.shape](kernel, CUTS[len(operator.inputs) - 2])
    return named(drive, f"drive_{operator.key}")


@cache
def compiled(operator: Operator) -> Loop:
    """The operator's driver, compiled."""
    return compile_loop(driver(operator))


_code_times = compile_loop(code_times)
_count_keys = compile_loop(count_keys)
_carry_section = compile_loop(carry_section)


def section_keys(offsets: Ints, ts: Ints, members: Floats | None, groups: Floats | None) -> tuple[Ints, int, Ints]:
    """The times at which rows open, how many numbers of groups there may be, and for each row `time * width + group`, or -1 for none.

    Of the time its place among the times is meant.
    """
    times, codes = np.unique(ts), np.empty(len(ts), np.int64)
    _code_times(codes, times, offsets, ts)
    keys, width = codes, 1
    if groups is not None:
        numbers = np.nan_to_num(groups).astype(np.int64)
        width = int(numbers.max(initial=0)) + 1
        keys = codes * width + numbers
    for column in (members, groups):
        if column is not None:
            keys = np.where(np.isnan(column), -1, keys)
    return times, width, keys


@dataclass(frozen=True)
class Sections:
    """Rows of a panel by section: each is `order[starts[k]:starts[k + 1]]`, none is empty. Rows of no section are in none."""

    order: Ints
    starts: Ints

    @classmethod
    def of(cls, offsets: Ints, ts: Ints, members: Floats | None, groups: Floats | None) -> Sections:
        """The sections of a panel's rows: members have a number there, and those of one group the same whole number in `groups`.

        All are members, or in one group, where the column is None.
        """
        times, width, keys = section_keys(offsets, ts, members, groups)
        most = width * len(times)
        if most > MOST_KEYS * len(ts) + 1024:
            found, inverse = np.unique(keys, return_inverse=True)
            keys, most = inverse - (found[:1] == -1).sum(), len(found)
        starts, order = np.zeros(most + 1, np.int64), np.empty(len(ts), np.int64)
        count = int(_count_keys(starts, order, keys)) if len(ts) else 0  # type: ignore[call-overload]
        return cls(order[:count], np.unique(starts))

    def apply(self, operator: Operator, inputs: tuple[Floats, ...], params: tuple[float, ...], threads: int | None = None) -> Floats:
        """The operator over every section; missing for rows of none. The bits do not depend on `threads`."""
        out, drive = np.full(len(inputs[0]), np.nan), compiled(operator)
        given = tuple(p.kind(value) for p, value in zip(operator.params, params, strict=True))
        count = 1 if len(self.order) <= FEW_ROWS else threads or os.cpu_count() or 1
        cuts = np.unique(np.linspace(0, len(self.starts) - 1, 4 * count + 1 if count > 1 else 2).astype(np.int64)).tolist()
        pieces = [self.starts[a : b + 1] for a, b in pairwise(cuts)]
        if count == 1:
            for piece in pieces:
                drive(out, inputs, given, self.order, piece, operator.minimum)
            return out
        with ThreadPoolExecutor(count, thread_name_prefix="asof") as pool:
            list(pool.map(lambda piece: drive(out, inputs, given, self.order, piece, operator.minimum), pieces))
        return out

    def latest(self, known: Ints) -> Ints:
        """For each row when the last of its section could be known; for a row of none long ago, for it looks at nothing."""
        out = np.full(len(known), np.iinfo(np.int64).min)
        _carry_section(out, known, self.order, self.starts)
        return out
