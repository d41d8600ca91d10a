"""Kafka for the tests: a broker of Apache Kafka, shared by all workers of a run, or the one that `ASOF_TEST_KAFKA` names.

It comes from Maven Central, once, into a cache folder, and listens on the loopback alone. Where there is no Java or no Maven, the mock
cluster that librdkafka has inside takes its place, and tests that need more than that are skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

VERSION = "4.4.0"
"""The newest that runs on Java 17."""
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>asof</groupId>
  <artifactId>broker-of-the-tests</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
  </dependencies>
</project>
"""
USER, PASSWORD = "asof", "pass-w0rd"
STORE_PASSWORD = "certificate"
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "controller.quorum.bootstrap.servers": "127.0.0.1:{controller}",
    "listeners": "PLAINTEXT://127.0.0.1:{plain},LOGIN://127.0.0.1:{login},TLS://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}",
    "advertised.listeners": "PLAINTEXT://127.0.0.1:{plain},LOGIN://127.0.0.1:{login},TLS://127.0.0.1:{tls}",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "listener.name.login.plain.sasl.jaas.config": (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
    ),
    "listener.name.tls.ssl.keystore.location": "{folder}/broker.p12",
    "listener.name.tls.ssl.keystore.password": STORE_PASSWORD,
    "log.dirs": "{folder}/data",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "100",
    "log.segment.delete.delay.ms": "0",
}
JAVA = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
WATCH = """
import fcntl, os, signal, sys
with open(sys.argv[1], "a") as users:
    fcntl.flock(users, fcntl.LOCK_EX)  # when nobody holds it any more, however they ended
try:
    os.kill(int(sys.argv[2]), signal.SIGTERM)
except ProcessLookupError:
    pass
"""
"""Ends a shared broker after its last user."""
_outliving: list[object] = []
"""Processes that may still be there when this one ends."""


MOCK_PARTITIONS = 4
"""The partitions of every topic of a mock cluster."""


@dataclass
class Kafka:
    """A broker, and what tests ask of it. `server` is there where it is a process of ours."""

    bootstrap: str
    real: bool = True
    login: str = ""
    tls: str = ""
    authority: str = ""
    server: Server | None = None
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        quiet = {"bootstrap.servers": self.bootstrap, "log_level": 0}
        self.admin = AdminClient(quiet)
        self.producer = confluent_kafka.Producer(quiet | {"linger.ms": 5, "message.max.bytes": 50_000_000})

    def name(self) -> str:
        """A name that no topic and no group has."""
        return f"asof-test-{os.getpid()}-{next(self.numbers)}-{time.time_ns()}"

    def topic(self, partitions: int = MOCK_PARTITIONS, **config: str) -> str:
        """A new topic. The mock cluster makes one, and one for its dead letters, when it is asked for it."""
        name = self.name()
        if not self.real:
            self.needs_real("topics of the mock cluster are all alike", partitions != MOCK_PARTITIONS or config)
            for made in (name, f"{name}.dlq"):
                self.admin.list_topics(made, timeout=10)
            return name
        options = {key.replace("_", "."): value for key, value in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, config=options)])[name].result()
        return name

    def needs_real(self, why: str, so: object = True) -> None:
        """Skip a test where it needs a real broker and there is none."""
        if so and not self.real:
            pytest.skip(f"{why}; {missing()}")

    def write(self, topic: str, *values: bytes | None, key: bytes | None = None, **options: object) -> None:
        """Write messages, and wait until the broker has them."""
        lost: list[object] = []
        for number, value in enumerate(values):
            if number % 10_000 == 0:
                self.producer.flush(30)  # its queue has an end
            self.producer.produce(topic, value, key, on_delivery=lambda error, _: lost.append(error) if error else None, **options)
        self.producer.flush(30)
        assert lost == []

    def ends(self, topic: str) -> dict[int, int]:
        """How many messages each partition of a topic has."""
        client = confluent_kafka.Consumer({"bootstrap.servers": self.bootstrap, "group.id": "look", "log_level": 0})
        partitions = client.list_topics(topic, timeout=10).topics[topic].partitions
        found = {
            number: client.get_watermark_offsets(confluent_kafka.TopicPartition(topic, number), timeout=10)[1] for number in partitions
        }
        client.close()
        return found

    def read(self, topic: str) -> list[confluent_kafka.Message]:
        """All messages of a topic."""
        options = {"bootstrap.servers": self.bootstrap, "group.id": "look", "enable.auto.commit": False, "enable.partition.eof": True}
        client, found = confluent_kafka.Consumer(options), []
        partitions = client.list_topics(topic, timeout=10).topics[topic].partitions
        client.assign([confluent_kafka.TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING) for number in partitions])
        open_ones = set(partitions)
        while open_ones:
            message = client.poll(10)
            assert message is not None
            if message.error():
                open_ones.discard(message.partition())
            else:
                found.append(message)
        client.close()
        return found


