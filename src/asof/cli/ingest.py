"""`asof ingest bars`, `asof ingest trades` and so on: files into the store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from asof.cli.console import JsonOption, StoreOption, emit, err, out, progress
from asof.errors import did_you_mean
from asof.feature_store import connect
from asof.jobs.ingest import KNOWN_FROM, Ingestion, IngestReport, actions_into, books_into, memberships_into
from asof.jobs.level2 import COLUMNS, DEPTH
from asof.records import ACTIONS, BARS, BOOKS, EVENT_DETAILS, MEMBERSHIPS, QUOTES, TRADES
from asof.sources import lean, spells
from asof.sources.columns import ColumnMapping
from asof.sources.files import rows_of
from asof.sources.symbols import read_symbols

app = typer.Typer(
    no_args_is_help=True,
    help="Read bars, events, actions, memberships, trades, quotes or books from Parquet, CSV, JSON lines or Arrow files into the store.",
)

Files = Annotated[list[Path], typer.Argument(help="The files.")]
Columns = Annotated[list[str] | None, typer.Option("--column", "-c", help="OURS=THEIRS, such as ts=ts_open_utc; may be given again.")]
Timezone = Annotated[str | None, typer.Option(help="Zone of times that name none, such as UTC or America/New_York.")]
Unit = Annotated[str | None, typer.Option(help="Unit of times that are whole numbers: s, ms, us or ns.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first row that must be refused; its file stays out.")]

EVENT_COLUMNS = (
    *("event_id", "enriched_at_utc", "event_time_utc", "tickers", "instrument_id", "score", "confidence", *EVENT_DETAILS, KNOWN_FROM),
)


ACTION_COLUMNS = (*ACTIONS.names, KNOWN_FROM)


@app.command("bars")
def bars(
    files: Files,
    timeframe: Annotated[str | None, typer.Option("--timeframe", "-t", help="Timeframe of the bars, if no column says it.")] = None,
    column: Columns = None,
    source: Annotated[str | None, typer.Option(help="Name of the source, kept beside each bar.")] = None,
    timezone: Timezone = None,
    unit: Unit = None,
    strict: Strict = False,
    symbols: Annotated[
        Path | None, typer.Option("--map", help="Map of tickers: instrument_id, ticker, from, to (days, both included).")
    ] = None,
    map_format: Annotated[str, typer.Option("--map-format", help="What the map is: table, or lean for a map file of Lean's.")] = "table",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest bars: instrument_id, ts (the open), close, and open, high, low, volume, available_at, timeframe where there are such."""
    mapping = ColumnMapping(_columns(column, (*BARS.names, KNOWN_FROM)), timezone, unit)
    with connect(store) as opened:
        names = None if symbols is None else read_symbols(symbols, timezone, map_format)
        _run(Ingestion(opened.store, "bars", datetime.now(UTC), mapping, timeframe, source, strict, symbols=names), files, as_json)


