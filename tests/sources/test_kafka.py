"""Reaching brokers: settings, passwords and certificates, what is said when that fails, and what librdkafka's properties may be."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from asof.config import ConfigError, Settings
from asof.errors import BrokerError
from asof.sources.kafka import Brokers, Partition
from asof.sources.kafka_producer import Outgoing, Producer
from tests.jobs.streams import Lines
from tests.servers.kafka import PASSWORD, USER, Kafka, missing


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def brokers(servers: str, **more: object) -> Brokers:
    return Brokers(Settings(kafka_bootstrap_servers=servers, **more), Lines())  # type: ignore[arg-type]  # pydantic reads them


def login(kafka: Kafka, **more: object) -> Brokers:
    if not kafka.login:
        pytest.skip(f"this needs a broker that asks for passwords; {missing()}")
    ours = {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": USER}
    return brokers(kafka.login, **(ours | more))


def test_a_broker_that_is_not_there_is_told_with_what_mends_it(closed_port: str) -> None:
    with pytest.raises(BrokerError, match=r"cannot be reached: .*Connection refused.*are KAFKA_BOOTSTRAP_SERVERS and"):
        brokers(closed_port).topics()
    with pytest.raises(BrokerError, match=r"cannot be reached: .*resolve.*KAFKA_BOOTSTRAP_SERVERS"):
        brokers("no-such-host.invalid:9092").topics()


def test_a_password_logs_in_and_a_wrong_one_is_told_without_it(kafka: Kafka) -> None:
    topic = kafka.topic(1)
    assert topic in login(kafka, kafka_sasl_password=PASSWORD).topics()
    with pytest.raises(ConfigError, match=r"check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD") as refused:
        login(kafka, kafka_sasl_password="wr0ng").topics()
    assert "wr0ng" not in str(refused.value)


def test_a_broker_that_asks_for_a_password_and_gets_none_is_told(kafka: Kafka) -> None:
    if not kafka.login:
        pytest.skip(f"this needs a broker that asks for passwords; {missing()}")
    with pytest.raises(BrokerError, match=r"cannot be reached: .*KAFKA_SECURITY_PROTOCOL right"):
        brokers(kafka.login).topics()


def test_a_certificate_is_held_to_its_authority(kafka: Kafka) -> None:
    if not kafka.tls:
        pytest.skip(f"this needs a broker with a certificate; {missing()}")
    topic = kafka.topic(1)
    assert topic in brokers(kafka.tls, kafka_security_protocol="SSL", kafka_ssl_ca=kafka.authority).topics()
    with pytest.raises(ConfigError, match=r"certificate verify failed.*KAFKA_SSL_CA"):
        brokers(kafka.tls, kafka_security_protocol="SSL").topics()


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"group.id": "x"}, "group.id cannot be set: another setting"),
        ({"sasl.password": "secret"}, "the setting kafka_sasl_password does"),
        ({"enable.auto.commit": "true"}, "a guarantee depends on it"),
        ({"acks": "0"}, "a guarantee depends on it"),
        ({"plugin.library.paths": "evil.so"}, "would run other programs"),
        ({"sasl.kerberos.kinit.cmd": "rm"}, "would run other programs"),
        ({"ssl.engine.location": "evil.so"}, "would run other programs"),
        ({"error_cb": "x"}, "none of librdkafka's"),
        ({"logger": "x"}, "none of librdkafka's"),
        ({"no.such.property": "x"}, 'No such configuration property: "no.such.property".*asof.toml'),
        ({"session.timeout.ms": "secret"}, 'Invalid value for configuration property "session.timeout.ms".*asof.toml'),
        ({"ssl.ca.pem": "secret"}, "asof.toml|KAFKA_SSL"),
    ],
)
def test_a_property_that_would_break_a_promise_or_open_a_hole_is_refused(properties: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        brokers("127.0.0.1:1", kafka=properties, kafka_security_protocol="SSL")
    assert "secret" not in str(refused.value)


def test_other_properties_reach_librdkafka(kafka: Kafka) -> None:
    assert brokers(kafka.bootstrap, kafka={"client.rack": "a", "fetch.wait.max.ms": "50"}).properties()["client.rack"] == "a"
    assert brokers(kafka.bootstrap, kafka={"client.rack": "a", "fetch.wait.max.ms": "50"}).topics() is not None


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"kafka_ssl_ca: there is no file /nowhere.pem"):
        brokers("127.0.0.1:1", kafka_security_protocol="SSL", kafka_ssl_ca="/nowhere.pem")


def test_offsets_are_the_ends_of_partitions_and_those_of_times(kafka: Kafka) -> None:
    topic = kafka.topic(2)
    kafka.write(topic, b"a", b"b", partition=0)
    both = [Partition(topic, 0), Partition(topic, 1)]
    asked = brokers(kafka.bootstrap)
    assert list(asked.offsets(both, "latest").values()) == [2, 0]
    assert list(asked.offsets(both, "earliest").values()) == [0, 0]
    assert asked.offsets([], "latest") == {}
    if kafka.real:
        assert list(asked.offsets(both, "2020-01-01T00:00:00Z").values()) == [0, 0]
        assert list(asked.offsets(both, "2090-01-01T00:00:00+01:00").values()) == [2, 0]


def test_a_producer_answers_for_every_message(kafka: Kafka, closed_port: str) -> None:
    topic = kafka.topic(1)
    messages = [Outgoing(topic, b"k", value, [("h", b"1")]) for value in (b"small", b"x" * 2_000_000, None)]
    if kafka.real:
        assert Producer(brokers(kafka.bootstrap)).send(messages) == [1]
        assert [(m.key(), m.value(), m.headers()) for m in kafka.read(topic)] == [(b"k", v, [("h", b"1")]) for v in (b"small", None)]
    with pytest.raises(BrokerError, match="did not take a message"):
        Producer(brokers(closed_port, kafka={"message.timeout.ms": "300"})).send(messages)


def test_a_connection_that_fails_again_and_again_is_told_once_in_a_while(closed_port: str, caplog: pytest.LogCaptureFixture) -> None:
    log = Lines()
    asked = Brokers(Settings(kafka_bootstrap_servers=closed_port), log)
    for _ in range(3):
        with pytest.raises(BrokerError):
            asked.topics()
    assert [event for event, facts in log.lines if "Connection refused" in str(facts)] == ["a connection to a broker failed"]
    assert not caplog.records