@dataclass
class Server:
    """A broker's process: its folder and its ports."""

    folder: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            command = ["java", *JAVA, "-cp", f"{libraries()}/*", "kafka.Kafka", str(self.folder / "server.properties")]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        until = time.monotonic() + 60
        while True:
            with suppress(confluent_kafka.KafkaException):
                if admin.list_topics(timeout=1).controller_id >= 0:
                    return
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, "the broker does not answer"
            time.sleep(0.1)

    @property
    def bootstrap(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.ports['plain']}"

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, in good order or as a crash would."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(60)


def cache() -> Path:
    """Where the broker's libraries are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asof" / f"kafka-{VERSION}"


def libraries() -> Path:
    """The folder of the broker's libraries."""
    return cache() / "libs"


def missing() -> str:
    """What is missing for a real broker."""
    lacking = [program for program in ("java", "mvn") if shutil.which(program) is None]
    mend = "apt-get install default-jre-headless maven, or name a running broker with ASOF_TEST_KAFKA"
    return f"there is no {' and no '.join(lacking)}: {mend}" if lacking else ""


@contextmanager
def locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """A lock that goes with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield


def download() -> None:
    """Have Maven put the broker and all that it needs into the cache folder, once."""
    with locked(cache() / "lock"):
        if libraries().exists():
            return
        (cache() / "pom.xml").write_text(POM)
        scratch = cache() / "scratch"
        command = ["mvn", "-q", "-B", "-C", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={scratch}"]
        subprocess.run(command, cwd=cache(), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=600)
        scratch.rename(libraries())


def make_server(folder: Path) -> Server:
    """A broker that is ready to start."""
    download()
    with ExitStack() as stack:
        probes = {name: stack.enter_context(socket.socket()) for name in ("plain", "login", "tls", "controller")}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        ports = {name: probe.getsockname()[1] for name, probe in probes.items()}
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value.format(folder=folder, **ports)}\n" for name, value in SETTINGS.items()))
    store = ["-keystore", str(folder / "broker.p12"), "-storepass", STORE_PASSWORD, "-alias", "broker"]
    _run("keytool", "-genkeypair", *store, "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "SAN=ip:127.0.0.1", "-validity", "2")
    _run("keytool", "-exportcert", *store, "-rfc", "-file", str(folder / "authority.pem"))
    identity = "AAAAAAAAAAAAAAAAAAAAAA"
    format_it = ["kafka.tools.StorageTool", "format", "--standalone", "-t", identity, "-c", str(properties)]
    _run("java", *JAVA, "-cp", f"{libraries()}/*", *format_it)
    return Server(folder, ports)


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def of(server: Server) -> Kafka:
    """A broker that runs."""
    login, tls = (f"127.0.0.1:{server.ports[name]}" for name in ("login", "tls"))
    return Kafka(server.bootstrap, True, login, tls, str(server.folder / "authority.pem"), server)


@contextmanager
def private() -> Iterator[Kafka]:
    """A broker that is there for the block alone."""
    if lacking := missing():
        pytest.skip(f"this needs a real broker; {lacking}")
    folder = Path(tempfile.mkdtemp(prefix="asof-kafka-"))
    server = make_server(folder)
    try:
        server.start()
        yield of(server)
    finally:
        if server.process is not None:
            server.end(signal.SIGKILL)
        shutil.rmtree(folder)


@contextmanager
def shared(folder: Path) -> Iterator[Kafka]:
    """A broker for all who name this folder, started by the first of them. It ends after the last one."""
    with locked(folder / "users", fcntl.LOCK_SH):
        said = folder / "server.json"
        with locked(folder / "starting"):
            if not said.exists():
                server = make_server(folder)
                server.start()
                assert server.process is not None
                watch = [sys.executable, "-c", WATCH, str(folder / "users"), str(server.process.pid)]
                _outliving.append((server.process, subprocess.Popen(watch, stdin=subprocess.DEVNULL, start_new_session=True)))
                said.write_text(json.dumps(server.ports))
        yield of(Server(folder, json.loads(said.read_text())))


@contextmanager
def mocked() -> Iterator[Kafka]:
    """librdkafka's mock cluster, which lives as long as the client that holds it."""
    holder = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
    (broker,) = holder.list_topics(timeout=10).brokers.values()
    yield Kafka(f"{broker.host}:{broker.port}", real=False)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker."""
    base = tmp_path_factory.getbasetemp()
    if bootstrap := os.environ.get("ASOF_TEST_KAFKA"):
        yield Kafka(bootstrap)
    elif missing():
        with mocked() as mock:
            yield mock
    else:
        with shared((base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "kafka") as broker:
            yield broker
