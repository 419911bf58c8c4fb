"""A run with every kind of secret and every kind of failure; then each secret is looked for in all that was written."""

import base64
import hashlib
import json
import os
import re
import stat
import subprocess
from urllib.parse import quote, quote_plus

import httpx
import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway.api.registry import installed
from gateway.run.settings import Config, ConfigError
from tests.kit.certificates import Authority
from tests.kit.mosquitto import need
from tests.kit.ports import free_port
from tests.kit.process import environment, eventually, finished, running, sems_gateway
from tests.reliability.rig import Rig
from tests.reliability.watcher import connect

pytestmark = pytest.mark.system

SECRETS = {
    "sems password": 'Sonne & "Mond"/1+1=2 ß',
    "client secret": "cl1ent-S3cret~of.the_platform",
    "mqtt password": "mosqu1tto: pass/word?",
    "web token": "web-t0ken-that-reads-0123456789",
    "writer's token": "web-t0ken-that-writes-0123456789",
    "push secret": "push-s3cret-0123456789-abcdef",
    "kafka password": "k4fka; sasl=password",
    "password of the wrong account": "wr0ng-but-still-secret",
    "header": "websocket-h3ader-0123456789",
    "key passphrase": "k3y-passphrase-0123",
}
CONFIG = """\
gateway: {{id: secrets}}
log: {{level: debug, format: json}}
bridges:
  sems: {{type: open_api, account: "{account}", password: {{file: {directory}/sems-password}}, url: "{url}",
          poll_interval: 5, calls_per_hour: 1000000}}
  platform: {{type: open_api, platform: developer, client_id: "{client}", client_secret: {{env: CLIENT_SECRET}},
              url: "{url}", poll_interval: 5, calls_per_hour: 1000000}}
  refused: {{type: open_api, account: nobody, password: "{wrong}", url: "{url}"}}
  refused-too: {{type: open_api, platform: developer, client_id: nobody, client_secret: "{wrong}", url: "{url}"}}
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, username: gateway, password: {{env: MQTT_PASSWORD}},
          requests: [devices, health, restart, log_level]}}
  mqtt-refused: {{type: mqtt, host: 127.0.0.1, port: {mqtt}, username: gateway, password: "{wrong}", client_id: other}}
  mqtt-web: {{type: mqtt, host: 127.0.0.1, port: {closed}, transport: websockets, client_id: third,
              headers: {{X-Key: "{header}"}}}}
  mqtt-tls: {{type: mqtt, host: 127.0.0.1, port: {closed}, client_id: fourth,
              tls: {{certfile: {certificate}, keyfile: {key}, keyfile_password: "{passphrase}"}}}}
  web: {{type: web, port: {web}, token: {{file: {directory}/web-token}},
         tokens: {{writer: {{token: {{env: WRITER_TOKEN}}, write: true}}}}}}
  push: {{type: push, port: {push}, secret: {{env: PUSH_SECRET}}}}
{kafka}control:
  enabled: true
  allow: [{{devices: ["*"], setpoints: [export_limit]}}]
"""
KAFKA = """\
  kafka: {{type: kafka, telemetry: {{topics: [telemetry]}},
           connection: {{bootstrap_servers: "127.0.0.1:{closed}", sasl: {{username: gateway, password: "{kafka}"}},
                         tls: {{certificate: {certificate}, key: {key}, key_password: "{passphrase}"}}}}}}
"""
DEVICE = "9010KETU218W0001"


def forms(secret):
    """A secret as it might be written down: as it is, escaped, encoded, or as what goes over the wire instead."""
    raw = secret.encode()
    md5 = hashlib.md5(raw).hexdigest()
    yield from {
        secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1],
        quote(secret), quote(secret, safe=""), quote_plus(secret), raw.hex(), md5, md5.upper(),
        hashlib.sha256(raw).hexdigest(),
    }  # fmt: skip
    for before in (raw, *(name + b":" + raw for name in (b"demo", b"gateway", b"nobody", b"a-client"))):
        # Whatever stands before and after it, its middle is written as one of these three.
        yield base64.b64encode(before).decode().rstrip("=")
        yield base64.urlsafe_b64encode(before).decode().rstrip("=")
    for shift in range(3):
        inside = base64.b64encode(b"\0" * shift + raw).decode()
        yield inside[4 if shift else 0 : len(inside) - 4]


class Evidence:
    """All that was written, by where."""

    def __init__(self):
        self.texts = {}

    def add(self, where, text):
        self.texts.setdefault(where, []).append(text if isinstance(text, bytes) else text.encode())

    def leaks(self, name, secret):
        needles = {form.encode() for form in forms(secret) if len(form) > 8}
        return [f"{name} in {where}" for where, texts in self.texts.items()
                if any(needle in text for text in texts for needle in needles)]  # fmt: skip


@pytest.fixture
def evidence():
    return Evidence()


