"""Kafka for tests: the real one, Apache Kafka with KRaft, one node; and librdkafka's mock of it, which needs nothing.

Most tests share one real broker, which every process that runs tests starts once, when the first test asks for it:

    def test_it(kafka):                            # fixture in tests/conftest.py; skips where Kafka is missing
        results = kafka.topic("results")           # a topic of the test's own, made now; `partitions=3` for more
        settings = {"bootstrap_servers": kafka.plaintext}
        kafka.send(results, b"key", b"value")
        [message] = kafka.messages(results, 1)     # waits until there are that many
        assert kafka.committed("group", results) == 1

`kafka.plaintext`, `.sasl_plaintext`, `.sasl_ssl` and `.mtls` are its listeners, as `host:port`. Over plaintext
everybody may do everything. Over SASL `kafka.user` and `kafka.password` enter, by PLAIN, SCRAM-SHA-256 and
SCRAM-SHA-512; over mTLS the certificate `kafka.certificate` with `kafka.key`, which `kafka.ca` has signed. Such a user
may do nothing until `kafka.allow(topic, "READ", "WRITE")` and `kafka.allow_group(group)` say so; `kafka.deny(topic)`
takes it back. A test leaves none of this behind that another could meet: names of topics and groups are its own.

`kafka.expiring` is another user, who may do the same, and whose password `kafka.set_password` gives and changes. Who is
at `.sasl_plaintext` by SCRAM-SHA-512 has to log in again every second and a half, on the connection that is open.

A test that stops, kills or starts the broker has one of its own, for it would take it from the others:

    async with Kafka(tmp_path) as kafka:           # `secure=True` for the listeners that are not plaintext
        kafka.kill(); await kafka.start()          # again at the same ports, with what it had
        await kafka.stop()

A start takes a second or two. `mock_kafka()` takes no time: a cluster inside this process, with sockets of its own. It
knows topics, groups and offsets, and no SASL, TLS or ACLs; what it does otherwise shows in a test against the real one.
"""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.kit.certificates import Authority
from tests.kit.ports import free_port

HOST = "127.0.0.1"
POM = Path(__file__).with_name("kafka-pom.xml")
VERSION = ET.parse(POM).find(".//{*}dependency/{*}version").text
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sems-gateway" / f"kafka-{VERSION}"
"""Where tests/programs puts it."""
USUAL_PARTITIONS = 3
"""Of a topic that a client has made by asking for it."""
LARGEST = 16 * 1024 * 1024
CLUSTER = "c2Vtcy1nYXRld2F5LXRlc3"
USER, PASSWORD = "alice", "alice-secret"
EXPIRING = "bob"
REAUTH_MS = 1500
PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "num.partitions": str(USUAL_PARTITIONS),
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "1",
    "log.cleaner.enable": "false",
    # Started anew after a kill, it waits until the one before is given up.
    "broker.heartbeat.interval.ms": "200",
    "broker.session.timeout.ms": "1000",
    "message.max.bytes": str(LARGEST),
}
JAVA = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Xlog:disable",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dlog4j2.loggerContextFactory=org.apache.logging.log4j.simple.SimpleLoggerContextFactory",
)


def need_kafka():
    """Return the program that runs it; skip the test where it is missing, or fail where nothing may be skipped."""
    java = shutil.which("java")
    if java is None or not (CACHE / f"kafka_2.13-{VERSION}.jar").exists():
        text = "Apache Kafka is not installed (tests/programs does it, with Maven; Debian: default-jre-headless maven)"
        pytest.fail(text) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(text)
    return java


