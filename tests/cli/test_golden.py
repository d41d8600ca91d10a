"""The whole job through the command line, on real data, against vectors that a plain program made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.cli.conftest import Command

STORES = {"duckdb": lambda request: "duckdb:///golden.duckdb", "postgresql": lambda request: request.getfixturevalue("postgres").database()}
"""The URL of a new, empty store of each kind."""

GOLDEN = {60: "fs_v1_stocknet_1d.parquet", 1440: "fs_v1_stocknet_1d_window_1440m.parquet"}
"""The expected vectors for each event window, in minutes."""


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of store, as the one that the commands use."""
    monkeypatch.setenv("ASOF_STORE", STORES[request.param](request))


@pytest.fixture(params=GOLDEN)
def vectors(
    request: pytest.FixtureRequest, asof: Command, shared_data: Path, store: None, monkeypatch: pytest.MonkeyPatch
) -> tuple[pa.Table, pa.Table]:
    """What the commands give for one window, and what is expected of them."""
    monkeypatch.setenv("FEATURE_EVENT_WINDOW_MINUTES", str(request.param))
    mapped = ("-c", "instrument_id=ticker", "-c", "ts=ts_open_utc", "-t", "1d", "--source", "stocknet")
    bars = asof("ingest", "bars", shared_data / "daily/stocknet_prices.parquet", *mapped, "--json").json
    assert (bars["accepted"], bars["refused"]) == (30_558, 0)
    events = asof("ingest", "events", shared_data / "events/stocknet_events.parquet", "--json").json
    assert events["refused"] == 0
    done = asof("backfill", "fs_v1", "-t", "1d", "--json").json
    assert (done["computed"], done["inserted"]) == (30_558, 30_558)
    again = asof("backfill", "fs_v1", "-t", "1d", "--json").json
    assert (again["inserted"], again["corrected"], again["unchanged"]) == (0, 0, 30_558)
    assert asof("get", "fs_v1", "-t", "1d", "-o", "fs_v1.parquet").code == 0
    return pa.parquet.read_table("fs_v1.parquet"), pa.parquet.read_table(shared_data / "golden" / GOLDEN[request.param])


def test_the_vectors_of_real_data_are_those_of_the_plain_program(vectors: tuple[pa.Table, pa.Table]) -> None:
    ours, golden = vectors
    golden = golden.sort_by([("instrument_id", "ascending"), ("ts", "ascending")])
    for name in ("instrument_id", "ts", "event_count", "quality_flags"):
        assert ours[name].to_pylist() == golden[name].to_pylist(), name
    features = ours.column_names[4:-5]
    assert set(features) <= set(golden.column_names)
    assert len(features) == 8
    for name in features:
        assert ours[name].null_count == golden[name].null_count
        np.testing.assert_allclose(ours[name].to_numpy(), golden[name].to_numpy(), rtol=1e-12, atol=0, err_msg=name)