class Scene(Rig):
    """A rig with a configuration of its own, and a broker that wants a password."""

    def __init__(self, directory):
        super().__init__(directory)
        self.push, self.closed = free_port(), free_port()
        (directory / "sems-password").write_text(SECRETS["sems password"] + "\n")
        (directory / "web-token").write_text(SECRETS["web token"])
        authority = Authority(directory)
        certificate, key = authority.sign("client")
        locked = directory / "locked.key"
        subprocess.run(
            [need("openssl"), "pkey", "-in", key, "-aes256", "-passout", f"pass:{SECRETS['key passphrase']}",
             "-out", locked],
            check=True, capture_output=True,
        )  # fmt: skip
        values = {
            "account": "an-account", "client": "a-client", "url": f"http://127.0.0.1:{self.sems}", "mqtt": self.mqtt,
            "web": self.web, "push": self.push, "closed": self.closed, "directory": directory,
            "wrong": SECRETS["password of the wrong account"], "header": SECRETS["header"],
            "passphrase": SECRETS["key passphrase"], "certificate": certificate, "key": locked,
        }  # fmt: skip
        kafka = KAFKA.format(kafka=SECRETS["kafka password"], **values)
        self.config.write_text(CONFIG.format(kafka=kafka, **values))
        self.environment = {
            "CLIENT_SECRET": SECRETS["client secret"], "MQTT_PASSWORD": SECRETS["mqtt password"],
            "WRITER_TOKEN": SECRETS["writer's token"], "PUSH_SECRET": SECRETS["push secret"],
        }  # fmt: skip

    def broker(self):
        passwords = self.directory / "passwords"
        passwords.touch(mode=0o600)
        subprocess.run([need("mosquitto_passwd"), "-b", passwords, "gateway", SECRETS["mqtt password"]], check=True)
        subprocess.run([need("mosquitto_passwd"), "-b", passwords, "watcher", "watcher"], check=True)
        config = self.directory / "mosquitto.conf"
        config.write_text(f"listener {self.mqtt} 127.0.0.1\nuser root\npassword_file {passwords}\n")
        return running(need("mosquitto"), "-c", str(config))

    def simulator(self):
        return self.cloud(account="an-account", password=SECRETS["sems password"], client_id="a-client",
                          client_secret=SECRETS["client secret"])  # fmt: skip

    def ask_web(self, path, token="", method="GET", **more):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.request(method, f"http://127.0.0.1:{self.web}{path}", headers=headers, timeout=120,
                             trust_env=False, **more)  # fmt: skip

    def push_to(self, path, **headers):
        return httpx.post(f"http://127.0.0.1:{self.push}{path}", content=b'{"data": []}', timeout=120, trust_env=False,
                          headers={"Content-Type": "application/json"} | headers)  # fmt: skip


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def listen_to_everything(scene, evidence):
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="watcher")
    client.username_pw_set("watcher", "watcher")
    client.on_connect = lambda c, *_: c.subscribe("#", 1)
    client.on_message = lambda _, __, message: evidence.add(f"MQTT {message.topic}", message.payload)
    connect(client, scene.mqtt)
    client.loop_start()
    return client


def test_no_secret_is_in_any_log_page_metric_topic_error_or_file(scene, evidence):
    reader, writer = SECRETS["web token"], SECRETS["writer's token"]
    with (
        scene.simulator(),
        scene.broker(),
        sems_gateway("run", scene.config, env=environment(**scene.environment)) as gateway,
    ):
        client = listen_to_everything(scene, evidence)
        gateway.line('"mqtt".*"up"')
        eventually(lambda: f"MQTT sems/{DEVICE}" in evidence.texts)
        session_tokens = eventually(lambda: len(found := tokens_in(scene.data_dir)) == 2 and found)
        provoke(scene, evidence, client, reader, writer)
        for bridge in ("refused", "refused-too", "mqtt-refused", "mqtt-web"):
            gateway.line(f'"{bridge}".*"down"')
        session_tokens |= tokens_in(scene.data_dir)
        gateway.end()
        client.disconnect()
        client.loop_stop()
    evidence.add("log", gateway.text)
    assert '"level": "debug"' in gateway.text
    for file in (file for file in scene.data_dir.rglob("*") if file.is_file()):
        kept = file.read_bytes()
        if file.name.endswith(("-session.json", "-session.json.old")):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            for token in session_tokens:  # This is where it is kept, and nowhere else.
                kept = kept.replace(token.encode(), b"")
        evidence.add(str(file), kept)
    leaks = [leak for name, secret in SECRETS.items() for leak in evidence.leaks(name, secret)]
    leaks += [leak for token in session_tokens for leak in evidence.leaks("a session's token", token)]
    assert leaks == []


