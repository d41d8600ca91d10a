"""Whatever fails in the middle of a stream: nothing is lost, nothing is there twice, and what may pass by itself makes no dead letters."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from asof.errors import StoreError
from asof.stores.duckdb import DuckDBStore
from asof.stores.postgres import PostgresStore
from asof.stores.postgres_migrations import Policies, migrate
from tests.jobs.streams import QUICK, Running, all_there, eventually, keys, message, running, settings_of, stored, streaming
from tests.processes import finish, start
from tests.servers import kafka as brokers
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres, private

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[Kafka]:
    """A broker that a test may end and start again."""
    with brokers.private() as broker:
        yield broker


def test_connections_that_the_database_ends_lose_nothing(kafka: Kafka, postgres: Postgres) -> None:
    topic, url = kafka.topic(), postgres.database()
    with PostgresStore(url) as store, running(settings_of(kafka, topic), store) as consumer:
        with streaming(kafka, topic) as stream:
            for _ in range(6):
                time.sleep(0.3)
                postgres.cut_off(url)
        all_there(store, stream, kafka, topic)
        assert consumer.value("dead_letters_total") == stream.junk
        assert consumer.value("store_up") == 1


def test_a_database_that_is_started_again_in_the_middle_loses_nothing(kafka: Kafka) -> None:
    with private() as server:
        assert server.cluster is not None
        url = server.of("postgres")
        migrate(url, Policies())
        topic = kafka.topic()
        with PostgresStore(url) as store, running(settings_of(kafka, topic), store) as consumer:
            with streaming(kafka, topic) as stream:
                eventually(lambda: consumer.value("events_total") > 0)  # who has no partition yet has nothing to hold, and pauses nothing
                for mode in ("fast", "immediate"):
                    time.sleep(0.5)
                    server.cluster.restart(mode)
                server.cluster.stop()
                eventually(lambda: consumer.value("kafka_paused") == 1)
                assert consumer.value("store_up") == 0
                assert consumer.value("cached_events") > 0
                letters = consumer.value("dead_letters_total")
                time.sleep(1)
                assert consumer.value("dead_letters_total") - letters <= 0, "what may pass makes no dead letters"
                server.cluster.start()
            all_there(store, stream, kafka, topic)
            assert consumer.value("kafka_paused") == consumer.value("cached_events") == 0
            assert consumer.value("store_up") == 1


class LosesAnAnswer(DuckDBStore):
    """A store that keeps a batch and is gone before it says so; `back` is set when it is there again."""

    answers = True

    def __init__(self) -> None:
        self.back = threading.Event()
        super().__init__(None)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with super().transaction():
            yield
        if self._depth == 0 and self.answers and stored(self):
            self.answers = False
            raise StoreError("the answer to a commit did not come")

    def positions(self, prefix: str) -> dict[str, str]:
        if self._depth == 0 and not self.answers and not self.back.is_set():  # within a transaction `move` asks for them
            raise StoreError("the store is away")
        return super().positions(prefix)


def test_a_store_that_is_gone_before_it_answers_pauses_the_reading_until_it_tells_how_far_it_got(kafka: Kafka) -> None:
    topic = kafka.topic(1)
    kafka.write(topic, *map(message, range(5)))
    with closing(LosesAnAnswer()) as store, running(settings_of(kafka, topic), store) as consumer:
        eventually(lambda: consumer.log.says("reading on from the store's positions"))
        eventually(lambda: consumer.value("kafka_paused") == 1)
        kafka.write(topic, message(5))
        store.back.set()
        eventually(lambda: len(stored(store)) == 6)
        eventually(lambda: consumer.value("kafka_paused") == 0)
        assert set(stored(store)) == keys(*range(6))


def test_a_slow_database_pauses_the_reading_and_memory_stays_bounded(kafka: Kafka, postgres: Postgres) -> None:
    topic, url = kafka.topic(), postgres.database()
    kafka.write(topic, *(message(n, quality_flags=["x" * 100_000]) for n in range(1_000)))  # 100 MB
    with PostgresStore(url) as store, psycopg.connect(url) as other:
        other.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        before = resident()
        with running(settings_of(kafka, topic), store) as consumer:
            eventually(lambda: consumer.value("kafka_paused") == 1)
            time.sleep(2)
            assert 0 < consumer.value("cached_events") < 1_000
            assert resident() - before < 70_000_000
            other.rollback()
            eventually(lambda: consumer.value("events_total") == 1_000)
            assert consumer.value("kafka_paused") == 0
        assert stored(store) == sorted(keys(*range(1_000)))


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_broker_that_is_started_again_or_killed_in_the_middle_loses_nothing(own_kafka: Kafka, postgres: Postgres) -> None:
    topic, url = own_kafka.topic(), postgres.database()
    assert own_kafka.server is not None
    with PostgresStore(url) as store, running(settings_of(own_kafka, topic), store) as consumer:
        with streaming(own_kafka, topic) as stream:
            for how in (signal.SIGTERM, signal.SIGKILL):
                time.sleep(0.5)
                own_kafka.server.end(how)
                own_kafka.server.start()
            own_kafka.server.end(signal.SIGKILL)
            eventually(lambda: consumer.value("broker_up") == 0)
            own_kafka.server.start()
        all_there(store, stream, own_kafka, topic)
        assert consumer.value("broker_up") == 1


def test_dead_letters_that_the_brokers_do_not_take_are_waited_for(kafka: Kafka, postgres: Postgres) -> None:
    kafka.needs_real("the mock cluster makes topics its own way")
    topic, url = kafka.topic(1), postgres.database()
    kafka.write(topic, message(1), b"junk", message(2))
    with PostgresStore(url) as store, running(settings_of(kafka, topic, kafka={"message.timeout.ms": "300"}), store) as consumer:
        eventually(lambda: consumer.value("events_total") == 3)
        gone = kafka.admin.delete_topics([f"{topic}.dlq"])[f"{topic}.dlq"]
        gone.result()
        kafka.write(topic, message(3), b"more junk", message(4))
        eventually(lambda: consumer.log.says("did not take a message"))
        assert stored(store) == sorted(keys(1, 2))
        assert store.positions("kafka/") == {f"kafka/{topic}/0": "3"}


CONSUMER = """
import json, sys, time
from asof.config import Settings
from asof.jobs import consume
from asof.stores.urls import open_store
from tests.jobs.streams import Running
consume.BATCH_MESSAGES = 40  # many transactions, so that every moment is in the middle of one
with open_store(sys.argv[2]) as store:
    consumer = Running(Settings(**json.loads(sys.argv[1])), store)
    print("reading", flush=True)
    sys.stdin.readline()
    consumer.end()
