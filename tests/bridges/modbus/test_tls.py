"""Modbus/TCP Security: certificates on both sides, and a role that decides who may write."""

import asyncio
import socket
import ssl

import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError
from pymodbus.client import AsyncModbusTlsClient

from gateway.bridges.modbus import ModbusBridge, ModbusSettings, tls
from gateway.bridges.modbus.counts import Refused
from tests.bridges.modbus.client import RawClient, frame, read, write_one
from tests.bridges.modbus.conftest import serving
from tests.kit.bench import Bench, until
from tests.kit.certificates import Authority, utf8_string

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def authority(tmp_path):
    directory = tmp_path / "pki"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture
def files(authority):
    certificate, key = authority.sign("server", server=True)
    return {
        "certificate": certificate,
        "key": key,
        "client_ca": authority.pem,
        "write_roles": ["operator"],
    }


@pytest.fixture
async def secure(tmp_path, files):
    async with serving(tmp_path, tls=files) as served:
        yield served


def client_context(authority, name="scada", **how):
    context = ssl.create_default_context(cafile=authority.pem)
    if how.pop("certificate", True):
        context.load_cert_chain(*authority.sign(name, **how))
    return context


async def connect(port, context):
    async with asyncio.timeout(120):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    return RawClient(reader, writer)


def logged(entries, event):
    return [entry for entry in entries if event in entry["event"]]


async def test_an_operator_reads_and_writes_and_the_command_says_who_it_was(secure, authority):
    client = await connect(secure.port, client_context(authority, role="operator"))
    assert await client.words(0) == [1]
    await client.ask(write_one(5801, 500))
    (command,) = await until(lambda: secure.bench.controller.sent)
    assert command.origin == f"modbus/operator:{client.name}"
    (connection,) = secure.bridge.listeners[0].connections
    assert (connection.role, connection.peer, connection.requests) == ("operator", client.name, 2)
    await client.close()
    await until(lambda: not secure.bridge.listeners[0].connections)


@pytest.mark.parametrize("role", [None, "viewer", "Operator", "", "operator\n", "x" * 65, b"\x04\x08operator", b"\x0c"])
async def test_who_has_no_role_that_may_write_only_reads(secure, authority, role):
    with structlog.testing.capture_logs() as entries:
        client = await connect(secure.port, client_context(authority, role=role))
        assert await client.words(0) == [1]
        assert await client.refused(write_one(5801, 500)) == 0x01
        assert await client.words(0) == [1]
        await client.close()
    (line,) = logged(entries, "write refused")
    assert "role" in line["why"]
    assert not secure.bench.controller.sent


async def test_without_write_roles_nobody_writes(tmp_path, authority, files):
    async with serving(tmp_path, tls=files | {"write_roles": []}) as served:
        client = await connect(served.port, client_context(authority, role="operator"))
        assert await client.refused(write_one(5801, 500)) == 0x01
        await client.close()


async def test_pymodbus_speaks_with_it(secure, authority):
    client = AsyncModbusTlsClient(
        "127.0.0.1", port=secure.port, sslctx=client_context(authority, role="operator"), timeout=60, retries=0
    )
    client.comm_params.host = "localhost"
    assert await client.connect()
    answer = await client.read_holding_registers(4, count=8, device_id=1)
    assert client.convert_from_registers(answer.registers, client.DATATYPE.STRING).startswith("9010KETU")
    assert not (await client.write_register(5801, 505, device_id=1)).isError()
    client.close()
    await until(lambda: secure.bench.controller.sent)


