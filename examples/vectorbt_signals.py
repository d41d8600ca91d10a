"""Signals of features in vectorbt, all instruments at once, filled at the open they were known at. Needs `pip install vectorbt`."""

from __future__ import annotations

import vectorbt
from sample_store import sample_store

from asof.bridges import vectorbt as bridge


def main() -> None:
    """Print the return of each instrument."""
    with sample_store() as store:
        panels = bridge.panels(store, ["fs_v1:ret_1"], "1d", known_at=None)
    rose = panels["ret_1"] > 0
    portfolio = vectorbt.Portfolio.from_signals(panels["close"], rose, ~rose, price=panels["open"], fees=0.0005, freq="1D")
    print(portfolio.total_return().round(4).to_string())


if __name__ == "__main__":
    main()
