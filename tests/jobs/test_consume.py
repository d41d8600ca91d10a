"""Events from a broker into a store: what goes in, what becomes a dead letter, where reading begins, and what the metrics tell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import confluent_kafka
import psycopg
import pytest

import asof
from asof.sources.dead_letters import CUT, DETAIL, OFFSET, PARTITION, REASON, TOPIC
from asof.stores.duckdb import DuckDBStore
from asof.stores.postgres import PostgresStore
from asof.stores.store import EVENTS_TABLE, Store
from tests.jobs.streams import WHOLE, event, eventually, keys, message, running, settings_of, stored
from tests.servers.kafka import Kafka, missing
from tests.servers.postgres import Postgres
from tests.stores.rows import rows_in


@pytest.fixture
def store() -> Iterator[Store]:
    """An empty store."""
    with DuckDBStore(None) as opened:
        yield opened


def letters(kafka: Kafka, topic: str) -> list[tuple[str, bytes | None, bytes | None]]:
    """Reason, key and value of the dead letters."""
    return [(dict(m.headers())[REASON].decode(), m.key(), m.value()) for m in kafka.read(f"{topic}.dlq")]


def test_the_tests_run_against_a_real_broker() -> None:
    if lacking := missing():
        pytest.skip(f"Kafka here is librdkafka's mock cluster; {lacking}")


def test_events_go_in_once_however_often_they_come(kafka: Kafka, store: Store) -> None:
    topic = kafka.topic()
    kafka.write(topic, *(message(n) for n in range(100)), *(message(n) for n in range(50)))
    with running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 150)
        kafka.write(topic, message(7), message(100), message(8, sentiment=WHOLE["sentiment"] | {"score": -1}))
        eventually(lambda: consumer.value("events_total") == 153)
        assert stored(store) == sorted(keys(*range(101)))
        assert consumer.value("events_total", outcome="inserted") == 101
        assert consumer.value("events_total", outcome="unchanged") == 51
        assert consumer.value("events_total", outcome="corrected") == 1
        assert consumer.value("cached_events") == 0
        assert consumer.value("store_up") == consumer.value("broker_up") == 1
    positions = store.positions(f"kafka/{topic}/")
    assert sum(map(int, positions.values())) == 153


BAD = {
    "malformed_json": b'{"schema_version": ',
    "unknown_schema_version": message(1, schema_version="enriched_event.v2"),
    "unknown_property": message(2, more=True),
    "missing_property": json.dumps({k: v for k, v in event(3).items() if k != "sentiment"}).encode(),
    "invalid_value": message(4, sentiment=WHOLE["sentiment"] | {"score": 1.01}),
    "time_out_of_range": message(5, enriched_at_utc=(datetime.now(UTC) + timedelta(hours=1)).isoformat()),
    "empty_message": None,
}


def test_what_cannot_be_used_is_a_dead_letter_with_its_bytes_and_all_else_goes_in(kafka: Kafka, store: Store) -> None:
    topic = kafka.topic()
    kafka.write(topic, message(100), key=b"fine")
    for reason, value in BAD.items():
        kafka.write(topic, value, key=b"\xff" + reason.encode(), headers=[("trace", b"\x00\x01"), ("asof.reason", b"forged")])
    kafka.write(topic, message(101))
    with running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 2 + len(BAD))
        assert stored(store) == sorted(keys(100, 101))
        assert consumer.value("dead_letters_total") == consumer.value("events_total", outcome="refused") == len(BAD)
        for reason in BAD:
            assert consumer.value("messages_refused_total", reason=reason) == 1
        assert consumer.log.says("messages that cannot be used")
    assert {(reason, b"\xff" + reason.encode(), value) for reason, value in BAD.items()} == set(letters(kafka, topic))
    originals = {(m.key(), m.partition(), m.offset()) for m in kafka.read(topic)}
    for letter in kafka.read(f"{topic}.dlq"):
        headers = dict(letter.headers())
        assert headers["trace"] == b"\x00\x01"
        assert headers[TOPIC] == topic.encode()
        assert (letter.key(), int(headers[PARTITION]), int(headers[OFFSET])) in originals
        assert headers[DETAIL]


def test_a_message_of_ten_megabytes_is_a_dead_letter_and_so_is_its_beginning_where_that_has_no_room(kafka: Kafka, store: Store) -> None:
    kafka.needs_real("the mock cluster has no limits")
    large = message(1, quality_flags=["x" * 10_000_000])
    topic, narrow = kafka.topic(1, max_message_bytes="20000000"), kafka.topic(1)
    for letters_topic, value in ((f"{topic}.dlq", large), (narrow, large[:1024])):
        kafka.write(topic, large, message(2))
        with running(settings_of(kafka, topic, dead_letter_topic=letters_topic), store) as consumer:
            eventually(lambda: consumer.value("events_total") == 2)
        (letter,) = kafka.read(letters_topic)
        assert letter.value() == value
        assert dict(letter.headers())[REASON] == b"message_too_large"
        assert dict(letter.headers()).get(CUT) == (None if value is large else str(len(large)).encode())
    assert stored(store) == sorted(keys(2))


def test_tickers_that_nobody_asked_for_are_left_out_and_counted(kafka: Kafka, store: Store) -> None:
    topic = kafka.topic()
    both = [{"symbol": symbol, "confidence": 1, "method": "ner"} for symbol in ("AAPL", "MSFT", "TSLA")]
    kafka.write(topic, message(1, tickers=both), message(2, symbol="MSFT"), message(3, tickers=[]))
    with running(settings_of(kafka, topic, tickers=("AAPL",)), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 5)
        assert consumer.value("events_total", outcome="ignored") == 4
        assert consumer.value("dead_letters_total") == 0
    assert stored(store) == sorted(keys(1))


def test_real_events_through_the_broker_are_what_their_file_gives(
    kafka: Kafka, shared_data: Path, tmp_path: Path, postgres: Postgres
) -> None:
    lines = (shared_data / "events" / "stocknet_events.sample.jsonl").read_text().splitlines()
    events = [completed(json.loads(line)) for line in lines]
    complete = tmp_path / "events.jsonl"
    complete.write_text("\n".join(json.dumps(event) for event in events))
    with asof.connect("duckdb://") as expected:
        expected.ingest_events(complete)
        wanted = rows_in(expected.store, EVENTS_TABLE)
    assert len(wanted) > 2_000
    topic = kafka.topic()
    for one in events:
        kafka.producer.produce(topic, json.dumps(one).encode(), one["event_id"])
    kafka.producer.flush(30)
    with PostgresStore(postgres.database()) as store, running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("events_total") >= len(wanted))
        assert rows_in(store, EVENTS_TABLE) == wanted
        assert consumer.value("dead_letters_total") == 0


def completed(record: dict[str, object]) -> dict[str, object]:
    """A stocknet event with all that the schema asks for."""
    tickers = [{"symbol": symbol, "confidence": 1.0, "method": "regex"} for symbol in record["tickers"]]  # type: ignore[union-attr]
    kept = {name: record[name] for name in ("event_id", "enriched_at_utc", "event_time_utc", "sentiment")}
    more = {"source_type": "twitter", "source_name": record["source"], "normalized_text_hash": record["text_sha256"], "tickers": tickers}
    return WHOLE | kept | more


def test_a_topic_that_does_not_exist_yet_is_made_with_its_dead_letters(kafka: Kafka, store: Store) -> None:
    kafka.needs_real("the mock cluster makes topics its own way")
    topic = kafka.name()
    with running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.log.says("reading partitions"))
        found = kafka.admin.list_topics(timeout=10).topics
        assert (len(found[topic].partitions), len(found[f"{topic}.dlq"].partitions)) == (6, 1)
        kafka.write(topic, message(1), b"junk")
        eventually(lambda: consumer.value("events_total") == 2)
    assert [reason for reason, *_ in letters(kafka, topic)] == ["malformed_json"]


def test_reading_begins_at_the_stores_positions_whatever_the_group_has_committed(kafka: Kafka, store: Store) -> None:
    topic = kafka.topic(1)
    kafka.write(topic, *(message(n) for n in range(10)))
    group = confluent_kafka.Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic})
    group.commit(offsets=[confluent_kafka.TopicPartition(topic, 0, 9)], asynchronous=False)
    group.close()
    store.move({f"kafka/{topic}/0": "4"})
    with running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 6)
    assert stored(store) == sorted(keys(*range(4, 10)))
    with running(settings_of(kafka, topic, kafka_group=f"{topic}-other"), store) as consumer:
        eventually(lambda: consumer.log.says("reading partitions"))
        kafka.write(topic, message(10))
        eventually(lambda: consumer.value("events_total"))
        assert consumer.value("events_total") == 1


@pytest.mark.parametrize("start", ["earliest", "latest", "time", "no such time"])
def test_where_there_is_no_position_a_setting_says_where_to_begin_and_it_is_chosen_once(kafka: Kafka, store: Store, start: str) -> None:
    topic = kafka.topic(1)
    long_ago = 1_600_000_000_000
    for n in range(10):
        kafka.write(topic, message(n), timestamp=long_ago + n)
    since = {"time": datetime.fromtimestamp((long_ago + 4) / 1000, UTC), "no such time": datetime.fromtimestamp(long_ago / 1000 + 99, UTC)}
    first = {"earliest": 0, "latest": 10, "time": 4, "no such time": 10}[start]
    settings = settings_of(kafka, topic, kafka_start=since[start].isoformat() if start in since else start)
    with running(settings, store):
        eventually(lambda: store.positions("kafka/"))
    kafka.write(topic, message(10), timestamp=long_ago + 200_000)
    with running(settings, store):
        eventually(lambda: store.positions("kafka/") == {f"kafka/{topic}/0": "11"})
    assert stored(store) == sorted(keys(*range(first, 11)))


def test_where_the_broker_no_longer_has_our_position_reading_goes_on_from_its_earliest_and_is_told(kafka: Kafka, store: Store) -> None:
    kafka.needs_real("the mock cluster forgets nothing")
    topic = kafka.topic(2)
    kafka.write(topic, *(message(n) for n in range(10)), partition=0)
    kafka.write(topic, *(message(n) for n in range(20, 30)), partition=1)
    gone = confluent_kafka.TopicPartition(topic, 0, 6)
    kafka.admin.delete_records([gone])[gone].result()
    store.move({f"kafka/{topic}/0": "3", f"kafka/{topic}/1": "99"})  # one has passed, the other is of a topic that was there before
    with running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 14)
        assert consumer.value("kafka_offsets_out_of_range_total") == 2
        assert consumer.log.says("the broker no longer has the messages at our position")
    assert stored(store) == sorted(keys(*range(6, 10), *range(20, 30)))
    assert store.positions("kafka/") == {f"kafka/{topic}/0": "10", f"kafka/{topic}/1": "10"}


def test_messages_of_transactions_that_were_given_up_are_not_read_and_are_no_lag(kafka: Kafka, store: Store) -> None:
    kafka.needs_real("the mock cluster has no transactions that this could see")
    topic = kafka.topic(1)
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions()
    for n, end in ((1, producer.commit_transaction), (2, producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, message(n))
        producer.flush()
        end()
    with running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 1)
        eventually(lambda: consumer.value("kafka_lag_messages", partition="0") == 0)
    assert stored(store) == sorted(keys(1))


def test_what_the_store_refuses_for_what_it_holds_is_a_dead_letter_and_blocks_nothing(kafka: Kafka, postgres: Postgres) -> None:
    url = postgres.database()
    postgres.run("ALTER TABLE events ADD CHECK (score < 0.9)", url)
    topic, bad = kafka.topic(), message(1, sentiment=WHOLE["sentiment"] | {"score": 0.95})
    kafka.write(topic, *(message(n) for n in range(10, 30)), bad, b"junk", *(message(n) for n in range(30, 40)))
    with PostgresStore(url) as store, running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 32)
        assert stored(store) == sorted(keys(*range(10, 40)))
        assert sum(map(int, store.positions("kafka/").values())) == 32
        assert consumer.value("messages_refused_total", reason="refused_by_store") == 1
    assert sorted(letters(kafka, topic)) == [("malformed_json", None, b"junk"), ("refused_by_store", None, bad)]


def test_lag_is_right_while_messages_wait_and_when_nothing_comes(kafka: Kafka, postgres: Postgres) -> None:
    topic, hour_ago = kafka.topic(1), int((time.time() - 3600) * 1000)
    kafka.write(topic, *(message(n) for n in range(5)), timestamp=hour_ago)
    url = postgres.database()
    with PostgresStore(url) as store, running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 5)
        eventually(lambda: consumer.value("kafka_lag_messages") == consumer.value("kafka_lag_seconds") == 0)
        with locked_events(url):
            kafka.write(topic, *(message(n) for n in range(5, 9)))
            eventually(lambda: consumer.value("kafka_lag_messages", topic=topic, partition="0") == 4)
            assert 0 < consumer.value("kafka_lag_seconds") < 60, "the hour that passed before is no lag"
            assert consumer.value("cached_events") == 4
            assert consumer.value("kafka_paused") == 1
        eventually(lambda: consumer.value("kafka_lag_messages") == consumer.value("kafka_lag_seconds") == 0)
        assert consumer.value("kafka_paused") == consumer.value("cached_events") == 0


def test_the_lag_of_what_waited_before_the_start_is_its_age(kafka: Kafka, postgres: Postgres) -> None:
    topic, url = kafka.topic(1), postgres.database()
    kafka.write(topic, message(1), timestamp=int((time.time() - 3600) * 1000))
    with PostgresStore(url) as store, locked_events(url), running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.value("kafka_lag_messages") == 1)
        assert 3590 < consumer.value("kafka_lag_seconds") < 3700
        assert consumer.end() < 10, "it leaves a batch that the store does not take"
    assert not consumer.failure


@contextmanager
def locked_events(url: str) -> Iterator[None]:
    """Nobody can write or read events for the block."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield
