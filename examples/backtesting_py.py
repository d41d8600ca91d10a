"""A strategy of backtesting.py on features: long while the last return is up and volatility is low. Needs `backtesting` and pandas."""

from __future__ import annotations

from backtesting import Backtest, Strategy
from sample_store import sample_store

from asof.bridges import backtesting_py


class Calm(Strategy):
    """Its features are what was known when the next bar opened, which is where its orders are filled."""

    def init(self) -> None:
        """Nothing to prepare: the features are there."""

    def next(self) -> None:
        """Called at each bar's close."""
        if self.data.vol_20[-1] < 0.012 and self.data.ret_1[-1] > 0:
            self.position or self.buy(size=0.9)
        elif self.position:
            self.position.close()


def main() -> None:
    """Print the trades and the return."""
    with sample_store() as store:
        data = backtesting_py.frame(store, ["fs_v1:ret_1", "fs_v1:vol_20"], "1d", "ALFA", known_at=None)
    result = Backtest(data, Calm, cash=10_000, commission=0.0005, finalize_trades=True).run()
    print(f"{result['# Trades']} trades, return {result['Return [%]']:.2f} %")


if __name__ == "__main__":
    main()
