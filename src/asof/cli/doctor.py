"""`asof doctor`: what is here, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from asof import __version__
from asof.calendars import EVERYBODY, Calendars
from asof.cli.console import JsonOption, StoreOption, emit, out
from asof.config import FILE, load_settings
from asof.definitions import defined
from asof.engine import drivers
from asof.errors import AsofError
from asof.feature_store import connect
from asof.stores.urls import scheme_of

PACKAGES = ("numpy", "numba", "pyarrow", "duckdb", "pydantic-settings", "typer", "rich")
EXTRAS = {"matplotlib": "plot", "polars": "polars", "pandas": "pandas", "psycopg": "postgres", "exchange_calendars": "calendars"}


@dataclass(frozen=True)
class Finding:
    """One line of the report: `ok`, `note` or `bad`, and for the last two what mends it."""

    state: str
    what: str
    detail: str
    mend: str = ""


def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check versions, settings, definitions, caches and the store. Ends with 1 where something is broken."""
    findings = [*_versions(), *_settings(), *_caches(), *_store(store)]
    bad = any(f.state == "bad" for f in findings)
    if as_json:
        emit({"ok": not bad, "findings": [vars(f) for f in findings]})
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        styles = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}
        for f in findings:
            table.add_row(styles[f.state], f.what, escape(f.detail) + (f"\n[bold]mend:[/] {escape(f.mend)}" if f.mend else ""))
        out.print(table)
    if bad:
        raise typer.Exit(code=1)


def _versions() -> list[Finding]:
    found = [Finding("ok", "asof", f"{__version__} on Python {platform.python_version()}")]
    found += [Finding("ok", name, importlib.metadata.version(name)) for name in PACKAGES]
    for name, extra in EXTRAS.items():
        if importlib.util.find_spec(name) is None:
            found.append(Finding("note", name, "not installed (optional)", f'pip install "asof[{extra}]"'))
    return found


def _settings() -> list[Finding]:
    try:
        settings = load_settings()
        sets = defined(settings)
    except AsofError as error:
        return [Finding("bad", "settings", str(error), f"correct it in {FILE} or the environment")]
    here = Path(FILE).exists()
    where = FILE if here else f"no {FILE} in this folder: defaults and the environment"
    return [
        Finding("ok" if here else "note", "settings", where, "" if here else "asof init DIR starts a project"),
        Finding("ok", "feature sets", ", ".join(f"{v} ({len(s.features)} features, {s.lookback} bars back)" for v, s in sets.items())),
        _calendars(settings.calendars),
    ]


def _calendars(named: dict[str, str]) -> Finding:
    if not named:
        return Finding("ok", "calendars", "none: a bar that is absent is not missed, and daily bars close after a day")
    try:
        Calendars(named).check()
    except AsofError as error:
        return Finding("bad", "calendars", str(error), f"correct `calendars` in {FILE} or the environment")
    return Finding("ok", "calendars", ", ".join(f"{'all others' if who == EVERYBODY else who}: {name}" for who, name in named.items()))


def _caches() -> list[Finding]:
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(drivers.__file__).parent / "__pycache__")
    compiled = len(list(folder.rglob("*.nbi"))) if folder.exists() else 0
    if compiled:
        return [Finding("ok", "compiled kernels", f"{compiled} in the cache: processes start at full speed")]
    return [Finding("note", "compiled kernels", "none yet: the first computation compiles them, once", "asof demo compiles those of fs_v1")]


def _store(url: str | None) -> list[Finding]:
    try:
        shown = url or load_settings().store_url
        scheme, rest = scheme_of(shown)
        if scheme == "duckdb" and not Path(rest.removeprefix("/")).exists():
            return [Finding("note", "store", f"{shown} does not exist yet", "asof ingest bars FILE --timeframe 1d makes it")]
        with connect(url) as opened:
            facts = opened.store.facts()
            registry = opened.registered()
    except AsofError as error:
        return [Finding("bad", "store", str(error), "")]
    rows, more = facts["rows"], facts["findings"]
    assert isinstance(rows, dict)
    assert isinstance(more, list)
    layout = "" if facts["layout"] is None else f", layout {facts['layout']}"
    counts = ", ".join(f"{name} {count:,}" for name, count in rows.items())
    found = [
        Finding("ok", "store", f"{opened.store.url}: {facts['kind']} {facts['version']}{layout}"),
        *(Finding(*finding) for finding in more),
        Finding("ok", "rows", counts or "a service tells no counts"),
        Finding("ok" if registry else "note", "registry", ", ".join(registry) or "empty", "" if registry else "asof apply"),
    ]
    if rows.get("quarantine"):
        found.append(
            Finding("note", "quarantine", f"{rows['quarantine']:,} refused rows", 'select reason, detail, source, "row" from quarantine')
        )
    return found
