"""Columns as they come, turned into the canonical types: times with a zone, numbers, tickers. Nothing is guessed."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DataError, did_you_mean
from asof.records import LAST_TIME, SANE_TIME, UTC, Bools, Refusals, usual_times

UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Nanoseconds in each unit that whole-number times can be in."""

_ZONED = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?\s?([Zz]|[+-]\d\d:?\d\d)$"
_NAIVE = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?$"
_WHOLE = r"^[+-]?(\d{1,18}|[1-8]\d{18})$"
_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[iI][nN][fF]([iI][nN][iI][tT][yY])?|[nN][aA][nN])$"


NO_ROWS = pa.chunked_array([], pa.null())


@dataclass(frozen=True)
class ColumnMapping:
    """How a file's columns are read: `columns` maps our names to theirs; naive times are in `timezone`, whole numbers in `unit`."""

    columns: Mapping[str, str] = field(default_factory=dict)
    timezone: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in UNITS:
            raise DataError(f"unit {self.unit!r} is not one of {', '.join(UNITS)}")
        if self.timezone is not None:
            try:
                zoneinfo.ZoneInfo(self.timezone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                hint = did_you_mean(self.timezone, sorted(zoneinfo.available_timezones()))
                raise DataError(f"timezone {self.timezone!r} is not known{hint}") from None


class Reader:
    """Reads the columns of one batch; what cannot be read becomes null and is refused with its reason."""

    def __init__(self, table: pa.Table, mapping: ColumnMapping) -> None:
        self.table = table
        self.mapping = mapping
        self.refusals = Refusals()

    def has(self, name: str) -> bool:
        """Whether the batch has a column for `name`."""
        return self._find(name) is not None

    def _find(self, name: str) -> pa.ChunkedArray | None:
        """The column mapped to `name`; a dotted path reaches into structs."""
        head, *path = self.mapping.columns.get(name, name).split(".")
        whole = self.mapping.columns.get(name, name)
        if (times := self.table.column_names.count(whole)) > 1:
            raise DataError(f"there are {times} columns {whole!r}: rename all but one")
        if times:
            return self.table[whole]
        if head not in self.table.column_names:
            return None
        column = self.table[head]
        for part in path:
            if pa.types.is_null(column.type):
                return column
            if not pa.types.is_struct(column.type) or column.type.get_field_index(part) < 0:
                return None
            column = pc.struct_field(column, part)
        return column

    def column(self, name: str) -> pa.ChunkedArray:
        """The column mapped to `name`, or a `DataError` that lists what there is."""
        found = self._find(name)
        if found is None:
            there = self.table.column_names
            wanted = self.mapping.columns.get(name, name)
            raise DataError(
                f"there is no column {wanted!r} for {name}; the file has {', '.join(there)}{did_you_mean(wanted, there)}."
                f" Say which it is with --column {name}=<column>"
            )
        return found.cast(found.type.value_type) if pa.types.is_dictionary(found.type) else found

    def _typed(self, name: str) -> pa.ChunkedArray:
        """A column; of null where there are no rows, for then its type tells nothing: pandas takes an empty one for numbers."""
        column = self.column(name)
        return column if len(column) else NO_ROWS

    def text(self, name: str) -> pa.ChunkedArray:
        """A column as strings."""
        column = self._typed(name)
        if not (_is_text(column.type) or pa.types.is_null(column.type) or pa.types.is_integer(column.type)):
            raise DataError(f"column {name} holds {column.type}, not text")
        return column.cast(pa.string())

    def truths(self, name: str) -> pa.ChunkedArray:
        """A column as truths. Raises `DataError` where it holds others."""
        column = self.column(name)
        if _is_text(column.type):
            column = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        try:
            return column.cast(pa.bool_())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"column {name} does not hold true and false: {str(error).splitlines()[0]}") from None

    def numbers(self, name: str) -> pa.ChunkedArray:
        """A column as float64; text that is no number is refused."""
        column = self.column(name)
        if pa.types.is_boolean(column.type) or not (_is_text(column.type) or pa.types.is_null(column.type) or _is_number(column.type)):
            raise DataError(f"column {name} holds {column.type}, not numbers")
        if _is_text(column.type):
            column = pc.utf8_trim_whitespace(column.cast(pa.string()))
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
            column = self._refuse_text(column, _NUMBER, "not_a_number", f"{name}={{}} is not a number")
        return column.cast(pa.float64(), safe=False)

    def whole_numbers(self, name: str) -> pa.ChunkedArray:
        """A column as int64. Raises `DataError` where it holds others."""
        try:
            return self.column(name).cast(pa.int64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"column {name} does not hold whole numbers: {str(error).splitlines()[0]}") from None

    def times(self, name: str) -> pa.ChunkedArray:
        """A column as UTC microseconds; naive times need a timezone, whole numbers a unit."""
        column = self._typed(name)
        kind = column.type
        if pa.types.is_null(kind):
            return column.cast(UTC)
        if _is_text(kind):
            return self._parse_times(name, pc.utf8_trim_whitespace(column.cast(pa.string())))
        if pa.types.is_date(kind):
            return self._localise(name, column.cast(pa.timestamp("us")))
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return self._epoch(name, column)
        if not pa.types.is_timestamp(kind):
            raise DataError(f"column {name} holds {kind}, not times")
        if kind == UTC and usual_times(column):
            return column
        micros = self._to_micros(name, column)
        return micros.cast(UTC) if kind.tz else self._localise(name, micros.cast(pa.timestamp("us")))

    def _to_micros(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """A timestamp column's microseconds; those beyond what microseconds hold are refused as a mistaken unit."""
        raw = column.cast(pa.int64())
        return self._scale(name, raw, column.type.unit)

    def _scale(self, name: str, raw: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
        values = np.asarray(pc.fill_null(raw, 0).combine_chunks().to_numpy(zero_copy_only=False))
        nanos = UNITS[unit]
        if not raw.null_count and not _any_unusual(values, nanos):
            return pa.chunked_array([pa.array(values * (nanos // 1_000) if nanos >= 1_000 else values // 1_000)])
        limit = 9_000_000_000_000_000_000 // nanos
        far = np.abs(values) > limit
        usual = _usual_unit(values)
        mistaken = np.array([u not in ("", unit) for u in usual], np.bool_)
        for row in np.flatnonzero(far | mistaken):
            seems = f"; it looks like {usual[row]}" if usual[row] not in ("", unit) else ""
            self.refusals.add(int(row), "time_unit", f"{name}={values[row]} is not a usual time in {unit}{seems}")
        scaled = np.where(far, 0, values) * nanos // 1_000 if nanos >= 1_000 else values // 1_000
        null = np.asarray(raw.is_null()) | far | mistaken
        return pa.chunked_array([pa.array(scaled, pa.int64(), mask=null)])

    def _epoch(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if pa.types.is_floating(column.type):
            column = self._whole(name, column)
        if self.mapping.unit is None:
            first = pc.drop_null(column)
            raise DataError(f"{name} holds whole numbers without a unit{_seems(first[0].as_py()) if len(first) else _SAY_UNIT}")
        return self._scale(name, column.cast(pa.int64(), safe=False), self.mapping.unit).cast(UTC)

    def _whole(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Floating point numbers as whole ones; NaN is missing, a fraction is refused."""
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        bad = np.asarray(pc.fill_null(pc.or_(pc.not_equal(column, pc.floor(column)), pc.greater(pc.abs(column), 9e18)), False))
        for row in np.flatnonzero(bad):
            detail = f"{name}={column[int(row)].as_py()} is not a whole number, as times with a unit (s, ms, us or ns) must be"
            self.refusals.add(int(row), "malformed_time", detail)
        return pc.if_else(pa.array(bad), pa.scalar(None, column.type), column).cast(pa.int64())

    def _parse_numbers(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Whole numbers written as text: times in the unit that was given."""
        if self.mapping.unit is not None:
            return self._scale(name, column.cast(pa.int64()), self.mapping.unit).cast(UTC)
        for row in np.flatnonzero(np.asarray(column.is_valid())):
            number = column[int(row)].as_py()
            self.refusals.add(int(row), "time_without_unit", f"{name}={number} is a whole number without a unit{_seems(int(number))}")
        return pa.chunked_array([pa.nulls(len(column), UTC)])

    def _localise(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        if self.mapping.timezone is None:
            first = pc.drop_null(column)
            shown = f", such as {first[0].as_py()}" if len(first) else ""
            raise DataError(f"{name} holds naive times{shown}: say which zone they are in, such as --timezone UTC")
        zone = self.mapping.timezone
        local = pc.assume_timezone(column, zone, ambiguous="earliest", nonexistent="earliest")
        again = pc.assume_timezone(column, zone, ambiguous="latest", nonexistent="latest")
        unclear = ~np.asarray(pc.fill_null(pc.equal(local, again), True))
        for row in np.flatnonzero(unclear):
            self.refusals.add(
                int(row), "ambiguous_time", f"{name}={column[int(row)].as_py()} is skipped or doubled by daylight saving in {zone}"
            )
        return pc.if_else(pa.array(unclear), pa.scalar(None, local.type), local).cast(UTC)

    def _parse_times(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        whole = np.asarray(pc.fill_null(pc.match_substring_regex(column, _WHOLE), False))
        if whole.any():
            numbers = self._parse_numbers(name, _where(whole, column))
            return pc.coalesce(numbers, self._parse_times(name, _where(~whole, column)))
        naive = np.asarray(pc.fill_null(pc.match_substring_regex(column, _NAIVE), False))
        zoned = self._parse(name, _where(~naive, column), _ZONED, UTC)
        if self.mapping.timezone is not None:
            return pc.coalesce(zoned, self._localise(name, self._parse(name, _where(naive, column), _NAIVE, pa.timestamp("us"))))
        for row in np.flatnonzero(naive):
            detail = f"{name}={column[int(row)].as_py()} has no zone: say which zone it is in, such as --timezone UTC"
            self.refusals.add(int(row), "naive_time", detail)
        return zoned

    def _parse(self, name: str, column: pa.ChunkedArray, pattern: str, kind: pa.DataType) -> pa.ChunkedArray:
        column = self._refuse_text(column, pattern, "malformed_time", f"{name}={{}} is not an ISO 8601 time")
        column = pc.replace_substring_regex(column, r"(\.\d{6})\d+", r"\1")
        column = pc.replace_substring_regex(
            pc.replace_substring_regex(column, r"\s?[zZ]$", "Z"), r"(\d\d:\d\d|\d)\s([+-]\d\d:?\d\d)$", r"\1\2"
        )
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            bad = np.array([v is not None and not _castable(v, kind) for v in column.to_pylist()])
            for row in np.flatnonzero(bad):
                self.refusals.add(int(row), "malformed_time", f"{name}={column[int(row)].as_py()} is not a time")
            return pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), column).cast(kind)

    def _refuse_text(self, column: pa.ChunkedArray, pattern: str, reason: str, detail: str) -> pa.ChunkedArray:
        bad = np.asarray(pc.fill_null(pc.invert(pc.match_substring_regex(column, pattern)), False))
        for row in np.flatnonzero(bad):
            self.refusals.add(int(row), reason, detail.format(repr(column[int(row)].as_py())))
        return pc.if_else(pa.array(bad), pa.scalar(None, pa.string()), column)


def _where(chosen: Bools, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The chosen values; null elsewhere."""
    return column if chosen.all() else pc.if_else(pa.array(chosen), column, pa.scalar(None, column.type))


_SAY_UNIT = ": say --unit s, ms, us or ns"


def _seems(number: int) -> str:
    """What to say of a whole number that has no unit."""
    unit = _usual_unit(np.array([number]))[0]
    return f"; {number} looks like {unit}: say --unit {unit}" if unit else _SAY_UNIT


def _castable(value: str, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _any_unusual(values: np.ndarray, nanos: int) -> bool:
    micros = values.astype(np.float64) * (nanos / 1_000)
    return bool(((micros < SANE_TIME) | (micros >= LAST_TIME)).any())


def _usual_unit(values: np.ndarray) -> list[str]:
    """For each number the unit in which it is a time between 1980 and 2100, or ''."""
    units = np.full(len(values), "", dtype="<U2")
    for unit, nanos in UNITS.items():
        micros = values.astype(np.float64) * (nanos / 1_000)
        units[(micros >= SANE_TIME) & (micros < LAST_TIME)] = unit
    return list(map(str, units))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


__all__ = ["UNITS", "Bools", "ColumnMapping", "Reader"]
