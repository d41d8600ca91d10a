"""1M stored vectors through a service by Flight and by HTTP, service and client on one core, beside the same read from the file itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import data
import pyarrow as pa
from measure import Candidate, Figure, Result, Settings, take_turns

import asof
from asof.stores.store import Selection, vectors_table

TARGET = 1_000_000
"""Vectors a second."""
SERVICE = """
import sys
from asof.cli import main
sys.argv = ["asof", "serve", "--port", "0", "--flight", "--flight-port", "0", "--from", "served.duckdb"]
main()
"""


def run(settings: Settings) -> Result:
    """Measure it."""
    wanted = data.size(1_000_000, 100, settings.scale)
    path = settings.folder / "served.duckdb"
    data.fill(path, wanted)
    with asof.connect(str(path)) as store:
        store.backfill(asof.fs_v1, "1m")
    path.with_name("copy.duckdb").write_bytes(path.read_bytes())
    answers: dict[str, pa.Table] = {}
    with (
        one_core(),
        service() as (by_http, by_flight),
        asof.connect(by_flight) as remote,
        asof.connect(by_http) as http,
        asof.connect("copy.duckdb", threads=1) as near,
    ):
        candidates = {
            "asof, Arrow Flight": Candidate(lambda: streamed(remote)),
            "asof, HTTP": Candidate(lambda: streamed(http)),
            "asof, Arrow Flight, history() in order": Candidate(lambda: remote.history(asof.fs_v1, "1m").table),
            "from the file itself": Candidate(lambda: streamed(near)),
            "from the file itself, history() in order": Candidate(lambda: near.history(asof.fs_v1, "1m").table),
        }
        seconds = take_turns(candidates, settings.repeat, answers.__setitem__)
    ours = len(answers["asof, Arrow Flight"]) / seconds["asof, Arrow Flight"]
    same = answers["asof, Arrow Flight, history() in order"] == answers["from the file itself, history() in order"]
    return Result(
        f"history of {wanted.rows:,} vectors, service and client on one core",
        [Figure(name, found, wanted.rows) for name, found in seconds.items()],
        f"at least {TARGET:,} vectors/s",
        f"{ours:,.0f} vectors/s",
        ours >= TARGET,
        [] if same else ["the service and the file answer differently"],
    )


def streamed(store: asof.FeatureStore) -> pa.Table:
    """All vectors as they come."""
    table = vectors_table(asof.fs_v1)
    return pa.concat_tables(store.store.read(table, Selection("1m"), ordered=False))


@contextmanager
def one_core() -> Iterator[None]:
    """This process, and those that it starts, on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def service() -> Iterator[tuple[str, str]]:
    """A service over the file; its URLs, of HTTP and of Flight."""
    with subprocess.Popen([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1], process.stdout.readline().split()[-1]
        finally:
            process.terminate()
