"""Dead letters on the command line: looking at them, and sending them back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from asof.sources.dead_letters import CUT, Place, letter_headers
from asof.stores.duckdb import DuckDBStore
from tests.cli.conftest import Command
from tests.jobs.streams import eventually, keys, message, running, settings_of, stored
from tests.servers.kafka import Kafka

NASTY = b"\x1b[31m[bold]\xff\x00\r\n" + "\u202e".encode()


@pytest.fixture
def topic(kafka: Kafka, asof: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    """A topic with two events and four messages that cannot be used, which are dead letters by now. The commands are set to it."""
    topic = kafka.topic(1)
    settings = settings_of(kafka, topic)
    kafka.write(topic, message(1), b"{", NASTY, None, message(2, more=1), message(3), key=b"k\x00", headers=[("trace", b"\x01")])
    with DuckDBStore(None) as store, running(settings, store) as consumer:
        eventually(lambda: consumer.value("events_total") == 6)
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "ENRICHED_TOPIC": topic, "FEATURE_DLQ_TOPIC": f"{topic}.dlq"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return topic


def test_letters_are_listed_with_where_they_came_from_and_how_they_begin(asof: Command, topic: str) -> None:
    done = asof("dlq", "list", "--json").json
    assert done["total"] == 4
    letters = done["letters"]
    assert isinstance(letters, list)
    assert [(letter["partition"], letter["offset"], letter["reason"], letter["bytes"]) for letter in letters] == [
        (0, 1, "malformed_json", 1),
        (0, 2, "malformed_json", len(NASTY)),
        (0, 3, "empty_message", 0),
        (0, 4, "unknown_property", len(message(2, more=1))),
    ]
    assert {letter["topic"] for letter in letters} == {topic}
    assert {letter["replayed_at"] for letter in letters} == {None}
    assert "more" in letters[3]["detail"]
    shown = asof("dlq", "list").text
    assert [line.split()[1:3] for line in shown.splitlines()[1:]] == [
        ["0:1", "malformed_json"],
        ["0:2", "malformed_json"],
        ["0:3", "empty_message"],
        ["0:4", "unknown_property"],
    ]


def test_bytes_are_shown_without_control_characters_or_markup(asof: Command, topic: str) -> None:
    for done in (asof("dlq", "list"), asof("dlq", "list", "--json")):
        assert done.text.replace("\n", "").isprintable()
        assert "[bold]" in done.text
        assert "xff" in done.text


def test_the_list_is_cut_and_filtered(asof: Command, topic: str) -> None:
    done = asof("dlq", "list", "--limit", "1", "--reason", "malformed_json")
    assert "0:2" in done.text
    assert " 0:1 " not in done.text
    assert "the newest 1 of 2" in done.said
    assert asof("dlq", "list", "--reason", "no_such").text == "no dead letters\n"


def test_messages_go_back_as_they_came_and_once(asof: Command, kafka: Kafka, topic: str) -> None:
    assert asof("dlq", "replay", "0:2", "0:3", "0:2", "--yes", "--json").json == {
        "replayed": 2,
        "replayed_before": 0,
        "cut": 0,
        "too_large": 0,
    }
    back = kafka.read(topic)[6:]
    assert [(m.key(), m.value(), m.headers()) for m in back] == [(b"k\x00", value, [("trace", b"\x01")]) for value in (NASTY, None)]
    assert asof("dlq", "replay", "0:2", "--yes", "--json").json == {"replayed": 0, "replayed_before": 1, "cut": 0, "too_large": 0}
    letters = asof("dlq", "list", "--json").json["letters"]
    assert isinstance(letters, list)
    assert [bool(letter["replayed_at"]) for letter in letters] == [False, True, True, False]
    assert asof("dlq", "replay", "--all", "--yes", "--json").json == {"replayed": 2, "replayed_before": 2, "cut": 0, "too_large": 0}
    assert asof("dlq", "replay", "--reason", "malformed_json", "--again", "--yes", "--json").json["replayed"] == 2
    assert len(kafka.read(topic)) == 12


def test_a_message_that_can_be_used_by_now_goes_in(asof: Command, kafka: Kafka, topic: str) -> None:
    early = message(9)
    kafka.write(f"{topic}.dlq", early, headers=letter_headers(Place(topic, 0, 99), "time_out_of_range", "early", datetime.now(UTC)))
    done = asof("dlq", "replay", "0:99", "-y")
    assert (done.code, done.text) == (0, "1 replayed\n")
    with DuckDBStore(None) as store, running(settings_of(kafka, topic, kafka_group="later"), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 7)
        assert stored(store) == sorted(keys(1, 3, 9))


def test_what_is_no_whole_message_of_the_topic_stays(asof: Command, kafka: Kafka, topic: str) -> None:
    now = datetime.now(UTC)
    kafka.write(f"{topic}.dlq", b"begin", headers=[*letter_headers(Place(topic, 0, 50), "x", "", now), (CUT, b"10")])
    kafka.write(f"{topic}.dlq", b"other", headers=letter_headers(Place("payments", 0, 51), "x", "", now))
    kafka.write(f"{topic}.dlq", b"no letter")
    kafka.write(f"{topic}.dlq", b"odd", headers=[("asof.topic", b"\xff"), ("asof.partition", b"one"), ("asof.offset", None)])
    assert asof("dlq", "list", "--json", "--reason", "x").json["total"] == 2
    assert asof("dlq", "replay", "--reason", "x", "--yes", "--json").json == {"replayed": 0, "replayed_before": 0, "cut": 1, "too_large": 0}
    assert len(kafka.read(topic)) == 6


def test_a_replay_says_which_and_is_confirmed(asof: Command, kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "say which" in asof("dlq", "replay").said
    assert "say --yes" in asof("dlq", "replay", "--all", "--json").said
    missing = asof("dlq", "replay", "0:77", "--yes")
    assert missing.code == 6
    assert "no dead letter of 0:77" in missing.said
    monkeypatch.setattr(
        "typer.confirm", lambda question, abort: "send 4 messages back" not in question or (_ for _ in ()).throw(SystemExit(1))
    )
    assert asof("dlq", "replay", "--all").code == 1
    assert len(kafka.read(topic)) == 6


def test_without_a_topic_there_are_no_letters_and_without_a_broker_that_is_told(
    asof: Command, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    monkeypatch.setenv("FEATURE_DLQ_TOPIC", kafka.name())
    assert asof("dlq", "list").text == "no dead letters\n"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    gone = asof("dlq", "list")
    assert gone.code == 8
    assert "127.0.0.1:1 cannot be reached" in gone.said
    assert asof("dlq", "list", "--json").json["kind"] == "BrokerError"
