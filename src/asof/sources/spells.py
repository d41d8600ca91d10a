"""Spells of membership: rows that tell from when until when, as lists of an index's constituents mostly do, turned into memberships.

A spell is one row: `instrument_id, ts, until`, and `value`, `scheme`, `available_at` where there are such. `until` is the first moment at
which it is over; without one it goes on. Each becomes the membership that begins it, and one without a value that ends it, unless the
next spell of the same instrument begins at that moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa

from asof.sources.canonical import MEMBER
from asof.sources.columns import ColumnMapping, Reader
from asof.sources.files import RawBatch, RefusedLine, read_file

SPELL = ("scheme", "instrument_id", "ts", "until", "value", "available_at")
"""The columns of a spell, of which `scheme`, `value` and `available_at` may be absent."""


def memberships(path: Path, mapping: ColumnMapping) -> Iterator[RawBatch]:
    """The memberships of a file of spells, as one batch. Spells that overlap are refused, all of them: no one is known to be right.

    A row that is there twice counts once. Raises `DataError` where the file is not such a one.
    """
    raw = list(read_file(path))
    table = pa.concat_tables([batch.table for batch in raw], promote_options="default")
    numbers = np.concatenate([batch.numbers for batch in raw])
    rows, refused = _read(table, mapping, numbers)
    made: list[dict[str, object]] = []
    for spells in _by_key(rows).values():
        wrong = _overlapping(spells)
        refused += [_refusal(spell, "overlapping_spells", "another spell of {instrument_id} overlaps with this one") for spell in wrong]
        taken = [spell for spell in spells if spell not in wrong]
        for spell, following in zip(taken, [*taken, None][1:], strict=True):
            made.append(spell)
            if spell["until"] is not None and (following is None or following["ts"] != spell["until"]):
                made.append(spell | {"ts": spell["until"], "value": None, "available_at": None})
    names = [name for name in SPELL if name != "until" and (name != "scheme" or "scheme" in rows.column_names)]
    schema = pa.schema([rows.schema.field(name) for name in names])
    lines = [line for batch in raw for line in batch.refused] + refused
    batch = pa.Table.from_pylist(made, schema=schema)
    yield RawBatch(batch, np.array([spell["row"] for spell in made], np.int64), lines)


def _read(table: pa.Table, mapping: ColumnMapping, numbers: np.ndarray) -> tuple[pa.Table, list[RefusedLine]]:
    """The columns of spells with their row numbers, without those that cannot be read or end before they begin."""
    reader = Reader(table, mapping)
    columns: dict[str, object] = {"row": numbers, "instrument_id": reader.text("instrument_id")}
    columns |= {name: reader.times(name) for name in ("ts", "until")}
    columns["value"] = reader.text("value") if reader.has("value") else pa.repeat(MEMBER, len(table))
    columns["available_at"] = reader.times("available_at") if reader.has("available_at") else pa.nulls(len(table), columns["ts"].type)  # type: ignore[attr-defined]
    if reader.has("scheme"):
        columns["scheme"] = reader.text("scheme")
    found = pa.table(columns)
    refused, bad = list[RefusedLine](), set(reader.refusals.rows)
    for row, reason, detail in zip(reader.refusals.rows, reader.refusals.reasons, reader.refusals.details, strict=True):
        refused.append(RefusedLine(int(numbers[row]), reason, detail, json.dumps(found.slice(row, 1).to_pylist()[0], default=str)))
    for row, spell in enumerate(found.to_pylist()):
        if row in bad or (spell["ts"] is not None and (spell["until"] is None or spell["until"] > spell["ts"])):
            continue
        bad.add(row)
        if spell["ts"] is None:
            refused.append(_refusal(spell, "missing_time", "ts is missing"))
        else:
            refused.append(_refusal(spell, "ends_before_it_begins", "until={until} is not after ts={ts}"))
    return found.take(pa.array([row for row in range(len(found)) if row not in bad], pa.int64())), refused


def _by_key(rows: pa.Table) -> dict[tuple[object, object], list[dict[str, object]]]:
    """The spells of each scheme and instrument in the order of time, each once."""
    found: dict[tuple[object, object], list[dict[str, object]]] = {}
    seen = set()
    for spell in rows.to_pylist():
        content = tuple(value for name, value in spell.items() if name != "row")
        if content not in seen:
            seen.add(content)
            found.setdefault((spell.get("scheme"), spell["instrument_id"]), []).append(spell)
    for spells in found.values():
        spells.sort(key=itemgetter("ts"))
    return found


def _overlapping(spells: list[dict[str, object]]) -> list[dict[str, object]]:
    """The spells of one instrument, in the order of time, that overlap with another one."""
    wrong: dict[int, dict[str, object]] = {}
    furthest: dict[str, object] | None = None
    for spell in spells:
        if furthest is not None and (furthest["until"] is None or furthest["until"] > spell["ts"]):  # type: ignore[operator]
            wrong |= {id(furthest): furthest, id(spell): spell}
        if furthest is None or (furthest["until"] is not None and (spell["until"] is None or spell["until"] > furthest["until"])):  # type: ignore[operator]
            furthest = spell
    return list(wrong.values())


def _refusal(spell: dict[str, object], reason: str, detail: str) -> RefusedLine:
    row = spell["row"]
    assert isinstance(row, int)
    return RefusedLine(row, reason, detail.format(**spell), json.dumps({k: v for k, v in spell.items() if k != "row"}, default=str))