class _Client:
    """What tests do at any cluster, real or not, over its open listener."""

    plaintext = ""
    takes_large = True
    """Messages of more than a megabyte."""

    def topic(self, name="topic", partitions=1, **config):
        """Make a topic whose name begins so and that nobody else has; return its name."""
        topic = f"{name}.{uuid.uuid4().hex[:8]}"
        self.make(topic, partitions=partitions, **config)
        return topic

    def make(self, *topics, partitions=1, **config):
        """Make topics. They are there when this returns."""
        config = {name.replace("_", "."): str(value) for name, value in config.items()}
        made = [NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config) for topic in topics]
        for future in self._admin.create_topics(made).values():
            future.result(20)

    def make_again(self, topic, partitions=1):
        """Delete a topic and make it again: it has another id then, and its offsets begin at 0."""
        for future in self._admin.delete_topics([topic]).values():
            future.result(60)
        deadline = time.monotonic() + 120
        while topic in self.there():
            assert time.monotonic() < deadline, f"{topic} is still there"
            time.sleep(0.02)
        try:
            self.make(topic, partitions=partitions)
        except KafkaException as error:  # a client that asked for it was quicker, and got the broker's usual number
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            if partitions > USUAL_PARTITIONS:
                self.more_partitions(partitions, topic)

    def more_partitions(self, partitions, *topics):
        """Give topics so many partitions."""
        for future in self._admin.create_partitions([NewPartitions(topic, partitions) for topic in topics]).values():
            future.result(60)

    def delete_before(self, topic, offset, partition=0):
        """Delete what is before an offset, as retention does."""
        for future in self._admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            future.result(60)

    def place(self, group, topic, offset, partition=0, mark=""):
        """Have a group without members go on from an offset."""
        consumer = Consumer({"bootstrap.servers": self.plaintext, "group.id": group})
        try:
            consumer.commit(offsets=[TopicPartition(topic, partition, offset, mark)], asynchronous=False)
        finally:
            consumer.close()

    def there(self):
        """Return the names of all topics."""
        return set(self._admin.list_topics(timeout=120).topics)

    def send(self, topic, key, *values):
        """Produce values, and wait until all are there."""
        for value in values:
            self._producer.produce(topic, value, key)
        assert self._producer.flush(20) == 0

    def send_to(self, topic, partition, *values):
        """Produce values to one partition, also of those that were added just now."""
        producer = Producer({"bootstrap.servers": self.plaintext})
        producer.list_topics(topic, 60)
        for value in values:
            producer.produce(topic, value, b"key", partition=partition)
        assert producer.flush(60) == 0

    def messages(self, topic, count, timeout=120.0):
        """Return all messages of a topic, oldest first in each partition, once there are that many."""
        settings = {"group.id": "test", "enable.auto.commit": False, "fetch.wait.max.ms": 5}
        consumer = Consumer({"bootstrap.servers": self.plaintext, **settings})
        try:
            partitions = consumer.list_topics(topic, timeout).topics[topic].partitions
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            found, deadline = [], time.monotonic() + timeout
            while len(found) < count:
                assert time.monotonic() < deadline, f"{len(found)} messages of {count} came to {topic}"
                message = consumer.poll(0.05)
                if message is not None:
                    assert message.error() is None, message.error()
                    found.append(message)
            return found
        finally:
            consumer.close()

    def committed(self, group, topic, partition=0):
        """Return the offset that a group goes on from; None where it has committed nothing."""
        [found] = self.places(group, topic, partition)
        return found.offset if found.offset >= 0 else None

    def places(self, group, topic, *partitions):
        """Return what a group has committed, with what stands beside it; of partition 0 where none is named."""
        consumer = Consumer({"bootstrap.servers": self.plaintext, "group.id": group})
        try:
            return consumer.committed([TopicPartition(topic, partition) for partition in partitions or (0,)], 20)
        finally:
            consumer.close()

    @property
    def _admin(self):
        return self._kept("_admin_client", lambda: AdminClient({"bootstrap.servers": self.plaintext}))

    @property
    def _producer(self):
        return self._kept(
            "_producer_client",
            lambda: Producer({"bootstrap.servers": self.plaintext, "linger.ms": 0, "message.max.bytes": LARGEST}),
        )

    def _kept(self, name, make):
        if name not in self.__dict__:
            self.__dict__[name] = make()
        return self.__dict__[name]

    def _let_go(self):
        self.__dict__.pop("_admin_client", None)
        self.__dict__.pop("_producer_client", None)


