"""Where no connection comes about, the error and its advice name the cause: clock, proxy, name, firewall."""

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager

import pytest

from gateway.core.clock import SystemClock
from gateway.sems import exchange
from gateway.sems.errors import UnreachableError
from tests.kit.certificates import Authority
from tests.kit.ports import free_port
from tests.sems.kit import Clock, session
from tests.sems.test_session import plants

CERTIFICATES = [
    # how it is made, what is said, what is advised
    ({"begins": 30, "days": 60}, "it shows a certificate that is not valid yet", "this machine's clock says 2"),
    ({"days": -1, "begins": -30}, "it shows a certificate that has expired", "this machine's clock says 2"),
    ({"name": "stranger"}, "it shows a certificate of an unknown CA", "a proxy or firewall that looks into TLS"),
    ({"host": "127.0.0.2"}, "it shows a certificate for another address", "check the url"),
]


@pytest.fixture
def clock():
    return Clock()


@asynccontextmanager
async def tls_listener(pem, key, host):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), host, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("made", "says", "advice"), CERTIFICATES, ids=["not yet", "expired", "proxy", "another name"])
async def test_a_certificate_that_is_not_taken(tmp_path, monkeypatch, made, says, advice):
    known, host = Authority(tmp_path), made.get("host", "127.0.0.1")
    signer = Authority(tmp_path, made["name"]) if "name" in made else known
    dates = {key: value for key, value in made.items() if key in ("days", "begins")}
    pem, key = signer.sign("cloud", server=True, **dates)
    monkeypatch.setattr(exchange, "trusted", lambda: ssl.create_default_context(cafile=known.pem))
    async with tls_listener(pem, key, host) as port, session(f"https://{host}:{port}", tmp_path, SystemClock()) as it:
        with pytest.raises(UnreachableError, match=says) as caught:
            await plants(it)
    assert advice in caught.value.advice


async def test_nobody_listens(tmp_path, clock):
    async with session(f"http://127.0.0.1:{free_port()}", tmp_path, clock) as it:
        with pytest.raises(UnreachableError, match="can't be reached: it refuses the connection") as caught:
            await plants(it)
    assert "firewall" in caught.value.advice


async def test_a_name_that_nobody_knows(tmp_path, clock, monkeypatch):
    async def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with session("http://cloud.invalid", tmp_path, clock) as it:
        monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", unknown, raising=False)
        with pytest.raises(UnreachableError, match="can't be reached: it has an unknown name") as caught:
            await plants(it)
    assert "DNS" in caught.value.advice
