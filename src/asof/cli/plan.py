"""`asof plan`: what `asof apply` would do."""

from __future__ import annotations

import typer

from asof.cli.console import JsonOption, StoreOption, emit, out
from asof.definitions import defined
from asof.feature_store import connect


def plan(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show how the definitions differ from the registry. Ends with 3 where a registered version has changed."""
    with connect(store) as opened:
        registry = opened.registered()
        rows = []
        for version, feature_set in defined(opened.settings).items():
            there = registry.get(version)
            state = "new" if there is None else "unchanged" if there.fingerprint == feature_set.fingerprint else "changed"
            difference = feature_set.difference(there.text) if there and state == "changed" else ""
            text = feature_set.text if state == "new" else difference
            rows.append(
                {"version": version, "state": state, "fingerprint": feature_set.fingerprint, "lookback": feature_set.lookback, "text": text}
            )
        rows += [{"version": v, "state": "registered only"} for v in registry if v not in {r["version"] for r in rows}]
    changed = [str(r["version"]) for r in rows if r["state"] == "changed"]
    if as_json:
        emit({"plan": rows})
    else:
        for row in rows:
            _show(row)
    if changed:
        raise typer.Exit(code=3)


MARKS = {"new": ("green", "+"), "unchanged": ("dim", "="), "changed": ("red", "!"), "registered only": ("dim", "-")}


def _show(row: dict[str, object]) -> None:
    style, mark = MARKS[str(row["state"])]
    hint = ": a version never changes; give the new definition a version of its own" if row["state"] == "changed" else ""
    out.print(f"[{style}]{mark} {row['version']}[/]  {row['state']}{hint}")
    for line in str(row.get("text", "")).splitlines():
        tint = "green" if row["state"] == "new" or line.startswith("+") else "red" if line.startswith("-") else "dim"
        out.print(f"    {line}", style=tint, markup=False, soft_wrap=True)
