"""Memberships on the bars of a panel: whether each instrument is in a universe when its bar opens, and which group it is in.

A row of a scheme counts from its `ts` on, and not before its `available_at`: of those that count when a bar opens, the one with the newest
`ts` holds. So what is known later, or was announced and has not begun, changes nothing before.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Floats, Ints
from asof.features.across import GROUP, MEMBER
from asof.records import MEMBERSHIPS, UTC, micros

NO_MEMBERSHIPS = MEMBERSHIPS.empty_table()
"""Nobody is in anything."""


def since(memberships: pa.Table) -> Ints:
    """From when on each row counts."""
    told = pc.fill_null(memberships["available_at"], pa.scalar(datetime.fromisoformat("1970-01-01T00:00Z"), UTC))
    return np.maximum(micros(memberships["ts"]), micros(told))


def member_columns(names: frozenset[str], instruments: pa.Array, offsets: Ints, ts: Ints, memberships: pa.Table) -> dict[str, Floats]:
    """The panel's columns of these names: 1 for a member of a universe, a number for each group of a grouping; missing for neither."""
    return {
        name: _column(name, instruments, offsets, ts, of_scheme(memberships, name.partition(".")[2]))
        for name in sorted(names)
        if name.startswith((MEMBER, GROUP))
    }


def of_scheme(memberships: pa.Table, scheme: str) -> pa.Table:
    """The rows of one scheme."""
    return memberships.filter(pc.equal(memberships["scheme"], scheme))


def _column(name: str, instruments: pa.Array, offsets: Ints, ts: Ints, rows: pa.Table) -> Floats:
    out = np.full(len(ts), np.nan)
    places = np.asarray(pc.fill_null(pc.index_in(rows["instrument_id"], instruments), -1)).astype(np.int64)
    values, begins, counts = _values(name, rows["value"]), micros(rows["ts"]), since(rows)
    order = np.lexsort((begins, counts, places))
    starts = np.searchsorted(places[order], np.arange(len(instruments) + 1))
    for k in np.unique(places[places >= 0]).tolist():
        mine = order[starts[k] : starts[k + 1]]
        newest = np.maximum.accumulate(np.lexsort((begins[mine],)).argsort())  # the place of each in the order of ts: what has begun last
        held = mine[np.argsort(begins[mine], kind="stable")][newest]
        at = np.searchsorted(counts[mine], ts[offsets[k] : offsets[k + 1]], side="right") - 1
        out[offsets[k] : offsets[k + 1]] = np.where(at >= 0, values[held[at]], np.nan)
    return out


def _values(name: str, column: pa.ChunkedArray) -> Floats:
    """What rows say as numbers: that there is a value, or which of the sorted values it is."""
    there = np.asarray(pc.is_valid(column))
    if name.startswith(MEMBER):
        return np.where(there, 1.0, np.nan)
    kinds = pa.array(sorted(v for v in pc.unique(column).to_pylist() if v is not None), pa.string())
    return np.where(there, np.asarray(pc.fill_null(pc.index_in(column, kinds), 0)).astype(np.float64), np.nan)
