"""A data set for the pipelines of Zipline-reloaded. Making its frames needs pandas; the data set itself needs zipline.

A pipeline answers for a session before it opens: with what was known at its domain's cutoff, 08:45 in New York unless it says otherwise.
A row of a frame is a session, and holds the features that were known at that moment of its day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from asof.backtests import CLOCK, iter_asof
from asof.errors import DataError, MissingExtra, NotFound, did_you_mean
from asof.feature_store import FeatureStore, Sets, Time
from asof.records import Frame

if TYPE_CHECKING:
    import pandas


def frames(
    store: FeatureStore,
    features: Sets | Iterable[str],
    timeframe: str,
    sessions: Iterable[date],
    *,
    cutoff: str = "08:45",
    timezone: str = "America/New_York",
    instruments: Iterable[str] | None = None,
    known_at: Time = CLOCK,
) -> dict[str, pandas.DataFrame]:
    """A frame for each feature: a row for each session (midnight, without a zone, as Zipline labels them), a column for each instrument.

    `sessions` are ascending days, such as a Zipline calendar's; `cutoff` and `timezone` say when on each day the pipeline asks. NaN where a
    feature is missing or nothing was known yet. Raises `DataError` for a cutoff or zone that is none, and as `iter_asof` does.
    """
    days = [day.date() if isinstance(day, datetime) else day for day in sessions]
    steps = iter_asof(store, features, timeframe, at=_moments(days, cutoff, timezone), instruments=instruments, known_at=known_at)
    labelled = [
        step.to_arrow().append_column("session", _session(day, len(step.instruments))) for day, step in zip(days, steps, strict=True)
    ]
    table = pa.concat_tables(labelled)
    names = [name for name in table.column_names if name not in _BESIDE]
    values = Frame(table.select(["session", "instrument_id", *names])).to_pandas()
    return {name: values.pivot(index="session", columns="instrument_id", values=name) for name in names}  # one value a cell


_BESIDE = ("session", "instrument_id", "event_timestamp", "ts", "available_at", "quality_flags")


def data_set(made: Mapping[str, pandas.DataFrame], assets: Mapping[str, Any], name: str = "Features") -> tuple[type, Callable[[Any], Any]]:
    """A pipeline `DataSet` with a column of floats for each frame, and the `get_loader` for it.

    `assets` says which asset of Zipline's each instrument is, such as `{"ALFA": finder.lookup_symbol("ALFA", None)}`. Needs
    zipline-reloaded, else `MissingExtra`. Raises `NotFound` for an instrument without an asset.
    """
    try:
        from zipline.pipeline.data import Column, DataSet  # noqa: PLC0415  # the frames are of use without it
        from zipline.pipeline.loaders.frame import DataFrameLoader  # noqa: PLC0415  # likewise
    except ImportError as error:
        raise MissingExtra(f"a pipeline needs Zipline: pip install zipline-reloaded ({error})") from None
    for instrument in next(iter(made.values())).columns:
        if instrument not in assets:
            raise NotFound(f"assets= has no asset for {instrument!r}{did_you_mean(str(instrument), list(assets))}")
    kind: Any = type(DataSet)(name, (DataSet,), {feature: Column(float) for feature in made})
    columns = {feature: getattr(kind, feature) for feature in made}
    loaders = {columns[feature]: DataFrameLoader(columns[feature], frame.rename(columns=_ids(assets))) for feature, frame in made.items()}
    return kind, lambda column: loaders[column.unspecialize()]


def _ids(assets: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(asset) for name, asset in assets.items()}


def _session(day: date, rows: int) -> pa.Array:
    return pa.array([datetime.combine(day, time())] * rows, pa.timestamp("ns"))  # Zipline's labels have no zone


def _moments(days: list[date], cutoff: str, timezone: str) -> list[datetime]:
    try:
        zone, at = ZoneInfo(timezone), time.fromisoformat(cutoff)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise DataError(
            f"cutoff={cutoff!r} in timezone={timezone!r} is no time of day such as '08:45' in 'America/New_York': {error}"
        ) from None
    return [datetime.combine(day, at, zone) for day in days]


__all__ = ["data_set", "frames"]
