"""`asof bars`: bars that are made of what the store holds."""

from __future__ import annotations

from typing import Annotated

import typer

from asof.cli.console import FromOption, InstrumentOption, JsonOption, StoreOption, ToOption, emit, out
from asof.feature_store import connect

app = typer.Typer(no_args_is_help=True, help="Make bars of what the store holds.")


@app.command("from-trades")
def from_trades(
    timeframe: Annotated[str, typer.Argument(help="Timeframe of the bars: <n>s, <n>m, <n>h or <n>d.")],
    instrument: InstrumentOption = None,
    start: FromOption = None,
    end: ToOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make bars of stored trades, one for each interval in which there were any, and store them."""
    with connect(store, create=False) as opened:
        done = opened.bars_from_trades(timeframe, instruments=instrument, start=start, end=end)
    counts: dict[str, object] = {"inserted": done.inserted, "corrected": done.corrected, "unchanged": done.unchanged}
    if as_json:
        emit(counts)
    else:
        out.print(f"[bold]{timeframe} bars[/]: " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
