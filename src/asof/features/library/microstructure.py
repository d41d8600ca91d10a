"""The features of market microstructure, as compositions over windows of trades, quotes and order books.

Points that lack what a feature needs are passed over, and do not make the whole window missing: a quote without an ask has no spread, and
the mean spread is that of the others. What can be said of no point at all is missing.

`within` bounds how far back from one point another one is looked for; what is further back is taken as not there.
"""

from __future__ import annotations

from asof.features.expression import Expr, apply, where
from asof.features.market import QuoteWindow, TradeWindow
from asof.features.spoken import composed

WITHIN = "1m"
"""How far back the point before is looked for, unless something is said."""


@composed
def total(x: Expr) -> Expr:
    """The sum over the points of a window that have a value; 0 where none has."""
    return where(x.is_missing(), 0, x).sum()


@composed
def average(x: Expr) -> Expr:
    """The mean over the points of a window that have a value; missing where none has."""
    found = x.count()
    return total(x) / found.when(found > 0)


@composed
def trade_sign(trades: TradeWindow, quotes: QuoteWindow | None = None, within: str = WITHIN) -> Expr:
    """For each trade 1 where the buyer was the aggressor, -1 where the seller was, missing where nothing tells.

    Where the source says it, that; else by Lee and Ready 1991, "Inferring trade direction from intraday data": above the middle of the
    quote that prevailed just before the trade a buy, below it a sell; at the middle, or where no quote prevailed (none within the window
    `quotes`), by the tick test: as the newest trade before it at another price, if that is `within` reach. Without `quotes` by the tick
    test alone.
    """
    tick = (trades.price - trades.price.previous_other(within)).sign()
    if quotes is None:
        return where(trades.side.is_missing(), tick, trades.side)
    above = trades.price - quotes.mid.at(trades)
    return where(trades.side.is_missing(), where((above == 0) | above.is_missing(), tick, above.sign()), trades.side)


@composed
def signed_volume(trades: TradeWindow, sign: Expr) -> Expr:
    """The size that buyers were the aggressors of less that of sellers: sum(sign * size). Trades without a sign count for nothing."""
    return total(sign * trades.size)


@composed
def vwap(trades: TradeWindow) -> Expr:
    """The mean price, weighted by size; missing without trades."""
    return trades.price.mean(weight=trades.size)


@composed
def order_flow_imbalance(quotes: QuoteWindow, within: str = WITHIN) -> Expr:
    """The order flow imbalance at the best level of Cont, Kukanov and Stoikov 2014, "The price impact of order book events".

    The sum, over the quotes, of what each adds to the bid and takes off the ask against the quote before it:
    [b >= b'] q_b - [b <= b'] q_b' - [a <= a'] q_a + [a >= a'] q_a'. Quotes of which one of these eight is missing are passed over, the
    one before being `within` reach or not. 0 where no quote is left.
    """
    bid, bid_size, ask, ask_size = quotes.bid, quotes.bid_size, quotes.ask, quotes.ask_size
    before, size_before, ask_before, ask_size_before = (x.previous(within) for x in (bid, bid_size, ask, ask_size))
    bought = where(bid >= before, bid_size, 0) - where(bid <= before, size_before, 0)
    sold = where(ask <= ask_before, ask_size, 0) - where(ask >= ask_before, ask_size_before, 0)
    return total(bought - sold)


@composed
def vpin(trades: TradeWindow, sign: Expr, buckets: int = 50) -> Expr:
    """The volume-synchronised probability of informed trading: Easley, Lopez de Prado and O'Hara 2012, "Flow toxicity and liquidity".

    The window's volume is cut into so many buckets of equal volume; the mean, over them, of |buys - sells| / volume. A trade at the edge of
    two buckets is parted; one without a sign is neither buy nor sell. Missing without trades.
    """
    return apply("buckets", where(sign.is_missing(), 0, sign), weight=trades.size, n=buckets)


@composed
def kyle_lambda(trades: TradeWindow, sign: Expr, within: str = WITHIN) -> Expr:
    """Kyle's lambda, the price impact of signed volume: Kyle 1985, "Continuous auctions and insider trading".

    The slope, by least squares through the origin, of the price changes from trade to trade over the trades' signed sizes:
    sum(change * flow) / sum(flow ** 2). Missing where no trade has both.
    """
    change, flow = trades.price - trades.price.previous(within), sign * trades.size
    weight = total((flow * flow).when(~change.is_missing()))
    return total(change * flow) / weight.when(weight > 0)


@composed
def amihud(change: Expr, value: Expr, n: int) -> Expr:
    """The illiquidity of Amihud 2002, "Illiquidity and stock returns": the mean of |change| / value over `n` bars.

    `change` is a return of each bar, `value` what was paid in it. Bars in which nothing was traded are passed over.
    """
    return apply("mean", change.abs() / value.when(value > 0), n, min_count=1)


@composed
def roll_spread(trades: TradeWindow, within: str = WITHIN) -> Expr:
    """The effective spread of Roll 1984, "A simple implicit measure of the effective bid-ask spread": 2 sqrt(-cov(change, change before)).

    The covariance (of the population) is of neighbouring price changes from trade to trade. 0 where it is positive; missing where there
    are no two such changes.
    """
    change = trades.price - trades.price.previous(within)
    before = change.previous(within)
    both = change * before
    covariance = average(both) - average(change.when(~both.is_missing())) * average(before.when(~both.is_missing()))
    return (-covariance).maximum(0).sqrt() * 2


@composed
def effective_spread(trades: TradeWindow, quotes: QuoteWindow) -> Expr:
    """The mean effective spread: 2 |price - mid| with the middle of the quote that prevailed just before each trade.

    Huang and Stoll 1996, "Dealer versus auction markets". Trades before which no quote prevailed are passed over.
    """
    return average((trades.price - quotes.mid.at(trades)).abs() * 2)


@composed
def realised_volatility(quotes: QuoteWindow, within: str = WITHIN) -> Expr:
    """The square root of the sum of the squared logarithmic changes of the middle, from quote to quote.

    Andersen, Bollerslev, Diebold and Labys 2003, "Modeling and forecasting realized volatility". Of the window, not of a year; missing
    where there are no two middles.
    """
    change = (quotes.mid / quotes.mid.previous(within)).log()
    return total(change * change).when(change.count() > 0).sqrt()
