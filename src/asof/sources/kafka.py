"""Kafka's brokers, by librdkafka: what reaches them, their topics, and their errors as ours.

What librdkafka has to say goes to the logger `asof.librdkafka`, and what is an error to ours as well. Reading is in `kafka_consumer`,
writing in `kafka_producer`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from asof.config import ConfigError, Settings
from asof.errors import AsofError, BrokerError
from asof.sources.dead_letters import Header

Message = confluent_kafka.Message
"""A message as it was read."""
Properties = dict[str, Any]
"""What librdkafka takes: texts, numbers, switches and callbacks."""

SETTINGS = {
    "bootstrap.servers": "kafka_bootstrap_servers",
    "security.protocol": "kafka_security_protocol",
    "sasl.mechanism": "kafka_sasl_mechanism",
    "sasl.username": "kafka_sasl_username",
    "sasl.password": "kafka_sasl_password",
    "ssl.ca.location": "kafka_ssl_ca",
    "ssl.certificate.location": "kafka_ssl_certificate",
    "ssl.key.location": "kafka_ssl_key",
}
"""The properties that have settings of their own."""

LARGEST = 100_000_000
"""Bytes of the largest message that is written, which are those that a consumer takes at once."""
CONSUMER: Properties = {
    "auto.offset.reset": "error",  # then it is said, counted, and read from the earliest
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "partition.assignment.strategy": "cooperative-sticky",
}
PRODUCER: Properties = {"acks": "all"}
"""What the guarantees depend on."""
CONSUMER_DEFAULTS: Properties = {
    "session.timeout.ms": 10_000,  # a crashed reader's partitions wait so long for their next one; librdkafka's 45 s is long
    "topic.metadata.refresh.interval.ms": 30_000,  # a topic that is made later is found so soon
    "queued.max.messages.kbytes": 16_384,  # how much is read ahead
    "fetch.queue.backoff.ms": 10,  # librdkafka waits a second before it goes on after that much
}
PRODUCER_DEFAULTS: Properties = {
    "message.timeout.ms": 10_000,
    "message.max.bytes": LARGEST,
}
"""What `[kafka]` may change."""

TAKEN = {"group.id", "group.protocol", "metadata.broker.list", "request.required.acks", "sasl.mechanisms", *SETTINGS, *CONSUMER, *PRODUCER}
"""What `[kafka]` cannot set, for it is set elsewhere or a guarantee depends on it."""
CODE = {"plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "ssl.providers"}
"""What `[kafka]` cannot set, for it names programs and libraries that would run."""
_NAME = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)+|debug")

WRONG_SETTING = {
    KafkaError._AUTHENTICATION: "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM",
    KafkaError._SSL: "check KAFKA_SECURITY_PROTOCOL and the files of KAFKA_SSL_CA, KAFKA_SSL_CERTIFICATE and KAFKA_SSL_KEY",
    KafkaError._INVALID_ARG: "correct it in the environment or asof.toml",
}
"""The errors that no waiting mends, and what does."""
UNREACHED = "is the broker running, and are KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL right?"
DENIED = "let who runs the broker allow it to this user"
MENDS = {
    KafkaError._TRANSPORT: UNREACHED,
    KafkaError._RESOLVE: UNREACHED,
    KafkaError._ALL_BROKERS_DOWN: UNREACHED,
    KafkaError._TIMED_OUT: UNREACHED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: DENIED,
    KafkaError.GROUP_AUTHORIZATION_FAILED: DENIED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: DENIED,
    KafkaError.UNKNOWN_TOPIC_OR_PART: "make the topic, or let asof make it",
}
"""What mends others, where the broker does not say it."""

ASK_SECONDS = 5.0
"""How long to wait for a broker's answer."""
QUIET_SECONDS = 10.0
"""How long the same is not said again."""
_library_log = logging.getLogger("asof.librdkafka")
_library_log.addHandler(logging.NullHandler())
_library_log.addFilter(lambda record: not any(word in record.getMessage() for word in ("CONFWARN", "FAIL")))
"""Not shown are properties of producers that consumers are given, and theirs; and failed connections, which `Brokers` tells of."""


class Log(Protocol):
    """Where to say what happens: structlog's loggers, and any like them."""

    def info(self, event: str, **facts: object) -> object:
        """What is as it should be."""
        ...

    def warning(self, event: str, **facts: object) -> object:
        """What may pass by itself."""
        ...

    def error(self, event: str, **facts: object) -> object:
        """What somebody should look at."""
        ...


class Silent:
    """Logs nothing: what ends a command is its error message."""

    def info(self, event: str, **facts: object) -> None:
        """Nothing."""

    warning = error = info


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int

    def at(self, offset: int = confluent_kafka.OFFSET_INVALID) -> TopicPartition:
        """As librdkafka has it."""
        return TopicPartition(self.topic, self.number, offset)


def partition_of(found: Message | TopicPartition) -> Partition:
    """The partition of a message."""
    if isinstance(found, TopicPartition):
        return Partition(found.topic, found.partition)
    topic, number = found.topic(), found.partition()
    assert topic is not None
    assert number is not None
    return Partition(topic, number)


