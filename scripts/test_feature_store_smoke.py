"""Seven checks of a running stack: what goes in at one end comes out at the other, and is right.

1. to 4. The database answers and has its tables; bars are inserted as a market ingestor does, events published as the enrichment does.
5. to 7. The service says that it is well; the vectors of just those bars and events appear, equal to what `asof.compute` makes of them;
   its metrics have moved.

They are of an instrument of their own, and what was written of it is removed at the end (but for the messages in Kafka). Where the service
computes named instruments only, ASOF-SMOKE has to be one of them. It runs from a checkout, with the addresses as options or in the
environment, and inside of the container: `docker compose exec feature-store python /opt/asof/scripts/test_feature_store_smoke.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pyarrow as pa
from confluent_kafka import KafkaException, Producer

from asof import FeatureSet, compute
from asof.config import Settings, load_settings
from asof.errors import AsofError
from asof.stores.postgres_server import Connection, Server
from asof.stores.store import Selection, vectors_table
from asof.stores.urls import open_store
from asof.timeframes import duration

HEALTH = ("status", "compute_active", "last_success_age_seconds", "cached_events", "feature_set_version", "pipeline_version")
TABLES = (
    "ohlcv",
    "events",
    "feature_vectors",
    "feature_vectors_json",
    "feature_vectors_latest",
    "feature_quality_log",
    "quarantine",
    "registry",
)
MOVING = (
    "feature_store_compute_runs_total",
    "feature_store_feature_vectors_upserted_total",
    "feature_store_quality_flag_total",
    "feature_store_compute_duration_seconds_count",
    "feature_store_db_upsert_duration_seconds_count",
    "feature_store_last_success_timestamp",
    "feature_store_events_total",
)
THERE = ("feature_store_compute_failed_total", "feature_store_last_feature_ts_timestamp", "feature_store_cached_events")
"""Metrics that a run may leave as they were."""
BARS = 30
WAIT_SECONDS = 0.5

INSERT_BAR = (
    b"INSERT INTO ohlcv (instrument_id, timeframe, ts, open, high, low, close, volume, source) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
REMOVE = tuple(
    f"DELETE FROM {table} WHERE instrument_id = %s".encode()  # noqa: S608  # the names are these
    for table in ("ohlcv", "events", "feature_vectors", "feature_quality_log", "history.ohlcv", "history.events", "history.feature_vectors")
)


class Broken(Exception):
    """What a check found to be wrong, and the mend."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


@dataclass
class Run:
    """One run: where things are, and what the checks leave for one another."""

    store: str
    kafka: str
    url: str
    topic: str
    instrument: str
    timeframe: str
    seconds: float
    bars: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)

    def until(self, found: Callable[[], str]) -> str:
        """What `found` answers once it raises `Broken` no more; the time for that is bounded."""
        end = time.monotonic() + self.seconds
        while True:
            try:
                return found()
            except Broken:
                if time.monotonic() > end:
                    raise
            time.sleep(WAIT_SECONDS)

    @contextmanager
    def database(self) -> Iterator[Connection]:
        """A connection to the database."""
        with closing(Server(self.store)) as server, server.connection() as connection:
            yield connection


def database(run: Run) -> str:
    if not run.store.startswith("postgres"):
        raise Broken(f"{run.store} is no PostgreSQL", "name the service's database: --store, or POSTGRES_HOST and POSTGRES_PASSWORD")
    with run.database() as connection:
        (version,) = connection.execute(b"SHOW server_version").fetchone() or ("",)
        extension = connection.execute(b"SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    return f"PostgreSQL {version}, " + (f"TimescaleDB {extension[0]}" if extension else "without TimescaleDB")


def tables(run: Run) -> str:
    with run.database() as connection:
        missing = [name for name in TABLES if connection.execute(b"SELECT to_regclass(%s)", [name]).fetchone() == (None,)]
    if missing:
        raise Broken(f"there is no {', '.join(missing)}", "run asof migrate")
    return ", ".join(TABLES)


def bars(run: Run) -> str:
    step = timedelta(microseconds=duration(run.timeframe))
    now = datetime.now(UTC)
    newest = now - (now - datetime(1970, 1, 1, tzinfo=UTC)) % step - step
    run.bars = [bar(run, newest - step * k, BARS - k) for k in reversed(range(BARS))]
    remove(run)
    with run.database() as connection, connection.cursor() as cursor:
        cursor.executemany(INSERT_BAR, [list(b.values()) for b in run.bars])
    return f"{BARS} of {run.instrument}, {run.timeframe}, the newest of {newest:%Y-%m-%d %H:%M}"


def bar(run: Run, ts: datetime, k: int) -> dict[str, Any]:
    close = round(100 + k % 7 / 10 - k % 3 / 100, 2)  # with more than 15 digits it would be rounded on its way to numeric
    prices = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 1000 + k}
    return {"instrument_id": run.instrument, "timeframe": run.timeframe, "ts": ts, **prices, "source": "smoke"}


