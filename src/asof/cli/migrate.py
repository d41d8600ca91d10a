"""`asof migrate`: bring a store to the layout of this asof."""

from __future__ import annotations

from typing import Annotated

import typer

from asof.cli.console import JsonOption, StoreOption, emit, out
from asof.config import load_settings
from asof.stores.urls import migrate_store, migration_scripts


def migrate(
    print_sql: Annotated[bool, typer.Option("--print", help="Print the SQL that would run, and run nothing.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make or upgrade the tables of a PostgreSQL store, and set what TimescaleDB does with old chunks. Safe to run again.

    A DuckDB store needs no such command.
    """
    settings = load_settings()
    ages = [None if age == "off" else age for age in (settings.columnstore_after, settings.retention)]
    if print_sql:
        scripts = migration_scripts(store or settings.store_url, *ages)
        if as_json:
            emit({"pending": scripts})
        for name, sql in () if as_json else scripts.items():
            out.print(f"-- {name}\n{sql}", markup=False, soft_wrap=True)
        return
    done = migrate_store(store or settings.store_url, *ages)
    if as_json:
        emit({"migrated": done})
        return
    for name in done:
        out.print(f"[green]+[/] {name}")
    if not done:
        out.print("[dim]= nothing is missing[/]")