def headers_of(message: Message) -> list[Header]:
    """The headers of a message."""
    return cast("list[Header]", message.headers() or [])  # its type allows for what only a producer may give


class Brokers:
    """The brokers that the settings name. Raises `ConfigError` for settings that librdkafka does not take."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.servers = settings.kafka_bootstrap_servers
        self._log = log
        self._said: KafkaError | None = None
        self._said_at: dict[int, float] = {}
        self._properties = _given(settings)
        with self.errors("cannot be used"):
            self._admin = AdminClient(self.properties())

    def properties(self, ours: Properties | None = None, defaults: Properties | None = None) -> Properties:
        """The properties of a client: its defaults, what the settings say, and those that are not theirs to say."""
        return {**(defaults or {}), **self._properties, **(ours or {}), "logger": _library_log, "error_cb": self._notice}

    def _notice(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # that says less than what was said before it
            self._said = error
            if time.monotonic() > self._said_at.get(error.code(), -QUIET_SECONDS) + QUIET_SECONDS:
                self._said_at[error.code()] = time.monotonic()
                self._log.warning("a connection to a broker failed", error=error.str())

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """librdkafka's errors as ours: a `ConfigError` where a setting is wrong, else a `BrokerError`."""
        try:
            yield
        except KafkaException as error:
            raise self.error(error.args[0], doing) from error

    def error(self, error: KafkaError, doing: str) -> AsofError:
        """What librdkafka said, with what mends it. Where it could not reach a broker, what it said last tells more."""
        if error.code() in MENDS and MENDS[error.code()] is UNREACHED and self._said is not None:
            error, self._said = self._said, None
        if mend := WRONG_SETTING.get(error.code()):
            return ConfigError(f"{self.servers} {doing}: {error.str()}; {mend}")
        mend = MENDS.get(error.code())
        return BrokerError(f"{self.servers} {doing}: {error.str()}{f'; {mend}' if mend else ''}")

    def topics(self) -> dict[str, list[Partition]]:
        """The topics and their partitions. Raises `BrokerError` where no broker answers."""
        self._said, until = None, time.monotonic() + ASK_SECONDS
        found = None
        while found is None:
            try:
                found = self._admin.list_topics(timeout=1).topics
            except KafkaException as error:
                self._admin.poll(0)  # what was said meanwhile
                if self._said is not None or time.monotonic() > until:
                    raise self.error(error.args[0], "cannot be reached") from error
        return {name: [Partition(name, number) for number in topic.partitions] for name, topic in found.items()}

    def offsets(self, partitions: Iterable[Partition], of: str) -> dict[Partition, int]:
        """The `earliest` or `latest` offsets of partitions, or the first ones since a time: the latest, where nothing is since."""
        if of in ("earliest", "latest"):
            spec = OffsetSpec.earliest() if of == "earliest" else OffsetSpec.latest()
        else:
            spec = OffsetSpec.for_timestamp(int(datetime.fromisoformat(of).timestamp() * 1_000))
        asked = {partition.at(): spec for partition in partitions}
        if not asked:
            return {}
        with self.errors("cannot be asked for offsets"):
            answers = self._admin.list_offsets(asked, request_timeout=ASK_SECONDS)
            found = {partition_of(p): answer.result().offset for p, answer in answers.items()}
        none_since = [partition for partition, offset in found.items() if offset < 0]
        return found | self.offsets(none_since, "latest")

    def ensure(self, topic: str, partitions: int, **configuration: str) -> None:
        """Make a topic that is not there; where that is refused it is said, and who needs the topic waits for it."""
        if topic in self.topics():
            return
        wanted = NewTopic(topic, partitions, config={name.replace("_", "."): value for name, value in configuration.items()})
        try:
            self._admin.create_topics([wanted], request_timeout=ASK_SECONDS)[topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                self._log.warning("the topic is not there and cannot be made", topic=topic, error=error.args[0].str(), mend=DENIED)
        else:
            self._log.info("made the topic", topic=topic, partitions=partitions)


def _given(settings: Settings) -> Properties:
    """The properties that the settings say."""
    said: Properties = {"client.id": "asof"}
    for name, secret in settings.kafka.items():
        if name in TAKEN:
            raise ConfigError(f"kafka property {name} cannot be set: {_instead(name)}")
        if name in CODE or not _NAME.fullmatch(name):
            raise ConfigError(f"kafka property {name} cannot be set: it is none of librdkafka's, or would run other programs")
        said[name] = secret.get_secret_value()
    for name, setting in SETTINGS.items():
        value = getattr(settings, setting)
        if isinstance(value, Path) and not value.is_file():
            raise ConfigError(f"setting {setting}: there is no file {value}")
        if value is not None:
            said[name] = value.get_secret_value() if name == "sasl.password" else str(value)
    return said


def _instead(name: str) -> str:
    return f"the setting {SETTINGS[name]} does" if name in SETTINGS else "another setting says it, or a guarantee depends on it"
