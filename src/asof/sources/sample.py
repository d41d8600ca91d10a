"""Sample data: made up from a seed, so that the first steps need no download. The prices and news are of no real company."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from asof.timeframes import duration

INSTRUMENTS = ("ALFA", "BRAVO", "CARGO", "DELTA", "ECHO")
_START = datetime(2024, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000
_OPEN = 14 * 3_600_000_000 + 30 * 60_000_000


@dataclass(frozen=True)
class Sample:
    """Daily bars and scored events."""

    bars: pa.Table
    events: list[dict[str, object]]


def make_sample(days: int = 260, seed: int = 7, timeframe: str = "1d") -> Sample:
    """Bars of five invented instruments, and events that lean the way the price will go, some in bursts, some twice.

    They are bars of weekdays; of another timeframe there are as many, one after the other.
    """
    rng = np.random.default_rng(seed)
    start = int(_START.timestamp()) * 1_000_000
    weekdays = np.array([d for d in range(days * 7 // 5 + 5) if (d % 7) < 5])[:days]
    opens = start + weekdays * _DAY + _OPEN if timeframe == "1d" else start + np.arange(days) * duration(timeframe)
    tables, events = [], list[dict[str, object]]()
    for k, name in enumerate(INSTRUMENTS):
        moves = rng.normal(0.0004, 0.011 + 0.003 * k, len(opens))
        close = np.round(40.0 * (k + 1) * np.exp(np.cumsum(moves)), 2)
        opening = np.round(close * np.exp(rng.normal(0, 0.004, len(opens))), 2)
        reach = np.abs(rng.normal(0, 0.005, len(opens)))
        tables.append(
            pa.table(
                {
                    "instrument_id": pa.array([name] * len(opens)),
                    "timeframe": pa.array([timeframe] * len(opens)),
                    "ts": pa.array(opens, pa.timestamp("us", tz="UTC")),
                    "open": opening,
                    "high": np.round(np.maximum(opening, close) * (1 + reach), 2),
                    "low": np.round(np.minimum(opening, close) * (1 - reach), 2),
                    "close": close,
                    "volume": np.round(rng.lognormal(13, 0.4, len(opens))),
                }
            )
        )
        events += _events(rng, name, opens, moves)
    return Sample(pa.concat_tables(tables), sorted(events, key=lambda e: (str(e["enriched_at_utc"]), str(e["event_id"]))))


def _events(rng: np.random.Generator, name: str, opens: np.ndarray, moves: np.ndarray) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for ts, move in zip(opens, moves, strict=True):
        for _ in range(int(rng.poisson(0.6 + 60 * abs(move)))):
            happened = int(ts) - int(rng.integers(0, 100 * 60_000_000))
            enriched = happened + int(rng.integers(1_000_000, 30_000_000))
            score = float(np.clip(np.round(rng.normal(np.sign(move) * 0.25, 0.4), 4), -1, 1))
            event: dict[str, object] = {
                "event_id": str(uuid.UUID(bytes=rng.bytes(16), version=4)),
                "enriched_at_utc": _text(enriched),
                "event_time_utc": _text(happened),
                "tickers": [name],
                "sentiment": {"score": score, "confidence": float(np.round(rng.uniform(0.2, 1.0), 4)), "model": "sample"},
            }
            found.append(event)
            if rng.random() < 0.05:
                found.append(dict(event))
    return found


def _text(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
