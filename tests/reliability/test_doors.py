"""Doors: what listens by default only this machine can reach, and TLS that is broken is refused."""

import asyncio
import re
import ssl
import typing
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from gateway.api.registry import installed
from gateway.bridges.modbus import ModbusSettings
from gateway.bridges.mqtt import MqttBridge
from gateway.bridges.push import PushBridge
from gateway.bridges.web import WebBridge
from gateway.http.addresses import is_loopback
from gateway.http.server import HttpServer, listen
from gateway.http.tls import tls_context
from gateway.run.app import Gateway
from gateway.run.settings import Config
from tests.kit.certificates import Authority
from tests.kit.ports import free_port

SECRET = "a-secret-that-nobody-guesses"
CLOSED = "127.0.0.1:1"
LEAST = {
    "batch": f"{{type: batch, connection: {{bootstrap_servers: '{CLOSED}'}}, supplier: x, whitelist: '*'}}",
    "kafka": f"{{type: kafka, connection: {{bootstrap_servers: '{CLOSED}'}}, publish: {{}}}}",
    "local": "{type: local}",
    "modbus": "{type: modbus, port: PORT}",
    "mqtt": "{type: mqtt, host: 127.0.0.1, port: 1}",
    "open_api": "{type: open_api, account: a, password: b, url: 'http://127.0.0.1:1'}",
    "csip": "{type: csip, url: 'https://127.0.0.1:1/dcap', tls: {certificate: it.pem, key: it.key}, device: X}",
    "push": "{type: push, port: PORT, secret: " + SECRET + "}",
    "realtime": "{type: realtime, client_id: a, client_secret: b, url: 'http://127.0.0.1:1', whitelist: '*'}",
    "web": "{type: web, port: PORT}",
}
"""The least that each bridge needs to run."""
LISTENING = "0A"


def listeners():
    """Addresses on which this process listens: IPv4 and IPv6, as (address, port)."""
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    inodes = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                address, port = fields[1].split(":")
                yield address, int(port, 16)


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
"""127.0.0.1 and ::1, as the kernel of a little-endian machine writes them."""


@pytest.mark.parametrize("type_", installed().types)
async def test_what_a_bridge_opens_by_default_only_this_machine_can_reach(tmp_path, type_):
    before = set(listeners())
    port = free_port()
    Authority(tmp_path).sign("it")
    file = tmp_path / "config.yaml"
    file.write_text(f"bridges:\n  it: {LEAST[type_].replace('PORT', str(port))}\n")
    gateway = Gateway(Config.load(file, installed()))
    await gateway.start()
    try:
        opens = "PORT" in LEAST[type_]
        while opens and port not in {p for _, p in listeners()}:
            await asyncio.sleep(0.01)
        opened = set(listeners()) - before
        assert {address for address, _ in opened} <= LOOPBACK
        assert {p for _, p in opened} == ({port} if opens else set())
    finally:
        await gateway.stop()


