"""The first vector of a second process: kernels come from the cache that an earlier process wrote. The design sets no target for it."""

from __future__ import annotations

import statistics

from measure import Candidate, Figure, Result, Settings, python, take_turns

_FIRST = """
import time
began = time.perf_counter()
import pyarrow as pa
import asof
minute, utc = 60_000_000, pa.timestamp("us", "UTC")
times = [1_704_153_600_000_000 + minute * k for k in range(30)]
bars = pa.table({"instrument_id": ["A"] * 30, "ts": pa.array(times, utc), "close": [100.0 + k for k in range(30)]})
events = pa.table(
    {
        "event_id": ["one", "two"],
        "enriched_at_utc": pa.array(times[20:22], utc),
        "instrument_id": ["A", "A"],
        "score": [0.5, -0.25],
        "confidence": [0.5, 1.0],
    }
)
vector = asof.compute(asof.fs_v1, bars, events, timeframe="1m").to_pylist()[-1]
assert vector["event_count_1h"] == 2.0
print(time.perf_counter() - began)
"""


def run(settings: Settings) -> Result:
    """Measure it; the data's scale does not matter here."""
    python(_FIRST)  # compiles what is not in the cache yet
    inside: list[float] = []
    candidates = {
        "asof": Candidate(lambda: inside.append(float(python(_FIRST)))),
        "pyarrow": Candidate(lambda: python("import numba, pyarrow, pyarrow.compute")),
    }
    seconds = take_turns(candidates, settings.repeat)
    return Result(
        "first vector in a second process",
        [
            Figure("asof, the whole process", seconds["asof"]),
            Figure("asof, imports to vector", statistics.median(inside)),
            Figure("importing Numba and PyArrow alone", seconds["pyarrow"]),
        ],
        measured=f"{seconds['asof']:.2f} s",
    )