class Kafka(_Client):
    """One broker on loopback, on ports of the kernel, that keeps them and its data over a stop."""

    def __init__(self, directory, *, secure=False, **extra):
        self.directory = Path(directory)
        self.process = None
        self._java = need_kafka()
        self._secure = secure
        self._log = self.directory / "kafka.log"
        self._settings = self.directory / "server.properties"
        names = ["PLAINTEXT", "CONTROLLER", *(["SASL_PLAINTEXT", "SASL_SSL", "SSL"] if secure else [])]
        self._addresses = {name: f"{HOST}:{free_port()}" for name in names}
        self._lines = SETTINGS | self._listeners() | {name.replace("_", "."): value for name, value in extra.items()}
        if secure:
            authority = Authority(self.directory)
            self.ca = authority.pem
            self.certificate, self.key = authority.sign("device")
            pem, key = authority.sign("broker", server=True)
            store = self.directory / "broker-store.pem"
            store.write_bytes(key.read_bytes() + pem.read_bytes())
            self._lines |= self._security(store)
        self.user, self.password, self.expiring = USER, PASSWORD, EXPIRING

    plaintext = property(lambda self: self._addresses["PLAINTEXT"])
    sasl_plaintext = property(lambda self: self._addresses["SASL_PLAINTEXT"])
    sasl_ssl = property(lambda self: self._addresses["SASL_SSL"])
    mtls = property(lambda self: self._addresses["SSL"])

    def _listeners(self):
        listeners = ",".join(f"{name}://{address}" for name, address in self._addresses.items())
        return {
            "listeners": listeners,
            "advertised.listeners": ",".join(part for part in listeners.split(",") if "CONTROLLER" not in part),
            "listener.security.protocol.map": ",".join(
                f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in self._addresses
            ),
            "controller.quorum.bootstrap.servers": self._addresses["CONTROLLER"],
            "log.dirs": str(self.directory / "data"),
        }

    def _security(self, store):
        plain = f'{PLAIN_LOGIN} required user_{USER}="{PASSWORD}";'
        settings = {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.sasl_plaintext.scram-sha-512.connections.max.reauth.ms": str(REAUTH_MS),
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            settings[f"listener.name.{listener}.plain.sasl.jaas.config"] = plain
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                settings[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = f"{SCRAM_LOGIN} required;"
        return settings

    # running it

    def launch(self, timeout=60.0):
        """Start it and wait until it answers, without a loop. It has what it had."""
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in self._lines.items()))
        if not (self.directory / "data").exists():
            self._format()
        archive = self._archive("broker")
        with self._log.open("ab") as log:
            command = [*self._command(archive), "kafka.Kafka", str(self._settings)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + timeout
        while not self._answers():
            assert self.process.poll() is None, f"Kafka does not start:\n{self._log.read_text()}"
            assert time.monotonic() < deadline, f"Kafka does not answer:\n{self._log.read_text()}"
            time.sleep(0.02)

    async def start(self):
        """The same, while a loop runs."""
        await asyncio.to_thread(self.launch)

    def end(self, number=signal.SIGTERM):
        """Stop it, without a loop; return when it is gone."""
        self._let_go()
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None
            self._keep_archive("broker")

    async def stop(self):
        """The same, while a loop runs."""
        await asyncio.to_thread(self.end)

    def kill(self):
        """End it as a power cut would."""
        self.end(signal.SIGKILL)

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    def _answers(self):
        # A probe of its own each time: one that met a closed port would wait before it tries again.
        try:
            AdminClient({"bootstrap.servers": self.plaintext, "log_level": 0}).list_topics(timeout=0.3)
        except KafkaException:
            return False
        return True

    def _format(self):
        arguments = ["format", "--standalone", "--cluster-id", CLUSTER, "--config", str(self._settings)]
        if self._secure:
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                arguments += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
        command = [*self._command(self._archive("format")), "kafka.tools.StorageTool", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        self._keep_archive("format")

    # The JVM loads its classes from an archive of its own making, which is most of the time of a start. The first
    # run of each program leaves one behind.

    def _archive(self, program):
        java = Path(self._java).resolve()
        stamp = hashlib.sha256(f"{java} {java.stat().st_mtime_ns}".encode()).hexdigest()[:12]
        return CACHE / f"{program}-{stamp}.jsa"

    def _command(self, archive):
        way = "SharedArchiveFile" if archive.exists() else "ArchiveClassesAtExit"
        file = archive if archive.exists() else self.directory / archive.name
        return [self._java, *JAVA, f"-XX:{way}={file}", "-cp", f"{CACHE}/*"]

    def _keep_archive(self, program):
        archive = self._archive(program)
        made = self.directory / archive.name
        if made.exists():
            part = archive.with_suffix(f".{os.getpid()}")
            shutil.copyfile(made, part)
            part.replace(archive)
            made.unlink()

    def move(self):
        """Have it at another port from its next start on, as the same cluster with what it had."""
        self._addresses["PLAINTEXT"] = f"{HOST}:{free_port()}"
        self._lines |= self._listeners()

    # who may do what

    def set_password(self, password):
        """Give the user whose password expires a new one; the one before is good for nothing from then on."""
        way = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(EXPIRING, way, password.encode())
        for future in self._admin.alter_user_scram_credentials([change]).values():
            future.result(60)

    def allow(self, topic, *operations):
        """Let all users READ, WRITE, DESCRIBE, CREATE … a topic."""
        self._acls([self._binding(p, ResourceType.TOPIC, topic, o) for p in self._principals for o in operations])

    def allow_group(self, group):
        """Let all users be members of a group."""
        self._acls([self._binding(p, ResourceType.GROUP, group, "READ") for p in self._principals])

    def deny(self, topic):
        """Take back what they may do with a topic."""
        anything = (None, None, AclOperation.ANY, AclPermissionType.ANY)
        wanted = AclBindingFilter(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, *anything)
        for future in self._admin.delete_acls([wanted]).values():
            future.result(20)

    @property
    def _principals(self):
        return (f"User:{USER}", f"User:{EXPIRING}", "User:CN=device")

    @staticmethod
    def _binding(principal, kind, name, operation):
        return AclBinding(
            kind, name, ResourcePatternType.LITERAL, principal, "*", AclOperation[operation], AclPermissionType.ALLOW
        )

    def _acls(self, bindings):
        for future in self._admin.create_acls(bindings).values():
            future.result(20)


class MockKafka(_Client):
    """librdkafka's mock cluster. Its brokers live as long as the client that has them."""

    takes_large = False

    def __init__(self):
        self._cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
        [broker] = self._cluster.list_topics(timeout=5).brokers.values()
        self.plaintext = f"{broker.host}:{broker.port}"

    def make(self, *topics, partitions=4, **config):
        """Have topics, by asking for them."""
        for topic in topics:
            self._cluster.list_topics(topic, 5)


@contextmanager
def mock_kafka():
    """A cluster in this process. Topics come to be when they are first used, with four partitions each."""
    cluster = MockKafka()
    try:
        yield cluster
    finally:
        cluster._let_go()


@asynccontextmanager
async def forwarder(target):
    """Give an address, `host:port`, that stays while a broker moves; `target()` says where that is now."""

    async def carry(reader, writer):
        with suppress(OSError):
            while some := await reader.read(65536):
                writer.write(some)
                await writer.drain()
        writer.close()

    async def take(reader, writer):
        host, port = target().split(":")
        try:
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, back), carry(there, writer))

    server = await asyncio.start_server(take, HOST, 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


@contextmanager
def shared(directory):
    """Run the broker that tests share: all its listeners are open."""
    broker = Kafka(directory, secure=True)
    broker.launch()
    try:
        yield broker
    finally:
        broker.end()
