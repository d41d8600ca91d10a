"""`asof explain`: one vector taken apart."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from asof.cli.console import JsonOption, KnownAtOption, StoreOption, TimeframeOption, emit, out, show_table
from asof.feature_store import connect
from asof.jobs.explain import Explained, Value
from asof.records import EVENT_DETAILS

LAST_BARS = 5


def explain(
    feature_set: Annotated[str, typer.Argument(help="Version of the feature set, such as fs_v1.")],
    timeframe: TimeframeOption,
    instrument: Annotated[str, typer.Option("--instrument", "-i", help="The instrument.")],
    ts: Annotated[str, typer.Option("--ts", help="The open of the bar: a date, or a time with its zone.")],
    known_at: KnownAtOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how one vector comes about: every expression with its value, what went in, and why flags are raised."""
    with connect(store, create=False) as opened:
        found = opened.explain(feature_set, timeframe, instrument, ts, known_at=known_at)
    if as_json:
        emit(facts(found))
    else:
        show(feature_set, timeframe, found)


def facts(found: Explained) -> dict[str, object]:
    """A vector that was taken apart, for programs."""
    trees = {kind: {name: asdict(value) for name, value in getattr(found, kind).items()} for kind in ("features", "flags")}
    about = {"instrument": found.instrument, "ts": found.ts, "raised": list(found.raised), "stored": found.stored}
    about |= {"sections": [asdict(section) for section in found.sections]} if found.sections else {}
    records = {"bars": found.bars, "events": found.events, "actions": found.actions, **found.market}
    tables = {name: table.to_pylist() for name, table in records.items()}
    return {**about, **trees, **tables, "higher": {text: table.to_pylist() for text, table in found.higher.items()}}


def show(feature_set: str, timeframe: str, found: Explained, feature: str = "") -> None:
    """A vector that was taken apart, for people: all of it, or of its features only the one that is named."""
    root = Tree(f"[bold]{feature_set}[/] {timeframe} {escape(found.instrument)} {found.ts:%Y-%m-%d %H:%M}")
    for name, value in found.features.items():
        if feature in found.features and name != feature:
            continue
        differs = "" if found.stored is None or found.stored[name] == value.value else f"  [red]stored {found.stored[name]}[/]"
        _grow(root.add(f"[bold]{name}[/] = {_number(value)}{differs}  [dim]{escape(value.text)}[/]"), value)
    for name in found.flags:
        if name in found.raised:
            _grow(root.add(f"[yellow]{name}[/]  [dim]{escape(found.flags[name].text)}[/]"), found.flags[name])
    out.print(root)
    for section in found.sections:
        place = "no place" if section.place is None else f"place {section.place:g}"
        out.print(f"{escape(section.text)}: {place} among {section.values} values of {section.members} members")
    if found.stored is None:
        out.print("[yellow]no vector of this bar is stored[/]")
    for text, bars in {"": found.bars, **found.higher}.items():
        before = max(0, len(bars) - LAST_BARS)
        title = f"{len(bars)} {text} bars".replace("  ", " ") + (f", the last {LAST_BARS}" if before else "")
        show_table(bars.slice(before).select(["ts", "open", "high", "low", "close", "volume", "known_from"]), title)
    if len(found.events):
        columns = ["enriched_at_utc", "event_id", "score", "confidence", "event_time_utc", "known_from"]
        said = [name for name in EVENT_DETAILS if found.events[name].null_count < len(found.events)]
        show_table(found.events.select([*columns[:4], *said, *columns[4:]]), f"{len(found.events)} events")
    for name, points in found.market.items():
        title = f"{found.points[name]} {name}" + (f", the last {LAST_BARS}" if found.points[name] > LAST_BARS else "")
        show_table(points.slice(max(0, len(points) - LAST_BARS)), title)
    if len(found.actions):
        show_table(found.actions.select(["ts", "split", "dividend_factor", "known_from"]), f"{len(found.actions)} splits and dividends")


def _grow(tree: Tree, value: Value) -> None:
    """The parts of an expression under it."""
    for part in value.parts:
        _grow(tree.add(f"{_number(part)}  [dim]{escape(part.text)}[/]"), part)


def _number(value: Value) -> str:
    return "[red]error[/]" if value.error else "[dim]missing[/]" if value.value is None else f"{value.value:.10g}"
