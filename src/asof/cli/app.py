"""The table of commands, and the outermost edge: where errors become messages and exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer
from rich.markup import escape

from asof import __version__
from asof.cli import (
    apply,
    backfill,
    bars,
    dataset,
    demo,
    dlq,
    doctor,
    explain,
    get,
    ingest,
    init,
    join,
    keys,
    leakcheck,
    migrate,
    plan,
    replay,
    resample,
    serve,
    service,
    verify,
)
from asof.cli.console import err
from asof.cli.interrupts import noticed, watching
from asof.errors import AsofError

INTERRUPTED = 130

app = typer.Typer(
    name="asof",
    help="The feature store for markets: define a feature once; backfill it, read it back as of any moment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "init": init.init,
    "migrate": migrate.migrate,
    "plan": plan.plan,
    "apply": apply.apply,
    "resample": resample.resample,
    "backfill": backfill.backfill,
    "run": service.run,
    "serve": serve.serve,
    "get": get.get,
    "join": join.join,
    "verify": verify.verify,
    "replay": replay.replay,
    "explain": explain.explain,
    "leakcheck": leakcheck.leakcheck,
    "doctor": doctor.doctor,
    "demo": demo.demo,
}
"""Every command, beside those of the groups."""

GROUPS: dict[str, typer.Typer] = {"ingest": ingest.app, "bars": bars.app, "dataset": dataset.app, "dlq": dlq.app, "keys": keys.app}
"""The groups of commands."""

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"asof {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and leave."),
) -> None:
    """The options of the command itself."""


def run() -> None:
    """Run the command line; every error ends as one message on standard error and a stable exit code."""
    with watching():
        _run()


def _run() -> None:
    try:
        app(prog_name="asof")
    except AsofError as error:
        if noticed():
            _stop()
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"error": str(error), "kind": type(error).__name__}) + "\n")
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # Typer has turned the KeyboardInterrupt into this
            _stop()
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception:
        if noticed():  # whatever broke, it broke because of that
            _stop()
        raise


def _stop() -> NoReturn:
    err.print("stopped; what was not yet committed is undone. Run the same command again to finish.", soft_wrap=True)
    sys.exit(INTERRUPTED)