"""


@contextmanager
def process(kafka: Kafka, topic: str, url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A consumer in a process of its own, which ends in good order when it is sent a line, and by force at the end of the block."""
    said = {"kafka_bootstrap_servers": kafka.bootstrap, "enriched_topic": topic, "dead_letter_topic": f"{topic}.dlq", "kafka_group": topic}
    started = start([sys.executable, "-c", CONSUMER, json.dumps(said | {"kafka": QUICK}), url], folder)
    assert started.stdout is not None
    try:
        assert started.stdout.readline() == "reading\n"
        yield started
    finally:
        started.kill()
        finish(started)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_consumer_that_is_killed_at_any_moments_loses_nothing_and_doubles_nothing(
    kafka: Kafka, postgres: Postgres, tmp_path: Path, seed: int
) -> None:
    topic, url, moments = kafka.topic(), postgres.database(), random.Random(seed)  # noqa: S311  # no secret
    with PostgresStore(url) as store:
        with streaming(kafka, topic) as stream:
            for _ in range(5):
                with process(kafka, topic, url, tmp_path):
                    before = store.positions("kafka/")
                    eventually(lambda before=before: store.positions("kafka/") != before)  # type: ignore[misc]  # it reads by now
                    time.sleep(moments.uniform(0, 0.5))
        with running(settings_of(kafka, topic), store):
            all_there(store, stream, kafka, topic)


def test_members_that_come_and_go_lose_nothing_and_double_nothing(kafka: Kafka, postgres: Postgres) -> None:
    topic, url = kafka.topic(6), postgres.database()
    settings = settings_of(kafka, topic)
    with PostgresStore(url) as store, running(settings, store) as first:
        with streaming(kafka, topic) as stream:
            eventually(lambda: first.value("events_total"))
            with running(settings, store) as second:
                eventually(lambda: second.value("events_total"))
                eventually(lambda: len(partitions_of(first)) == len(partitions_of(second)) == 3)
                with running(settings, store) as third:
                    eventually(lambda: third.value("events_total"))
                    first.end()
                    time.sleep(0.3)
        with running(settings, store):
            all_there(store, stream, kafka, topic)


def partitions_of(consumer: Running) -> set[str]:
    """The partitions that a consumer shows a lag of."""
    return {sample.labels["partition"] for sample in consumer.metrics.lag_messages.collect()[0].samples}


def test_a_member_that_wakes_after_another_took_its_place_changes_nothing(kafka: Kafka, postgres: Postgres, tmp_path: Path) -> None:
    topic, url = kafka.topic(2), postgres.database()
    with PostgresStore(url) as store, process(kafka, topic, url, tmp_path) as sleeper:
        with streaming(kafka, topic) as stream:
            eventually(lambda: store.positions("kafka/"))
            for _ in range(2):
                time.sleep(0.3)
                put_to_sleep(sleeper, postgres, url)
                with running(settings_of(kafka, topic), store) as other:
                    eventually(lambda: other.value("events_total"))
                    sleeper.send_signal(signal.SIGCONT)
                    time.sleep(0.5)
        with running(settings_of(kafka, topic), store):
            all_there(store, stream, kafka, topic)
        code, _, errors = finish_in_order(sleeper)
        assert (code, errors) == (0, "")


def put_to_sleep(sleeper: subprocess.Popen[str], postgres: Postgres, url: str) -> None:
    """Stop a process, but not in the middle of a transaction, for whose end others would wait."""
    busy = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
    while True:
        sleeper.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        if not postgres.run(busy, url):
            return
        sleeper.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def finish_in_order(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    assert started.stdin is not None
    started.stdin.write("\n")
    started.stdin.flush()
    return finish(started)
