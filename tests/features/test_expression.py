"""Expressions: one node for equal trees, immutable, without a truth value, and refusing what makes no sense with the mend."""

from __future__ import annotations

import copy
import gc
import pickle
import threading

import pytest

from asof.errors import DefinitionError
from asof.features.event_text import EVENT_TEXTS
from asof.features.expression import (
    BARS,
    COMPOSED,
    EVENT_COLUMNS,
    METHODS,
    Expr,
    apply,
    bars,
    column,
    constant,
    events,
    higher_timeframes,
    lookback,
    reaches,
    walk,
    where,
    windows,
)
from asof.features.streams import Window
from asof.operators import OPERATORS, SECTION_SHAPES

news = events.window("1h")
OTHER = events.window("2h")
HOUR = 3_600_000_000


def test_equal_trees_are_one_node():
    assert bars.close / bars.close.lag(1) - 1 is bars.close / bars.close.lag(n=1) - 1.0
    assert events.window("60m").sentiment.mean() is news.sentiment.mean()
    assert bars.close.std(20) is bars.close.std(20, ddof=1)
    assert hash(bars.close + 1) == hash(bars.close + 1)
    assert {bars.close + 1: "found"}[bars.close + 1] == "found"


def test_unequal_trees_are_different_nodes():
    assert bars.close + 1 is not 1 + bars.close
    assert bars.close.std(20) is not bars.close.std(20, ddof=0)
    assert constant(0.0) is not constant(-0.0)
    assert constant(1) is constant(1.0)
    assert bars.close.lag(1) is not news.sentiment.mean().lag(1)
    assert len({bars.close + k for k in range(100)}) == 100


def test_threads_that_build_the_same_tree_get_the_same_node():
    found: list[Expr] = []

    def build() -> None:
        found.extend(bars.close.mean(k + 2) - bars.open.lag(k + 1) for k in range(200))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 200


def test_a_node_that_nobody_holds_is_forgotten():
    from asof.features import expression

    before = len(expression._interned)
    kept = [bars.volume * k for k in range(5_000, 5_100)]
    assert len(expression._interned) >= before + 100
    del kept
    gc.collect()
    assert len(expression._interned) < before + 100


@pytest.mark.parametrize("name", ["operator", "inputs", "params", "name", "domain", "lookback", "other"])
def test_a_node_cannot_be_changed(name: str):
    with pytest.raises(AttributeError, match="expressions are immutable"):
        setattr(bars.close + 1, name, 1)


def test_copies_and_pickles_are_the_same_node():
    expression = where(news.count() > 2, bars.close.lag(1), -bars.close) + 0.1
    assert copy.copy(expression) is expression
    assert copy.deepcopy([expression])[0] is expression
    assert pickle.loads(pickle.dumps(expression)) is expression  # noqa: S301  # our own bytes


def test_a_node_has_no_truth_value():
    for question in (lambda: bool(bars.close > 1), lambda: 1 < bars.close < 2, lambda: (bars.close > 1) and (bars.open > 1)):
        with pytest.raises(DefinitionError, match=r"no truth value: write `&`, `\|`, `~` for and, or, not, and where\("):
            question()


def test_numbers_stand_on_either_side():
    assert repr(1 - bars.close) == "1 - bars.close"
    assert repr(2 / bars.close + 3 * bars.open) == "2 / bars.close + 3 * bars.open"
    assert repr(1 < bars.close) == "bars.close > 1"  # noqa: SIM300  # that is the question
    assert -constant(1) is constant(-1)


def test_the_domain_follows_the_rows():
    assert (bars.close.domain, news.sentiment.domain, constant(1).domain) == (BARS, Window("events", HOUR), None)
    assert (news.sentiment * news.confidence + 1).domain == Window("events", HOUR)
    assert (news.sentiment.mean() * bars.close).domain == BARS


