"""Each thing that can be wrong with a certificate has its own remedy: M9 of the trials. Both ends are real."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from gateway.bridges.mqtt import troubles
from tests.bridges.mqtt.brokers import CONNACK
from tests.kit.certificates import Authority
from tests.kit.mosquitto import mosquitto


@asynccontextmanager
async def tls_broker(files, host="127.0.0.1"):
    """A TLS listener that accepts every client."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)

    async def serve(reader, writer):
        await reader.read(1024)
        writer.write(CONNACK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=context)
    try:
        yield type("Broker", (), {"host": host, "port": server.sockets[0].getsockname()[1]})
    finally:
        server.close()


SERVERS = [
    # how it is signed, what the detail says, what it must not say
    ({"days": -2}, ["has expired", "clock says", "renewed at the broker"], ["tls.ca"]),
    ({"begins": 2}, ["not valid yet", "clock says"], ["tls.ca", "expired"]),
    ({"server": False}, ["not for servers", "serverAuth"], ["tls.ca", "expired"]),
]


@pytest.mark.parametrize(("how", "says", "says_not"), SERVERS)
async def test_what_is_wrong_with_the_brokers_certificate_is_said(tmp_path, bench, how, says, says_not):
    authority = Authority(tmp_path)
    async with tls_broker(authority.sign("server", **{"server": True} | how)) as broker, bench() as gateway:
        gateway.connect(broker, tls={"ca": authority.pem})
        detail = (await gateway.down("certificate")).detail
        assert not [words for words in says if words not in detail], detail
        assert not [words for words in says_not if words in detail], detail


async def test_a_certificate_for_another_name_is_said_with_that_name(tmp_path, bench):
    # It is for 127.0.0.1 and localhost.
    authority = Authority(tmp_path)
    async with tls_broker(authority.sign("server", server=True), host="127.0.0.2") as broker, bench() as gateway:
        gateway.connect(broker, tls={"ca": authority.pem})
        detail = (await gateway.down("for another address")).detail
        assert "127.0.0.2" in detail
        assert "subjectAltName" in detail
        assert "tls.ca" not in detail


async def test_an_unknown_ca_and_a_certificate_of_its_own_making_are_told_apart(tmp_path, bench):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    async with tls_broker(authority.sign("server", server=True)) as broker, bench() as gateway:
        gateway.connect(broker, tls={"ca": other.pem})
        assert "set tls.ca to that CA's file" in (await gateway.down("unknown CA")).detail


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "clock says 2026-06-21T12:00"),
        (10, "clock says 2026-06-21T12:00"),
        (18, "of its own making; name that file as tls.ca"),
        (19, "unknown CA; set tls.ca"),
        (20, "intermediate certificates"),
        (23, "was revoked"),
        (62, "for another name (Hostname mismatch"),
        (64, "for another address"),
        (99, "not trusted (some words); see tls.ca"),
    ],
)
def test_every_code_of_openssl_has_its_remedy(code, words):
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_code = code
    error.verify_message = "Hostname mismatch, certificate is not valid for 'x'." if code == 62 else "some words"
    assert words in troubles.of_error(error, datetime(2026, 6, 21, 12, tzinfo=UTC))


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
async def test_what_is_wrong_with_our_certificate_is_said(tmp_path, bench, version):
    """By mosquitto, in a TLS alert; with TLS 1.3 that comes after the handshake."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    server, key = authority.sign("server", server=True)
    ours = {
        "tls.certfile": None,
        "does not know the CA of our certificate": other.sign("stranger"),
        "says that our certificate has expired": authority.sign("old", days=-2),
    }
    lines = [f"cafile {authority.pem}", f"certfile {server}", f"keyfile {key}", "require_certificate true"]
    async with mosquitto(tmp_path, extra=[*lines, f"tls_version {version}"]) as broker:
        for words, files in ours.items():
            tls = {"ca": authority.pem} | (dict(zip(("certfile", "keyfile"), files, strict=True)) if files else {})
            async with bench() as gateway:
                gateway.connect(broker, tls=tls)
                assert "tls.ca " not in (await gateway.down(words)).detail


async def test_a_plain_listener_and_a_broker_that_says_nothing_are_told_apart(tmp_path, bench):
    authority = Authority(tmp_path)

    async def hang_up(reader, writer):
        await reader.read(10)
        writer.close()

    async def speak_mqtt(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    for serve, tls, words in (
        (speak_mqtt, {"ca": authority.pem}, "does not speak TLS at this port"),
        (hang_up, {"ca": authority.pem}, "within the TLS handshake"),
        (hang_up, None, "without an answer to CONNECT"),
    ):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        broker = type("Broker", (), {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]})
        async with bench() as gateway:
            gateway.connect(broker, tls=tls)
            await gateway.down(words)
        server.close()


def test_a_quota_and_a_session_taken_over_are_no_reason_to_suspect_a_message():
    assert not troubles.is_over_a_message(0x97, said=True)
    assert not troubles.is_over_a_message(0x8E, said=True)
    assert troubles.is_over_a_message(0x95, said=True)
