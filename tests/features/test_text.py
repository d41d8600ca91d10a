"""The text of expressions and definitions: it reads back to the same tree, and refuses everything else."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof.errors import DefinitionError
from asof.features.expression import Expr, apply, bars, constant, events, where
from asof.features.feature_set import FeatureSet
from asof.features.library import SHIPPED
from asof.features.text import definition_text, expression_text, parse_definition, parse_expression
from tests.features.expressions import bar_expressions, event_expressions
from tests.operator_cases import RUN, expressions

news = events.window("1h")
DEEP = 100_000


@given(expression=st.one_of(bar_expressions(), event_expressions("3m")))
@settings(max_examples=300)
def test_the_text_of_any_expression_reads_back_to_the_same_node(expression: Expr):
    text = expression_text(expression)
    assert parse_expression(text) is expression
    assert expression_text(parse_expression(text)) == text


@pytest.mark.parametrize("operator", RUN, ids=lambda o: o.key)
def test_the_text_of_every_operator_reads_back(operator):
    for expression in expressions(operator).values():
        assert parse_expression(repr(expression)) is expression


WRITTEN = {
    "bars.close / bars.close.lag(1) - 1": bars.close / bars.close.lag(1) - 1,
    "bars.close - (bars.open - bars.low)": bars.close - (bars.open - bars.low),
    "bars.close - bars.open - bars.low": bars.close - bars.open - bars.low,
    "-(bars.close + 1) * -2.5": -(bars.close + 1) * -2.5,
    "(-bars.close).abs()": (-bars.close).abs(),
    "-bars.close.abs()": -(bars.close.abs()),
    "(2).abs() + bars.close": apply("abs", 2) + bars.close,
    "(bars.close < bars.open) < 1": (bars.close < bars.open) < 1,
    "(bars.close > 1) & ~(bars.open > 2) | (bars.low == 3)": (bars.close > 1) & ~(bars.open > 2) | (bars.low == 3),
    "where(bars.close > 0, 1, -0.0)": where(bars.close > 0, 1, -0.0),
    "bars.close.std(20, ddof=0)": bars.close.std(20, ddof=0),
    "bars.close.std(20, ddof=1)": bars.close.std(20),
    "bars.close.clip(-1, 0.5)": bars.close.clip(low=-1, high=0.5),
    "bars.count(21)": bars.count(21),
    'bars.every("1h").close.mean(20).latest()': bars.every("1h").close.mean(20).latest(),
    'bars.close / bars.every("1d").adjusted.close.latest()': bars.close / bars.every("1d").adjusted.close.latest(),
    'bars.every("1h").count(3).latest() < 3': bars.every("1h").count(3).latest() < 3,
    'events.window("1h").count()': events.window("60m").count(),
    'events.window("1h").sentiment.mean(weight=events.window("1h").confidence)': news.sentiment.mean(weight=news.confidence),
    'events.window("1h").sentiment.mean(weight=2)': news.sentiment.mean(weight=constant(2)),
    "bars.close + 1e+16": bars.close + 10**16,
    "bars.close + -1": bars.close + apply("negate", constant(1)),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_an_expression_is_written_as_a_person_would(text: str):
    assert expression_text(WRITTEN[text]) == text
    assert parse_expression(text) is WRITTEN[text]


def test_spaces_brackets_and_other_spellings_mean_the_same():
    assert parse_expression("  ( bars.close/bars.close . lag( n=1 ) )-1.0 ") is bars.close / bars.close.lag(1) - 1
    assert parse_expression("bars.close.diff(2)") is bars.close - bars.close.lag(2)
    assert parse_expression('events.window("60m").count()') is events.window("1h").count()


REFUSED = {
    "a call into Python": "__import__('os').system('true')",
    "a builtin": "eval('1')",
    "an underscored attribute": "bars.__class__",
    "an underscored attribute of a column": "bars.close._interned",
    "an underscored method": "bars.close.__init_subclass__()",
    "an underscored method of bars": "bars._count(3)",
    "a window's insides": 'events.window("1h")._length',
    "an attribute of a method": "bars.count.real",
    "a method of a method": "bars.count.count(3)",
    "a method that is not called": "bars.count",
    "a part of a node": "bars.close.domain",
    "a part of a node, called": "bars.close.inputs()",
    "a lambda": "lambda: bars.close",
    "a comprehension": "[x for x in (1, 2)]",
    "a generator": "where(*(x for x in (1, 2, 3)))",
    "a walrus": "(x := bars.close)",
    "a string": "'bars.close'",
    "bytes": "b'1'",
    "a format string": "f'{bars}'",
    "an imaginary number": "1j",
    "a truth value": "True",
    "an ellipsis": "...",
    "a power": "2 ** 10 ** 10",
    "a shift": "bars.close << 3",
    "an index": "bars.close[0]",
    "a conditional": "bars.close if bars.open else bars.low",
    "words for and": "bars.close and bars.open",
    "a word for not": "not bars.close",
    "a chain of comparisons": "1 < bars.close < 2",
    "another name": "prices.close",
    "bars themselves": "bars",
    "events themselves": "events",
    "a column of all events": "events.sentiment",
    "a count of all events": "events.count()",
    "a window of words": "events.window(bars.close).count()",
    "more than a window's length": 'events.window("1h", evil=bars.close).count()',
    "an unknown keyword": "bars.close.lag(1, name=2)",
    "a keyword named like ours": "bars.close.lag(name=2)",
    "spread arguments": "bars.close.lag(*bars)",
    "spread keywords": "bars.close.lag(**bars)",
    "an argument too many": "bars.close.diff(1, 2)",
    "an argument too few": "bars.count()",
    "an event count with a length": 'events.window("1h").count(3)',
    "too few branches": "where(bars.close, 1)",
    "a column that is no column": "bars.close.open",
    "two expressions": "bars.close; bars.open",
    "two lines": "bars.close\nbars.open",
    "an assignment": "x = bars.close",
    "nothing": "",
    "a null character": "bars.close\0",
    "a lone surrogate": "\ud800",
    "a number beyond floats": "1e999",
    "a number beyond floats, below zero": "bars.close + -1e999",
    "a huge whole number": "9" * 400,
    "a whole number that Python would not print": "9" * 5_000,
    "a huge hexadecimal": "0x" + "f" * 5_000,
    "deep brackets": "(" * DEEP + "1" + ")" * DEEP,
    "deep minuses": "-" * DEEP + "bars.close",
    "a deep sum": "bars.close" + " + 1" * DEEP,
    "deep attributes": "bars" + ".close" * DEEP,
    "deep calls": "bars.close" + ".lag(1)" * DEEP,
    "too long a text": "bars.close" + " " * 1_000_000 + "+ 1",
    "a look ahead": "bars.close.lag(-1)",
    "a fraction of a bar": "bars.close.lag(1.0)",
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_parser_refuses(what: str):
    started = time.perf_counter()
    with pytest.raises(DefinitionError) as refused:
        parse_expression(REFUSED[what])
    assert len(str(refused.value)) < 500
    assert time.perf_counter() - started < 5


@given(text=st.text(alphabet="bars.cloevntwid()[]{}:=\"'1e9 +-*/~&|<>,_\n\\", max_size=60))
@settings(max_examples=300)
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_any_other_text_is_read_or_refused_and_nothing_else(text: str):
    try:
        found = parse_expression(text)
    except DefinitionError:
        return
    assert parse_expression(repr(found)) is found


@given(parts=st.lists(bar_expressions(6), min_size=1, max_size=6), flags=st.integers(0, 3))
@settings(max_examples=100)
def test_any_definition_reads_back_to_the_same_one(parts: list[Expr], flags: int):
    features = {f"f{k}": part for k, part in enumerate(parts)}
    features |= {f"g{k}": part.lag(1) + parts[0] for k, part in enumerate(parts)}
    made = FeatureSet("made_up", features, {f"F{k}": e > 0 for k, e in enumerate(parts[:flags])} | {"SAME": parts[-1].lag(1)})
    again = FeatureSet.parse(made.text)
    assert again.text == made.text
    assert all(again.features[name] is e for name, e in made.features.items())
    assert all(again.flags[name] is e for name, e in made.flags.items())
    assert list(again.features) + list(again.flags) == list(made.features) + list(made.flags)


@pytest.mark.parametrize("shipped", SHIPPED.values(), ids=SHIPPED)
def test_every_shipped_definition_reads_back(shipped: FeatureSet):
    assert parse_definition(shipped.text) == (shipped.version, dict(shipped.features), dict(shipped.flags))


def test_shared_parts_are_written_once():
    doubled = bars.close
    for _ in range(200):
        doubled = doubled + doubled.lag(1)
    made = FeatureSet("doubled", {"x": doubled})
    assert len(made.text) < 20_000
    assert FeatureSet.parse(made.text).features["x"] is doubled


def test_a_feature_that_is_part_of_another_is_written_by_its_name():
    ret = bars.close / bars.close.lag(1) - 1
    text = definition_text("v1", {"vol": ret.std(20), "ret": ret, "same": ret}, {"UP": ret > 0, "RET": ret})
    assert text == (
        "feature set v1\nfeature vol = ret.std(20, ddof=1)\nfeature ret = bars.close / bars.close.lag(1) - 1\n"
        "feature same = ret\nflag UP = ret > 0\nflag RET = ret\n"
    )
    assert parse_definition(text)[1]["vol"] is ret.std(20)


def test_an_expression_too_deep_to_write_is_refused():
    deep = bars.close
    for k in range(5_000):
        deep = deep + k
    with pytest.raises(DefinitionError, match="nested too deeply to be written: make some of its parts features"):
        expression_text(deep)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a definition starts with 'feature set <version>', not ''"),
        ("feature set v1\nret = ", "line 2 of the definition is not 'feature <name> = <expression>'"),
        ("feature set v1\nfeature a = b + 1\nfeature b = a + 1", "is defined by itself"),
        ("feature set v1\nfeature a = _1 + 1", "_1 is not part of the language"),
        ("feature set v1\nfeature a = bars.close.lag(0)", "lag: n=0 must be at least 1"),
        ("feature set v1 v2\nfeature a = bars.close", "must be a letter, then up to 62 letters"),
        ("feature set v1\nfeature a = __import__('os')", "is not part of the language"),
    ],
)
def test_a_text_that_is_no_definition_is_refused(text: str, said: str):
    with pytest.raises(DefinitionError) as refused:
        FeatureSet.parse(text)
    assert said in str(refused.value)