def test_the_bars_of_a_higher_timeframe_are_rows_of_their_own():
    hour = bars.every("1h")
    assert (hour.close.domain, hour.adjusted.close.mean(3).domain, hour.close.latest().domain) == ("1h", "1h", BARS)
    assert lookback(hour.close.mean(20).latest()) == 1
    assert lookback(hour.close.mean(20).latest().mean(5)) == 5
    assert higher_timeframes(hour.close.mean(20).latest() / bars.every("1d").close.latest(), hour.count(3).latest()) == {"1d": 1, "1h": 20}
    assert higher_timeframes(bars.close.mean(3)) == {}


def test_the_lookback_follows_from_the_operators():
    assert lookback(bars.close) == lookback(news.sentiment.mean()) == lookback(constant(1)) == lookback() == 1
    assert lookback(bars.close.lag(5)) == 6
    assert lookback(bars.close.mean(5)) == 5
    assert lookback((bars.close / bars.close.lag(1) - 1).std(20)) == 21
    assert lookback(bars.close.lag(2).mean(3).lag(4), bars.close.max(8)) == 9
    assert lookback(bars.close.diff(3) + news.count().sum(2)) == 4


def test_walking_visits_every_node_once_and_inputs_first():
    ret = bars.close / bars.close.lag(1)
    nodes = list(walk(ret + ret * ret, ret.mean(3)))
    assert len(nodes) == len(set(nodes)) == 6
    place = {node: k for k, node in enumerate(nodes)}
    assert all(place[child] < place[node] for node in nodes for child in node.inputs)


def test_the_windows_are_those_used_shortest_first():
    assert [window.length for window in windows(OTHER.count() + news.sentiment.mean(), bars.close)] == [HOUR, 2 * HOUR]
    assert windows(bars.close) == ()


def test_points_reach_as_far_as_their_windows_what_is_before_them_and_the_bars_that_look_back():
    mood = news.sentiment.previous("10s").mean()
    assert reaches(mood.mean(20) + OTHER.count(), bars.close.lag(50)) == {"events": (2 * HOUR, 20)}
    assert reaches(mood) == {"events": (HOUR + 10_000_000, 1)}
    assert reaches(bars.close) == {}


def test_every_method_is_shown_and_answers():
    assert set(METHODS) <= set(dir(bars.close))
    assert set(METHODS) == {o.name for o in OPERATORS if not o.symbol and o.name != "where" and o.shape not in SECTION_SHAPES}
    assert dir(bars) == [
        "adjusted",
        "close",
        "count",
        "every",
        "grid_offset",
        "high",
        "low",
        "open",
        "session",
        "time",
        "unbroken",
        "volume",
    ]
    assert dir(bars.adjusted) == ["close", "high", "low", "open", "volume"]
    assert dir(news) == sorted([*EVENT_COLUMNS, *EVENT_TEXTS, "count"])


