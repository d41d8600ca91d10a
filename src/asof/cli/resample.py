"""`asof resample`: bars of higher timeframes out of stored lower ones."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.markup import escape

from asof.cli.console import InstrumentOption, JsonOption, StoreOption, emit, err, out, progress
from asof.feature_store import connect
from asof.jobs.resampling import Resampled, check


def resample(
    lower: Annotated[str, typer.Argument(help="Timeframe of the bars that there are, such as 1m.")],
    higher: Annotated[list[str], typer.Argument(help="Timeframes to make of them, such as 5m 1h 1d.")],
    instrument: InstrumentOption = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what bars reach that have changed since the last time with --changed.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make bars of higher timeframes: on the grid for minutes and hours, by session for days. Bars that are there from elsewhere stay."""
    if changed and instrument:
        raise typer.BadParameter("what has changed is made again for all instruments", param_hint="--changed")
    for timeframe in higher:
        check(lower, timeframe)
    found: dict[str, object] = {}
    with connect(store) as opened:
        for timeframe in higher:
            with progress(f"resample {timeframe}", as_json) as step:
                began = time.perf_counter()
                done = opened.resample(lower, timeframe, instruments=instrument, changed=changed, progress=step)
            found[timeframe] = _facts(done)
            if not as_json:
                _tell(timeframe, done, time.perf_counter() - began)
    if as_json:
        emit(found)


def _facts(done: Resampled) -> dict[str, int]:
    changes = done.changes
    facts = {"made": done.made, "inserted": changes.inserted, "corrected": changes.corrected, "unchanged": changes.unchanged}
    return facts | {"withdrawn": done.withdrawn, "left_alone": done.left_alone}


def _tell(timeframe: str, done: Resampled, seconds: float) -> None:
    changes = done.changes
    withdrawn = f", {done.withdrawn:,} withdrawn" if done.withdrawn else ""
    out.print(
        f"{escape(timeframe)}: {done.made:,} bars in {seconds:.1f} s: [green]{changes.inserted:,} new[/],"
        f" {changes.unchanged:,} unchanged, {changes.corrected:,} corrected{withdrawn}"
    )
    if done.left_alone:
        err.print(f"{done.left_alone:,} {escape(timeframe)} bars are there from another source, and were left as they are")
