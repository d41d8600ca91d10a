"""`asof keys create`, `list` and `revoke`: who may ask a service, and for what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from asof.cli.console import JsonOption, emit, err, out
from asof.config import load_settings
from asof.errors import DefinitionError
from asof.serving.keys import FILE, MOST_NAME, Key, KeyFile
from asof.timeframes import duration

app = typer.Typer(no_args_is_help=True, help="Keys of a service: who may ask it, and for what.")

NEVER = "never"
LONGEST = timedelta(days=3650)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, such as research or trading-desk; logs show it.")],
    scopes: Annotated[
        list[str], typer.Option("--scope", "-s", help="read:<feature set>, read:* for all of them, write, or admin; may be given again.")
    ],
    expires: Annotated[str, typer.Option("--expires", help="From now on: <n>h or <n>d, or `never`.")] = "90d",
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, once: the file keeps its hash alone. A running service knows it within a second."""
    if not (0 < len(name) <= MOST_NAME and name.isprintable()):
        raise typer.BadParameter(f"a name has 1 to {MOST_NAME} characters that can be seen", param_hint="NAME")
    until = _until(expires)
    token, key = _file().create(name, scopes, until)
    if as_json:
        emit({"key": token, **_shown(key)})
        return
    out.print(token, markup=False, soft_wrap=True)
    when = f"until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else "for ever"
    err.print(
        f"{name} may {', '.join(key.scopes)} {when}. This key is shown here and never again: keep it now.", markup=False, soft_wrap=True
    )


@app.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List the keys there are, by their prefix; the keys themselves are not kept."""
    keys = list(_file().keys().values())
    if as_json:
        emit({"keys": [_shown(key) for key in keys]})
        return
    table = Table("prefix", "name", "scopes", "created", "expires", "state", box=None, header_style="bold")
    for key in keys:
        row = (key.prefix, key.name, ", ".join(key.scopes), _day(key.created), _day(key.expires), key.state(datetime.now(UTC)))
        table.add_row(*map(escape, row))
    out.print(table if keys else "no keys; asof keys create makes one")


@app.command("revoke")
def revoke_key(
    prefix: Annotated[str, typer.Argument(help="The eight digits behind asof_, which asof keys list shows; the key itself will do, too.")],
    as_json: JsonOption = False,
) -> None:
    """Have a key let nobody in any more. A running service knows it within a second."""
    key = _file().revoke(prefix.removeprefix("asof_").partition("_")[0])
    if as_json:
        emit(_shown(key))
        return
    out.print(f"the key {key.prefix} of {key.name} is revoked", markup=False, soft_wrap=True)


def _file() -> KeyFile:
    return KeyFile(load_settings().keys_file or Path(FILE))


def _until(text: str) -> datetime | None:
    """When a key expires that is made now."""
    if text == NEVER:
        return None
    try:
        length = timedelta(microseconds=duration(text))
    except DefinitionError as error:
        raise DefinitionError(f"--expires: {error}; or 'never'") from None
    if length > LONGEST:
        raise DefinitionError(f"--expires {text} is more than ten years: say 'never' where that is meant")
    return datetime.now(UTC) + length


def _shown(key: Key) -> dict[str, object]:
    """What may be seen of a key."""
    record = key.record() | {"state": key.state(datetime.now(UTC))}
    del record["sha256"]
    return record


def _day(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M}" if when else "never"