def events(run: Run) -> str:
    newest = run.bars[-1]["ts"]
    run.events = [event(run, newest - timedelta(minutes=5 * k + 1), k) for k in range(4)]
    refused: list[str] = []
    producer = Producer({"bootstrap.servers": run.kafka, "message.timeout.ms": int(run.seconds * 1000), "log_level": 0})
    for told in (*run.events, run.events[0]):  # the first one comes twice, and counts once
        key, value = told["event_id"], json.dumps(told)
        producer.produce(run.topic, value, key, on_delivery=lambda error, _: refused.append(str(error)) if error else None)
    if waiting := producer.flush(run.seconds):
        refused.append(f"{waiting} of them are not acknowledged")
    if refused:
        mend = "see that the brokers run, and name them: --kafka or KAFKA_BOOTSTRAP_SERVERS (127.0.0.1:9092 from outside of the containers)"
        raise Broken(f"{run.kafka} did not take them: {refused[0]}", mend)
    return f"{len(run.events)} to {run.topic}, and one of them twice"


def event(run: Run, at: datetime, k: int) -> dict[str, Any]:
    said, when = f"A test of {run.instrument}, number {k}", at.isoformat().replace("+00:00", "Z")
    return {
        "schema_version": "enriched_event.v1",
        "event_id": str(uuid.uuid4()),
        "enriched_at_utc": when,
        "event_time_utc": when,
        "pipeline_version": "smoke",
        "source_type": "manual",
        "source_name": "smoke",
        "lang": "en",
        "normalized_text_hash": sha256(said.encode()).hexdigest(),
        "entities": [],
        "tickers": [{"symbol": run.instrument, "confidence": 1.0, "method": "validated"}],
        "sentiment": {"score": (0.5, -0.25, 0.125, 0.75)[k], "confidence": (0.9, 0.5, 0.25, 1.0)[k], "model": "smoke"},
        "event_category": "other",
    }


def health(run: Run) -> str:
    def well() -> str:
        status, body = fetch(run, "/health")
        said = json.loads(body) if body.startswith("{") else {}
        if set(said) != set(HEALTH):
            raise Broken(f"/health answers {', '.join(said) or body[:80]!r}, not {', '.join(HEALTH)}", "is this the address of asof run?")
        if status != 200:
            raise Broken(f"it says {status}, {said['status']}", "its log tells why: docker compose logs feature-store")
        run.versions = said["feature_set_version"].split(",")
        return f"{said['status']}: {said['feature_set_version']}, {said['pipeline_version']}"

    return run.until(well)


def vectors(run: Run) -> str:
    with closing(open_store(run.store, create=False)) as store:

        def right() -> str:
            registry = store.registered()
            for version in run.versions:
                if version not in registry:
                    raise Broken(f"the registry has no {version}", "is this the database of the service?")
                feature_set = FeatureSet.parse(registry[version].text)
                found = store.read(vectors_table(feature_set), Selection(run.timeframe, (run.instrument,)))
                compare([row for table in found for row in table.to_pylist()], expected(run, feature_set), feature_set)
            return f"{BARS} of {', '.join(run.versions)}, equal to the last bit"

        return run.until(right)


def expected(run: Run, feature_set: FeatureSet) -> list[dict[str, Any]]:
    """What the engine makes of the bars and events."""
    flat = [{**e, "instrument_id": run.instrument, **e["sentiment"]} for e in run.events]
    columns = ("event_id", "enriched_at_utc", "event_time_utc", "instrument_id", "score", "confidence")
    news = pa.Table.from_pylist([{name: e[name] for name in columns} for e in flat])
    return compute(feature_set, pa.Table.from_pylist(run.bars), news, timeframe=run.timeframe).to_pylist()


def compare(found: list[dict[str, Any]], wanted: list[dict[str, Any]], feature_set: FeatureSet) -> None:
    """Raise `Broken` where the vectors are not these."""
    if len(found) != len(wanted):
        mend = "see its log; is the instrument among FEATURE_TICKERS, and the timeframe among FEATURE_TIMEFRAMES?"
        raise Broken(f"there are {len(found)} vectors of {feature_set.version}, not {len(wanted)}", mend)
    for one, other in zip(found, wanted, strict=True):
        for name in ("ts", *feature_set.features, "quality_flags", "event_count", "ohlcv_count"):
            if one[name] != other[name]:
                mend = "where only features of events differ, the events have not come through: see lag and dead letters"
                raise Broken(f"{name} at {one['ts']:%H:%M} is {one[name]}, not {other[name]}", mend)