async def test_requests_right_behind_the_handshake_are_answered(secure, authority):
    """In TLS 1.3 a client's first data may come in the segment that ends the handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    speaker = client_context(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port)
    while True:
        try:
            speaker.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(65536))
    assert speaker.version() == "TLSv1.3"
    speaker.write(frame(read(0, 1), transaction=7) + frame(read(0, 1), transaction=8))
    writer.write(outgoing.read())
    plain = b""
    while len(plain) < 22:
        try:
            plain += speaker.read()
        except ssl.SSLWantReadError:
            incoming.write(await asyncio.wait_for(reader.read(65536), 120))
    assert plain[:2] + plain[11:13] == b"\0\7\0\x08"
    writer.close()


async def refused(served, count=1):
    await until(lambda: served.bridge.counts.refused[Refused.TLS] == count)
    await until(lambda: not served.bridge.listeners[0].seats)
    assert not served.bridge.listeners[0].connections


async def test_a_client_without_certificate_or_with_a_strange_one_is_refused(secure, authority, tmp_path):
    strange = tmp_path / "strange"
    strange.mkdir()
    other = Authority(strange)
    wrong = client_context(authority, certificate=False)
    wrong.load_cert_chain(*other.sign("scada", role="operator"))
    contexts = [
        client_context(authority, certificate=False),
        wrong,
        client_context(authority, "old", role="operator", days=-1, begins=-30),
        client_context(authority, "purpose", role="operator", server=True),
    ]
    with structlog.testing.capture_logs() as entries:
        for n, context in enumerate(contexts, 1):
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await (await connect(secure.port, context)).words(0)
            await refused(secure, n)
    (line,) = logged(entries, "connection refused")
    assert "tls" in line["setting"]
    assert "certificate" in line["why"]


async def test_tls_1_1_and_plain_modbus_are_refused(secure, authority):
    old = client_context(authority, role="operator")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        await connect(secure.port, old)
    await refused(secure, 1)
    async with secure.client() as plain:
        plain.send(frame(read(0, 1)))
        await plain.closed()
    await refused(secure, 2)
    client = await connect(secure.port, client_context(authority))
    assert await client.words(0) == [1]
    await client.close()


async def test_tls_1_2_is_enough(secure, authority):
    context = client_context(authority, role="operator")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = await connect(secure.port, context)
    await client.ask(write_one(5801, 500))
    await client.close()


async def test_a_client_that_never_ends_its_handshake_takes_a_place_and_loses_it_to_a_newer_one_or_in_time(
    tmp_path, authority, files, monkeypatch
):
    monkeypatch.setattr("gateway.http.acceptor.HANDSHAKE_TIMEOUT", 0.3)
    async with serving(tmp_path, tls=files, max_connections=1) as served:
        with socket.create_connection(("127.0.0.1", served.port)):
            await until(lambda: served.bridge.listeners[0].seats)
            async with served.client() as second:
                await until(lambda: served.bridge.counts.displaced[Refused.LIMIT] == 1)
                await second.closed()
            await refused(served)
        client = await connect(served.port, client_context(authority))
        assert await client.words(0) == [1]
        await client.close()


async def test_stopping_ends_handshakes_and_connections(tmp_path, authority, files):
    async with serving(tmp_path, tls=files) as served:
        client = await connect(served.port, client_context(authority))
        assert await client.words(0) == [1]
        async with served.client() as silent:
            await until(lambda: len(served.bridge.listeners[0].seats) == 2)
            async with asyncio.timeout(120):
                await served.runner.stop()
            await silent.closed()
        await client.closed()


async def test_strangers_get_no_handshake(tmp_path, files):
    async with serving(tmp_path, tls=files, allow=["192.0.2.0/24"]) as served, served.client() as client:
        assert await client.closed() == b""
        assert {reason: n for reason, n in served.bridge.counts.refused.items() if n} == {Refused.ALLOW: 1}
        assert not served.bridge.listeners[0].seats


async def test_a_plain_read_only_listener_beside_a_secure_one(tmp_path, authority, files):
    listeners = [{"port": 0, "tls": files}]
    async with serving(tmp_path, read_only=True, listeners=listeners) as served:
        own, further = served.bridge.listeners
        await served.publish(ac_power=77)
        secure = await connect(further.port, client_context(authority, role="operator"))
        async with served.client() as plain:
            assert own.port == served.port != further.port
            assert await plain.number("i", 1020) == await secure.number("i", 1020) == 77
            assert await plain.refused(write_one(5801, 500)) == 0x01
            await secure.ask(write_one(5801, 500))
        await secure.close()


# Settings and files


def why(settings):
    with pytest.raises(ValidationError) as caught:
        ModbusSettings(tls=settings)
    (error,) = caught.value.errors()
    assert error["loc"][0] == "tls"
    return error["msg"]


@pytest.mark.parametrize("setting", ["certificate", "key", "client_ca"])
def test_a_missing_or_strange_file_is_named(tmp_path, files, setting):
    assert f"tls.{setting}: {tmp_path}/none can't be read (No such file" in why(files | {setting: tmp_path / "none"})
    strange = tmp_path / "strange"
    strange.write_text("hello")
    assert f"tls.{setting}: {strange} holds no " in why(files | {setting: strange})


def test_a_key_of_another_certificate_is_told(authority, files):
    _, other = authority.sign("other", server=True)
    assert "does not belong to" in why(files | {"key": other})


def test_an_encrypted_key_is_told_and_nobody_asked_for_a_password(authority, files):
    key = serialization.load_pem_private_key(files["key"].read_bytes(), None)
    files["key"].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    assert "store it without a password" in why(files)


async def test_files_that_broke_since_keep_the_bridge_down_and_say_why(tmp_path, files):
    settings = ModbusSettings(port=0, tls=files)
    files["key"].unlink()
    async with Bench(tmp_path) as bench:
        runner = bench.run(ModbusBridge, settings, "scada")
        (status,) = await until(bench.router.bridges)
        assert not status.up
        assert "tls.key" in status.detail
        assert runner.bridge.port == 0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"days": -1, "begins": -30}, "expired on"),
        ({"days": 9}, "expires on"),
        ({"days": 99, "begins": 2}, "is not valid before"),
        ({}, None),
    ],
)
async def test_a_certificate_out_of_time_is_a_warning(tmp_path, authority, files, how, said):
    certificate, key = authority.sign("timed", server=True, **how)
    with structlog.testing.capture_logs() as entries:
        async with serving(tmp_path, tls=files | {"certificate": certificate, "key": key}):
            pass
    assert [said in line["why"] for line in logged(entries, "certificate")] == ([True] if said else [])


def test_roles_are_read_as_specified(authority):
    def role(value):
        pem, _ = authority.sign("one", role=value)
        certificate = ssl.PEM_cert_to_DER_cert(pem.read_text())
        return tls.role(certificate)

    assert role("operator") == "operator"
    assert role("Bedienerin für Süd") == "Bedienerin für Süd"
    assert utf8_string("ü" * 64)[1] == 0x81
    assert role("ü" * 64) == "ü" * 64
    assert role(b"\x0c\x02\xff\xfe") == ""
    assert role(b"\x0c\x05abc") == ""
    assert tls.role(b"no certificate") == ""