def models(annotation, seen):
    """Every pydantic model that a type leads to."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
        seen.add(annotation)
        for field in annotation.model_fields.values():
            models(field.annotation, seen)
    for inner in typing.get_args(annotation):
        models(inner, seen)
    return seen


def test_no_setting_is_open_or_careless_by_default():
    registry = installed()
    found = set()
    for type_ in registry.types:
        models(registry.load(type_).Settings, found)
    fields = [(model, name, field) for model in found for name, field in model.model_fields.items()]
    hosts = [
        (model, field.default) for model, name, field in fields if name == "host" and isinstance(field.default, str)
    ]
    assert len(hosts) >= 3
    assert [model for model, host in hosts if not is_loopback(host)] == []
    careless = re.compile("insecure|skip|ignore_cert|allow_any|anonymous")
    assert [name for _, name, _ in fields if careless.search(name)] == []
    assert [name for _, name, field in fields if name.startswith("verify_") and field.default is not True] == []


@pytest.mark.parametrize(
    ("bridge", "settings", "words"),
    [
        (WebBridge, {"host": "0.0.0.0"}, "open to others"),
        (WebBridge, {"trusted_proxies": ["127.0.0.1"]}, "through a proxy"),
        (PushBridge, {"host": "0.0.0.0"}, "secret"),
        (PushBridge, {}, "secret"),
    ],
)
def test_a_door_to_others_needs_a_secret(bridge, settings, words):
    with pytest.raises(ValidationError, match=words):
        bridge.Settings(**settings)


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def files(authority):
    """Good ones, another key, and a certificate out of time."""
    good, key = authority.sign("server", server=True)
    _, other = authority.sign("other", server=True)
    expired, expired_key = authority.sign("expired", server=True, days=-1)
    return {"good": good, "key": key, "other": other, "expired": expired, "expired key": expired_key}


def settings_of(kind, certificate, key, ca):
    tls = {"certificate": certificate, "key": key}
    if kind == "mqtt":
        return MqttBridge.Settings(host="broker", tls={"certfile": certificate, "keyfile": key, "ca": ca})
    if kind == "modbus":
        return ModbusSettings(tls=tls | {"client_ca": ca})
    if kind == "push":
        return PushBridge.Settings(secret=SECRET, tls=tls)
    return WebBridge.Settings(tls=tls)


ALL = pytest.mark.parametrize("kind", ["modbus", "push", "web", "mqtt"])


@ALL
def test_a_certificate_and_its_key_are_taken(files, authority, kind):
    assert settings_of(kind, files["good"], files["key"], authority.pem).tls


@ALL
def test_a_key_that_does_not_fit_is_refused(files, authority, kind):
    with pytest.raises(ValidationError, match=r"tls|key"):
        settings_of(kind, files["good"], files["other"], authority.pem)


@ALL
def test_a_file_that_is_no_certificate_is_refused(files, authority, kind):
    with pytest.raises(ValidationError, match=r"tls|cert"):
        settings_of(kind, files["key"], files["key"], authority.pem)


@pytest.mark.parametrize("kind", ["push", "web"])
async def test_a_listener_whose_certificate_has_expired_stays_closed_and_says_why(files, tmp_path, kind):
    file, port = tmp_path / "config.yaml", free_port()
    tls = f"{{certificate: {files['expired']}, key: {files['expired key']}}}"
    least = LEAST[kind].replace("PORT", str(port)).removesuffix("}")
    file.write_text(f"bridges:\n  it: {least}, tls: {tls}}}\n")
    gateway = Gateway(Config.load(file, installed()))
    await gateway.start()
    try:
        while (detail := next((b.detail for b in gateway.router.bridges() if b.name == "it"), "")) in {"", "starting"}:
            await asyncio.sleep(0.01)
        assert re.search(r"expired on \d{4}-\d\d-\d\d; renew it", detail)
        assert port not in {p for _, p in listeners()}
    finally:
        await gateway.stop()


@asynccontextmanager
async def server(files):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    door = listen("127.0.0.1", 0, "port")
    http = HttpServer(app, tls_context(files["good"], files["key"]))
    task = asyncio.create_task(http.run_on(door))
    await http.ready.wait()
    try:
        yield door.getsockname()[1]
    finally:
        http.should_exit = True
        await task


@pytest.mark.parametrize(
    ("least", "most", "taken"),
    [("TLSv1", "TLSv1_1", False), ("TLSv1_2", "TLSv1_2", True), ("TLSv1_3", "TLSv1_3", True)],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_http_door_speaks_tls_1_2_and_newer(files, authority, least, most, taken):
    client = ssl.create_default_context(cafile=authority.pem)
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    client.minimum_version, client.maximum_version = ssl.TLSVersion[least], ssl.TLSVersion[most]
    async with server(files) as port:
        if not taken:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection("127.0.0.1", port, ssl=client)
            return
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        assert writer.get_extra_info("ssl_object").version() == most.replace("_", ".")
        writer.close()


@pytest.mark.parametrize(
    ("show", "least", "most", "taken"),
    [
        ("server", "TLSv1_2", "TLSv1_3", True),
        ("expired", "TLSv1_2", "TLSv1_3", False),
        ("stranger", "TLSv1_2", "TLSv1_3", False),
        ("elsewhere", "TLSv1_2", "TLSv1_3", False),
        ("server", "TLSv1", "TLSv1_1", False),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_broker_is_only_spoken_to_by_good_tls(authority, tmp_path, show, least, most, taken):
    signer = Authority(tmp_path) if show == "stranger" else authority
    certificate, key = signer.sign(show, server=True, days=-1 if show == "expired" else 365)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion[least], ssl.TLSVersion[most]
    ours = MqttBridge.Settings(host="broker", tls={"ca": authority.pem}).tls.context()
    name = "broker.example" if show == "elsewhere" else "localhost"
    broker = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with broker:
        port = broker.sockets[0].getsockname()[1]
        dialling = asyncio.open_connection("127.0.0.1", port, ssl=ours, server_hostname=name)
        if taken:
            (await dialling)[1].close()
        else:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await dialling