def provoke(scene, evidence, client, reader, writer):
    """Ask for everything, with right and wrong secrets, while things go wrong behind it."""
    for token in ("", reader, writer, writer[:-1], "wr0ng-t0ken-but-long-enough"):
        for path in ("/metrics", "/readyz", "/healthz", "/", "/api/v1/devices", f"/api/v1/devices/{DEVICE}",
                     "/api/v1/bridges", "/api/v1/nonesuch", "/api/v1/commands/nonesuch"):  # fmt: skip
            answer = scene.ask_web(path, token)
            evidence.add(f"GET {path}", answer.content + repr(answer.headers).encode())
        answer = scene.ask_web(f"/api/v1/devices/{DEVICE}/set", token, "POST", json={"export_limit": 1000})
        evidence.add("POST set", answer.content)
    for path, headers in (
        (f"/push/{SECRETS['push secret']}", {}), ("/push", {"X-Push-Secret": SECRETS["push secret"]}),
        ("/push/wrong-s3cret-0123456789", {}), ("/push", {"X-Push-Secret": "wrong"}),
        (f"/{SECRETS['push secret']}", {}),
    ):  # fmt: skip
        evidence.add("push", scene.push_to(path, **headers).content)
    for request in ("devices", "health", "restart", "log_level"):
        client.publish(f"sems/bridge/request/{request}", json.dumps({"bridge": "sems", "level": "debug"}))
    scene.spoil(revoke_tokens=True, answers=[{"answer": "http_500", "times": 3}])
    calls = len(scene.ask("calls?limit=100000")["calls"])
    eventually(lambda: len(scene.ask("calls?limit=100000")["calls"]) > calls + 20)
    scene.spoil(clear=True, refuse_logins=True, revoke_tokens=True)
    eventually(lambda: any(call["code"] == "login_refused" or "Login" in str(call) or "Token" in call["interface"]
                           for call in scene.ask("calls?limit=20")["calls"]))  # fmt: skip
    scene.spoil(clear=True)
    for arguments in (["devices", scene.config], ["send", scene.config, DEVICE, "export_limit", "nonsense"]):
        done = finished(*arguments, env=environment(**scene.environment))
        evidence.add(f"sems-gateway {arguments[0]}", done.stdout + done.stderr)


def tokens_in(data_dir):
    found = set()
    for file in data_dir.glob("*-session.json"):
        token = msgspec.json.decode(file.read_bytes()).get("token")
        if isinstance(token, dict):
            token = token.get("token") or token.get("text")
        if token:
            found.add(token)
    return found


MISTAKES = [
    ("password: {file: %s/sems-password}", 'pasword: "SECRET"'),
    ("password: {file: %s/sems-password}", 'password: ["SECRET"]'),
    ("password: {file: %s/sems-password}", 'password: {text: "SECRET"}'),
    ("password: {file: %s/sems-password}", 'password: {"SECRET": 1}'),
    ("password: {file: %s/sems-password}", 'password: "SECRET", client_secret: "SECRET"'),
    ("client_secret: {env: CLIENT_SECRET}", 'client_secret: "SECRET", password: "SECRET"'),
    ("password: {env: MQTT_PASSWORD}", 'password: "SECRET", port: "SECRET"'),
    ("username: gateway, password: {env: MQTT_PASSWORD}", 'password: "SECRET"'),
    ("secret: {env: PUSH_SECRET}", 'secret: "SHORT"'),
    ("token: {env: WRITER_TOKEN}", 'token: "SHORT"'),
    ("token: {env: WRITER_TOKEN}", "token: {file: %s/web-token}"),
    ("headers: {X-Key: ", 'headers: {X-Key: "SECRET\\n", Other: '),
    ('url: "http://127.0.0.1', 'url: "http://user:SECRET@127.0.0.1:99999/'),
    ('url: "http://127.0.0.1', 'url: "http://user:SECRET@127.0.0.1'),
    ('url: "http://127.0.0.1', 'url: "http://SECRET@127.0.0.1'),
]


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_what_is_said_of_a_mistake_does_not_repeat_a_secret(scene, evidence, number, monkeypatch):
    secret, short = SECRETS["header"], "sh0rt-one"
    right, wrong = (text.replace("%s", str(scene.directory)) for text in MISTAKES[number])
    for name, value in scene.environment.items():
        monkeypatch.setenv(name, value)
    Config.load(scene.config, installed())
    text = scene.config.read_text()
    assert right in text
    scene.config.write_text(text.replace(right, wrong.replace("SECRET", secret).replace("SHORT", short), 1))
    with pytest.raises(ConfigError) as caught:
        Config.load(scene.config, installed())
    assert re.search(r"config\.yaml:\d+: bridges\.", "\n".join(caught.value.lines()))
    evidence.add("check", "\n".join([*caught.value.lines(), str(caught.value), repr(caught.value)]))
    secrets = SECRETS | {"short": short}
    assert [leak for name, value in secrets.items() for leak in evidence.leaks(name, value)] == []


def test_a_leak_is_found_in_each_form_it_may_take(evidence):
    secret = SECRETS["sems password"]
    for number, form in enumerate(forms(secret)):
        evidence.add(number, f"…{form}…")
    evidence.add("basic", base64.b64encode(f"x:{secret}:y".encode()))
    evidence.add("file", os.fsencode(secret))
    evidence.add("innocent", "Sonne und Mond")
    assert len(evidence.leaks("it", secret)) == len(evidence.texts) - 1
