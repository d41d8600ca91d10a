"""`asof serve`: a store to read from, for other processes and machines."""

from __future__ import annotations

import signal
from threading import Event
from types import FrameType
from typing import Annotated

import typer

from asof.cli.console import StoreOption
from asof.config import load_settings
from asof.feature_store import connect
from asof.serving.gate import Gate
from asof.serving.tls import Tls

FLIGHT_PORT = 8815
HOST = "127.0.0.1"


def serve(
    flight: Annotated[bool, typer.Option("--flight", help="Arrow Flight: history and joins in bulk.")] = False,
    flight_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of Arrow Flight; 0 for any that is free.")] = FLIGHT_PORT,
    store: StoreOption = None,
) -> None:
    """Serve the vectors of a store to programs of this machine, until Ctrl-C or SIGTERM. They read with --store grpc://127.0.0.1:8815.

    Where there are keys (asof keys create) or an issuer of tokens, it asks for one.
    """
    from asof.serving.flight import FlightServer  # noqa: PLC0415  # gRPC is large, and no other command needs it

    if not flight:
        raise typer.BadParameter("say what to serve: --flight", param_hint="--flight")
    settings = load_settings()
    gate, tls = Gate.of(settings, HOST), Tls.of(settings)
    gate.check(HOST)
    ending = Event()

    def end(number: int, frame: FrameType | None) -> None:
        ending.set()

    with connect(store, create=False) as opened:
        server = FlightServer(opened, HOST, flight_port, gate.authenticate, tls)
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            typer.echo(f"Arrow Flight at grpc{'+tls' if tls else ''}://{HOST}:{server.port}")
            ending.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            server.stop()