@app.command("events")
def events(
    files: Files,
    column: Columns = None,
    timezone: Timezone = None,
    unit: Unit = None,
    strict: Strict = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest scored events: event_id, enriched_at_utc, tickers, and the sentiment's score and confidence, nested or flat."""
    mapping = ColumnMapping(_columns(column, EVENT_COLUMNS), timezone, unit)
    with connect(store) as opened:
        _run(Ingestion(opened.store, "events", datetime.now(UTC), mapping, strict=strict), files, as_json)


@app.command("actions")
def actions(
    files: Files,
    column: Columns = None,
    file_format: Annotated[
        str, typer.Option("--format", help="What the files are: table, or lean-factors for Lean's factor files.")
    ] = "table",
    timezone: Timezone = None,
    unit: Unit = None,
    strict: Strict = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest splits and dividends: instrument_id, ts (the ex-date), split (new shares for one), dividend_factor (1 - dividend / close)."""
    known = ACTION_COLUMNS if file_format == "table" else lean.FACTORS
    mapping = ColumnMapping(_columns(column, known), timezone, unit)
    with connect(store) as opened:
        _run(actions_into(opened.store, datetime.now(UTC), mapping, file_format, strict=strict), files, as_json)


@app.command("memberships")
def memberships(
    files: Files,
    scheme: Annotated[str | None, typer.Option("--scheme", help="The universe or grouping, if no column says it.")] = None,
    column: Columns = None,
    file_format: Annotated[
        str, typer.Option("--format", help="What the files are: table, or spells for rows with ts and until.")
    ] = "table",
    timezone: Timezone = None,
    unit: Unit = None,
    strict: Strict = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest memberships: instrument_id, ts (from then on), and scheme, value (none: it has left), available_at where there are such."""
    known = (*MEMBERSHIPS.names, KNOWN_FROM) if file_format == "table" else spells.SPELL
    mapping = ColumnMapping(_columns(column, known), timezone, unit)
    with connect(store) as opened:
        _run(memberships_into(opened.store, datetime.now(UTC), mapping, scheme, file_format, strict=strict), files, as_json)


@app.command("trades")
def trades(
    files: Files,
    column: Columns = None,
    timezone: Timezone = None,
    unit: Unit = None,
    strict: Strict = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest trades: instrument_id, ts, price, size, and seq, side (or buyer_is_maker), available_at where there are such."""
    mapping = ColumnMapping(_columns(column, (*TRADES.names, "buyer_is_maker", KNOWN_FROM)), timezone, unit)
    with connect(store) as opened:
        _run(Ingestion(opened.store, "trades", datetime.now(UTC), mapping, strict=strict), files, as_json)


@app.command("quotes")
def quotes(
    files: Files,
    column: Columns = None,
    missing_side: Annotated[
        str | None, typer.Option("--missing-side", help="What a quote without a bid, or without an ask, means: empty, or unchanged.")
    ] = None,
    timezone: Timezone = None,
    unit: Unit = None,
    strict: Strict = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest quotes: instrument_id, ts, bid, ask, and bid_size, ask_size, seq, available_at where there are such."""
    mapping = ColumnMapping(_columns(column, (*QUOTES.names, KNOWN_FROM)), timezone, unit)
    with connect(store) as opened:
        _run(Ingestion(opened.store, "quotes", datetime.now(UTC), mapping, strict=strict, missing_side=missing_side), files, as_json)


@app.command("books")
def books(
    files: Files,
    column: Columns = None,
    file_format: Annotated[
        str, typer.Option("--format", help="What the files are: table, a book in each row, or level2, a changed level in each row.")
    ] = "table",
    depth: Annotated[int, typer.Option(help="Levels of each side that books of level 2 have.")] = DEPTH,
    snapshot: Annotated[
        list[Path] | None, typer.Option("--snapshot", help="A level 2 file that holds a snapshot, read before the others; no kind needed.")
    ] = None,
    timezone: Timezone = None,
    unit: Unit = None,
    strict: Strict = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest order books: bid_prices, bid_sizes, ask_prices, ask_sizes as lists, or of level 2 update_id, kind, side, price, size."""
    known = (*BOOKS.names, KNOWN_FROM) if file_format == "table" else COLUMNS
    mapping = ColumnMapping(_columns(column, known), timezone, unit)
    first = snapshot or []
    with connect(store) as opened:
        run = books_into(opened.store, datetime.now(UTC), mapping, file_format, depth=depth, snapshots=first, strict=strict)
        _run(run, [*first, *files], as_json)


def _columns(given: list[str] | None, known: tuple[str, ...]) -> dict[str, str]:
    mapped = {}
    for text in given or ():
        ours, found, theirs = text.partition("=")
        if not found or not theirs:
            raise typer.BadParameter(f"{text!r} is not OURS=THEIRS, such as ts=ts_open_utc", param_hint="--column")
        if ours not in known:
            raise typer.BadParameter(f"{ours!r} is none of {', '.join(known)}{did_you_mean(ours, known)}", param_hint="--column")
        mapped[ours] = theirs
    return mapped


def _run(ingestion: Ingestion, files: list[Path], as_json: bool) -> None:
    totals = [rows_of(path) if path.exists() and path.is_file() else None for path in files]
    with progress(f"ingest {ingestion.kind}", as_json) as step:
        total = None if None in totals else sum(filter(None, totals))
        report = ingestion.run(files, lambda rows: step(rows, total))
    if as_json:
        emit(_summary(report))
    else:
        _show(report, ingestion.kind)


def _summary(report: IngestReport) -> dict[str, object]:
    return {
        "accepted": report.accepted,
        "unchanged": report.unchanged,
        "corrected": report.corrected,
        "refused": report.refused,
        "missing_prices": report.missing_prices,
        "reasons": dict(report.reasons),
    }


def _show(report: IngestReport, kind: str) -> None:
    out.print(
        f"{kind}: [green]{report.accepted:,} accepted[/], {report.unchanged:,} unchanged, {report.corrected:,} corrected,"
        f" {'[red]' if report.refused else '[dim]'}{report.refused:,} refused[/]"
    )
    if report.missing_prices:
        out.print(f"{report.missing_prices:,} bars have a missing price (null, NaN, zero or below); they are kept as such")
    if report.refused:
        table = Table("reason", "rows", "first", box=None, header_style="bold")
        for reason, count in report.reasons.most_common():
            table.add_row(reason, f"{count:,}", escape(report.examples[reason]))
        err.print(table)
        err.print("Refused rows are in the table `quarantine`, each with its reason.")
