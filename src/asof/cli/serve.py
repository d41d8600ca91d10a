"""`asof serve`: a store or a topic to read from, for other processes and machines."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from asof.config import load_settings
from asof.errors import MissingExtra

PORT = 8006
FLIGHT_PORT = 8815
HOST = "127.0.0.1"


def serve(
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            "--store",
            help="duckdb:///path, postgresql://... or kafka://host:port; by default ASOF_STORE or asof.toml.",
            metavar="URL",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; other than the loopback it needs keys.")] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the HTTP API; 0 for any that is free.")] = PORT,
    flight: Annotated[bool, typer.Option("--flight", help="Arrow Flight, too: history and joins in bulk.")] = False,
    flight_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of Arrow Flight; 0 for any that is free.")] = FLIGHT_PORT,
) -> None:
    """Serve vectors over HTTP until Ctrl-C or SIGTERM: the newest out of memory, history and joins from the store.

    Other programs read with --store http://127.0.0.1:8006. A replica of a topic (kafka://) has the newest vectors and the stream alone.
    Where there are keys (asof keys create) or an issuer of tokens, it asks for one.
    """
    try:
        from asof.serving.alone import Alone  # noqa: PLC0415  # its parts are extras
        from asof.telemetry import logs  # noqa: PLC0415  # likewise
    except ImportError as error:
        raise MissingExtra(f'serving needs more: pip install "asof[service]" ({error})') from None
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    alone = Alone(source or settings.store_url, settings, host, port, flight_port if flight else None)

    def end(number: int, frame: FrameType | None) -> None:
        alone.end()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        alone.run(lambda address: typer.echo(f"serving at {address}"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
