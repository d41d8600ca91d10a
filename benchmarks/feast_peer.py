"""A peer in an environment of its own: Feast's feature server over vectors in SQLite. It prints its port, and serves until it is ended."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.feature_server import start_server
from feast.types import Float64

INSTRUMENTS, FEATURES = 500, 8


def main(folder: Path) -> None:
    """Make a store of vectors, and serve it."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    rows = {f"f{n}": np.random.default_rng(n).normal(size=INSTRUMENTS) for n in range(FEATURES)}
    frame = pd.DataFrame({"instrument_id": [f"I{n:04d}" for n in range(INSTRUMENTS)], "event_timestamp": now, **rows})
    frame.to_parquet(folder / "vectors.parquet")
    online = {"type": "sqlite", "path": str(folder / "online.db")}
    config = RepoConfig(
        project="asof", provider="local", registry=str(folder / "registry.db"), online_store=online, entity_key_serialization_version=3
    )
    store = FeatureStore(config=config)
    instrument = Entity(name="instrument", join_keys=["instrument_id"])
    source = FileSource(path=str(folder / "vectors.parquet"), timestamp_field="event_timestamp")
    fields = [Field(name=f"f{n}", dtype=Float64) for n in range(FEATURES)]
    view = FeatureView(name="fs_v1", entities=[instrument], schema=fields, source=source, ttl=timedelta(days=3650))
    store.apply([instrument, view])
    store.materialize(now - timedelta(days=1), now + timedelta(days=1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print("PORT", port, flush=True)
    start_server(
        store, host="127.0.0.1", port=port, no_access_log=True, workers=1, worker_connections=1000, max_requests=10**9,
        max_requests_jitter=0, keep_alive_timeout=30, registry_ttl_sec=3600, metrics=False, tls_key_path="", tls_cert_path="",
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
