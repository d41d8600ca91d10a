"""Splits and dividends on the bars of a panel: what those between a bar and the one before it multiply earlier prices and volumes with."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Acted, Floats, Ints
from asof.features.adjustment import PRICE_FACTOR, VOLUME_FACTOR
from asof.records import ACTIONS, floats, micros

NO_ACTIONS = ACTIONS.empty_table()
"""Nothing was ever split, and no dividend paid."""


def factors(instruments: pa.Array, offsets: Ints, ts: Ints, actions: pa.Table) -> dict[str, Floats]:
    """The panel's columns of factors: 1 on every bar but the first of an instrument that opens at or after the ex-date of an action.

    Where several actions lie between two bars, their factors are multiplied, the oldest first. `actions` come in any order, each ex-date of
    an instrument once.
    """
    columns = {PRICE_FACTOR: np.ones(len(ts)), VOLUME_FACTOR: np.ones(len(ts))}
    codes = np.asarray(pc.fill_null(pc.index_in(actions["instrument_id"], instruments), -1)).astype(np.int64)
    times, split, dividend = micros(actions["ts"]), floats(actions["split"]), floats(actions["dividend_factor"])
    for k in np.lexsort((times, codes)).tolist():
        if codes[k] < 0:
            continue
        first, end = offsets[codes[k]], offsets[codes[k] + 1]
        bar = first + np.searchsorted(ts[first:end], times[k])
        if first < bar < end:  # with no bar before it, or none since, it rescales nothing
            columns[PRICE_FACTOR][bar] *= dividend[k] / split[k]
            columns[VOLUME_FACTOR][bar] *= split[k]
    return columns


def acted(instruments: pa.Array, actions: pa.Table) -> Acted:
    """The actions of some instruments, by instrument and ex-date; `actions` come in any order, each ex-date of an instrument once."""
    codes = np.asarray(pc.fill_null(pc.index_in(actions["instrument_id"], instruments), -1)).astype(np.int64)
    order = np.lexsort((micros(actions["ts"]), codes))
    order = order[codes[order] >= 0]
    split, dividend = floats(actions["split"])[order], floats(actions["dividend_factor"])[order]
    offsets = np.searchsorted(codes[order], np.arange(len(instruments) + 1))
    return Acted(offsets, micros(actions["ts"])[order], dividend / split, split)