def metrics(run: Run) -> str:
    def moved() -> str:
        now = numbers(run)
        still = [name for name in MOVING if now.get(name, 0) <= run.before.get(name, 0)]
        text = fetch(run, "/metrics")[1]
        still += [name for name in THERE if f"# TYPE {name} " not in text]
        if still:
            raise Broken(f"{', '.join(still)} did not move", "see the service's log")
        return f"{len(MOVING)} moved, {len(THERE)} more are there"

    return run.until(moved)


def numbers(run: Run) -> dict[str, float]:
    """The metrics, summed over their labels."""
    found: dict[str, float] = {}
    for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", fetch(run, "/metrics")[1], re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def fetch(run: Run, path: str) -> tuple[int, str]:
    """Status and body of an answer of the service."""
    try:
        with urlopen(run.url + path, timeout=10) as answer:  # noqa: S310  # an address that the user has given
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (URLError, OSError) as error:
        raise Broken(f"{run.url}{path} does not answer: {error}", "start the service (asof run), or name its address with --url") from None


def remove(run: Run) -> None:
    """Remove all that is there of the instrument."""
    with run.database() as connection, connection.transaction():
        for sql in REMOVE:
            connection.execute(sql, [run.instrument])


CHECKS: dict[str, tuple[Callable[[Run], str], str, tuple[str, ...]]] = {
    "database": (database, "the database is reachable", ()),
    "tables": (tables, "its tables are there", ("database",)),
    "bars": (bars, "bars can be inserted", ("tables",)),
    "events": (events, "events can be published", ("bars",)),
    "health": (health, "the service is ready", ()),
    "vectors": (vectors, "vectors appear, and are right", ("bars", "events", "health")),
    "metrics": (metrics, "metrics move", ("vectors",)),
}
"""Every check: what it does, what it is called, and which others it needs."""


def check(run: Run) -> Iterator[dict[str, object]]:
    """The outcome of each check, in their order."""
    good: set[str] = set()
    for name, (work, title, needs) in CHECKS.items():
        began = time.monotonic()
        outcome: dict[str, object] = {"check": name, "title": title, "ok": False}
        try:
            if missing := [need for need in needs if need not in good]:
                raise Broken(f"not tried: it needs {', '.join(missing)}", "mend that first")
            outcome |= {"ok": True, "detail": work(run)}
            good.add(name)
        except Broken as broken:
            outcome |= {"detail": str(broken), "mend": broken.mend}
        except (AsofError, KafkaException) as error:
            outcome |= {"detail": str(error), "mend": "name the database with --store, or POSTGRES_HOST and its like"}
        yield outcome | {"seconds": round(time.monotonic() - began, 2)}


def options(settings: Settings) -> Run:
    """The run that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    port = os.environ.get("HEALTH_PORT", "8006")
    parser.add_argument("--store", default=settings.store_url, help="the database, postgresql://...; default: as asof itself finds it")
    parser.add_argument("--kafka", default=settings.kafka_bootstrap_servers, help="its brokers; default: KAFKA_BOOTSTRAP_SERVERS")
    parser.add_argument("--topic", default=settings.enriched_topic, help="the events' topic; default: ENRICHED_TOPIC")
    parser.add_argument("--url", default=f"http://127.0.0.1:{port}", help="the service's address; default: %(default)s")
    parser.add_argument("--instrument", default="ASOF-SMOKE", help="the instrument that is made up; default: %(default)s")
    parser.add_argument("--timeframe", default="1m", help="one that the service computes; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=180, help="how long to wait for each check; default: %(default)g")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = vars(parser.parse_args())
    given.pop("json")
    return Run(**given)


def main() -> int:
    run = options(load_settings())
    with suppress(Broken):
        run.before = numbers(run)
    quiet, outcomes = "--json" in sys.argv, []
    try:
        for number, outcome in enumerate(check(run), 1):
            outcomes.append(outcome)
            if not quiet:
                mend = f"\n       mend: {outcome['mend']}" if "mend" in outcome else ""
                print(
                    f"{'ok  ' if outcome['ok'] else 'FAIL'} {number}/{len(CHECKS)} {outcome['title']}: {outcome['detail']}{mend}",
                    flush=True,
                )
    finally:
        if run.bars:
            remove(run)
    well = all(outcome["ok"] for outcome in outcomes)
    if quiet:
        print(json.dumps({"ok": well, "checks": outcomes}))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