REFUSED = {
    "two timeframes": (
        lambda: bars.close - bars.every("1h").close,
        "subtract cannot mix rows of bars and 1h bars: take what was known of the 1h bars first, with .latest()",
    ),
    "the latest of its own bars": (bars.close.latest, "latest is for the bars of a higher timeframe: bars.every('1h')"),
    "the latest event": (news.sentiment.latest, "latest is for the bars of a higher timeframe: bars.every('1h')"),
    "a timeframe above another": (lambda: bars.every("1h").every("1d"), "1h bars have no 1d bars: write bars.every('1d')"),
    "a timeframe that is none": (lambda: bars.every("1x"), "timeframe '1x' is not one of <n>s, <n>m, <n>h, <n>d; did you mean '1s'?"),
    "a higher price that is no ratio": ((bars.every("1h").adjusted.close + 1).latest, "latest looks at earlier values of bars.every("),
    "a look ahead": (lambda: bars.close.lag(-1), "lag: n=-1 must be at least 1; a negative one would look ahead"),
    "a lag of nothing": (lambda: bars.close.lag(0), "lag: n=0 must be at least 1"),
    "an endless window": (lambda: bars.close.mean(1_000_001), "mean: n=1000001 must be at most 1e+06"),
    "a deviation of one": (lambda: bars.close.std(1), "std: n=1 must be at least 2"),
    "a third degree": (lambda: bars.close.std(5, ddof=2), "std: ddof=2 must be at most 1"),
    "half a bar": (lambda: bars.close.lag(1.5), "lag: n=1.5 is not a whole number"),
    "a true length": (lambda: bars.close.lag(True), "lag: n=True is not a whole number"),
    "a length in words": (lambda: bars.close.lag("1"), "lag: n='1' is not a whole number"),
    "an expression as length": (lambda: bars.close.lag(bars.open), "lag: n=bars.open is not a whole number"),
    "a huge length": (lambda: bars.close.lag(10**5_000), "lag: n=a whole number beyond 1.8e308 is not finite"),
    "an endless limit": (lambda: bars.close.clip(0, float("inf")), "clip: high=inf is not finite"),
    "a huge limit": (lambda: bars.close.clip(0, 10**400), "clip: high=a whole number beyond 1.8e308 is not finite"),
    "no limit": (lambda: bars.close.clip(float("nan"), 1), "clip: low=nan is not finite"),
    "limits the wrong way": (lambda: bars.close.clip(2, 1), "clip: low=2 is above high=1"),
    "no length": (bars.close.mean, "mean takes x.mean(n): n is not given"),
    "too many": (lambda: bars.close.mean(2, 3), "mean takes x.mean(n), not 3 values"),
    "an unknown keyword": (lambda: bars.close.mean(window=2), "mean takes x.mean(n), not window=2"),
    "the same twice": (lambda: bars.close.mean(2, n=3), "mean takes x.mean(n), not n=3"),
    "a keyword called name": (lambda: bars.close.mean(2, name=3), "mean takes x.mean(n), not name=3"),
    "a misspelt operator": (lambda: bars.close.laag(1), "no operator is called 'laag'; did you mean 'lag'?"),
    "a misspelt shorthand": (lambda: bars.close.dif(1), "no operator is called 'dif'; did you mean 'diff'?"),
    "a misspelt column": (lambda: bars.closes, "bars have no column 'closes'; did you mean 'close'?"),
    "a misspelt event column": (lambda: news.sentimnt, "events have no column 'sentimnt'; did you mean 'sentiment'?"),
    "a misspelt window": (lambda: events.window("1w"), "duration '1w' is not one of <n>s, <n>m, <n>h, <n>d, such as '1h'"),
    "no window": (lambda: events.window("0h"), "duration '0h' is not one of"),
    "bars and events": (lambda: bars.close + news.sentiment, "add cannot mix rows of bars and events of 1h: reduce the events first"),
    "two windows": (lambda: news.sentiment < OTHER.sentiment, "less cannot mix rows of events of 1h and events of 2h"),
    "weights of another window": (
        lambda: news.sentiment.mean(weight=OTHER.confidence),
        "mean cannot mix rows of events of 1h and events of 2h",
    ),
    "weights of bars": (lambda: news.sentiment.mean(weight=bars.close), "mean cannot mix rows of events of 1h and bars"),
    "an event operator of bars": (bars.close.last, "last works on the points of a window, not on bars: events.window('1h')"),
    "a lag of events": (lambda: news.sentiment.lag(1), "lag(n) counts bars; events are cut by time"),
    "a lag of a constant": (lambda: constant(1).lag(1), "lag(n) counts bars"),
    "text": (lambda: bars.close + "1", "'1' (str) is neither an expression nor a number"),
    "a truth value": (lambda: bars.close == True, "True (bool) is neither an expression nor a number"),  # noqa: E712  # that is the question
    "nothing": (lambda: where(bars.close > 1, None, 1), "None (NoneType) is neither an expression nor a number"),
    "an endless number": (lambda: bars.close + float("inf"), "a constant must be finite, not inf"),
    "no number": (lambda: bars.close + float("nan"), "a constant must be finite, not nan"),
    "no bars at all": (lambda: bars.close.median(0), "median: n=0 must be at least 1"),
    "a line through one bar": (lambda: bars.close.slope(1), "slope: n=1 must be at least 2"),
    "a skewness of two": (lambda: bars.close.skew(2), "skew: n=2 must be at least 3"),
    "more than all values": (lambda: bars.close.quantile(5, 1.5), "quantile: q=1.5 must be at most 1"),
    "a correlation with nothing": (lambda: bars.close.corr(5), "corr takes x.corr(y, n): n is not given"),
    "more values than bars": (lambda: bars.close.mean(5, min_count=6), "mean: min_count=6 is more than the 5 bars of the window"),
    "a count that is none": (lambda: bars.close.mean(5, min_count=0), "mean: min_count=0 must be at least 1"),
    "a count for a lag": (lambda: bars.close.lag(5, min_count=2), "lag takes x.lag(n), not min_count=2"),
    "a count in its place": (lambda: bars.close.mean(5, 2), "mean takes x.mean(n), not 3 values"),
    "no weights": (bars.close.ewm, "ewm takes one of alpha, span, half_life, wilder or a gain, not none of them"),
    "weights twice": (lambda: bars.close.ewm(span=3, alpha=0.1), "ewm takes one of alpha, span, half_life, wilder or a gain, not span"),
    "a span of nothing": (lambda: bars.close.ewm(span=0), "ewm: span=0 is not a number from 1"),
    "a half-life of nothing": (lambda: bars.close.ewm(half_life=0), "ewm: half_life=0 is not a number above 0"),
    "a span of words": (lambda: bars.close.ewm(span="20"), "ewm: span='20' is not a number from 1"),
    "an alpha above 1": (lambda: bars.close.ewm(alpha=1.5), "ewm: alpha=1.5 is not a number from 1e-09 to 1"),
    "an endless reach": (
        lambda: bars.close.ewm(span=1e6),
        "ewm: weights that fade by 2e-06 a bar reach 18,368,401 bars back; state how far: reach=1000000 at most",
    ),
    "a gain without a reach": (lambda: bars.close.ewm(bars.volume), "ewm with a gain takes a reach beside it and nothing else"),
    "a gain and a span": (lambda: bars.close.ewm(bars.volume, span=3, reach=5), "ewm with a gain takes a reach beside it and nothing else"),
    "a huge number": (lambda: bars.close + 10**5_000, "a constant must be finite, not a whole number beyond 1.8e308"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_language_refuses_with_the_mend(what: str):
    build, said = REFUSED[what]
    with pytest.raises(DefinitionError) as refused:
        build()
    assert str(refused.value).startswith(said)


def test_methods_that_are_short_for_an_expression_are_that_expression():
    x, y = bars.close, bars.open
    assert x.between(1, y) is (x >= 1) & (x <= y)
    assert x.crossed_above(y) is (x > y) & ~(x > y).lag(1)
    assert x.crossed_below(3) is (x < 3) & ~(x < 3).lag(1)
    assert x.ewm(span=3) is x.ewm(alpha=0.5) is apply("ewm", x, reach=53, alpha=0.5)
    assert x.ewm(wilder=2, reach=9) is x.ewm(half_life=1, reach=9) is x.ewm(span=3, reach=9)
    assert x.ewm(span=1) is apply("ewm", x, reach=1, alpha=1)
    assert set(COMPOSED) <= set(dir(Expr))


@pytest.mark.parametrize("span", [2, 5, 20, 200])
def test_weights_reach_until_half_a_unit_in_the_last_place_is_left(span: int):
    expression = bars.close.ewm(span=span)
    reach, alpha = expression.params
    assert expression.lookback == reach
    assert (1 - alpha) ** reach <= 2.0**-53 * (1 + 1e-9) < (1 - alpha) ** (reach - 1) * (1 + 1e-9)


def test_underscored_names_are_never_operators():
    for thing in (bars.close, bars, news):
        assert not hasattr(thing, "__array__")
        assert not hasattr(thing, "_repr_html_")


def test_an_unknown_operator_is_named_with_its_likely_meaning():
    with pytest.raises(DefinitionError, match="no operator is called 'medain'"):
        apply("medain", bars.close, 3)


def test_a_column_without_a_name_is_the_presence_of_a_row():
    assert bars.count(3).inputs == (column("", BARS),)
    assert news.count().inputs == (column("", Window("events", HOUR)),)
