"""A backtest in a loop of one's own: buy at the open what rose the day before and was well spoken of, sell at the next open."""

from __future__ import annotations

from sample_store import sample_store

import asof


def main() -> None:
    """Print what a unit of money has become."""
    with sample_store() as store:
        prices = (
            asof.aligned(store, "fs_v1:ret_1", "1d", known_at=None).to_pandas().pivot(index="ts", columns="instrument_id", values="open")
        )
        opens = [moment.to_pydatetime() for moment in prices.index]
        money, held, paid = 1.0, list[str](), prices.iloc[0]
        # The sample's vectors were all computed just now: known_at=None takes them as if they had been there at the time.
        for step in asof.iter_asof(store, "fs_v1", "1d", at=opens, known_at=None):
            now = prices.loc[step.at]
            if held:
                money *= sum(now[name] / paid[name] for name in held) / len(held)
            held = [name for name, vector in step.items() if (vector["ret_1"] or 0) > 0 and (vector["sentiment_mean_1h"] or 0) > 0]
            paid = now
        print(f"from {opens[0]:%d %B %Y} to {opens[-1]:%d %B %Y}: 1 has become {money:.3f}")


if __name__ == "__main__":
    main()
