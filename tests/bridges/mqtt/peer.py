"""What is on the other side of the broker: a paho client with its own thread, and the mosquitto tools."""

import asyncio
import json
from contextlib import asynccontextmanager
from uuid import uuid4

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.kit.bench import until
from tests.kit.mosquitto import need

PROTOCOLS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


class Peer:
    """Subscribed to everything; keeps all it got, in order."""

    def __init__(self, protocol="5", client_id="", users=None, tls=None):
        self.messages = []
        self._decoded = {}
        self.subscribed = False
        self.ended = None
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=PROTOCOLS[protocol],
            reconnect_on_failure=False,
        )
        if users:
            self.client.username_pw_set(*users)
        if tls:
            self.client.tls_set_context(tls.client_context())
        self.client.on_message = self._on_message
        self.client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self.client.on_subscribe = self._on_subscribe
        self.client.on_disconnect = self._on_disconnect

    def _on_message(self, _, __, message):
        self.messages.append(message)
        self._decoded.setdefault(message.topic, []).append(decoded(message.payload))

    def _on_subscribe(self, *_):
        self.subscribed = True

    def _on_disconnect(self, _, __, ___, code, *_____):
        self.ended = str(code)

    def publish(self, topic, payload, *, qos=1, retain=False, reply=None, correlation=None):
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        properties = None
        if reply is not None:
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = reply
            if correlation is not None:
                properties.CorrelationData = correlation
        self.client.publish(topic, payload, qos, retain, properties)

    async def delivered(self):
        """Wait until the broker has dealt with all that was published here: it keeps the order."""
        marker = uuid4().hex
        self.publish("delivered", marker)
        await until(lambda: marker in self.all("delivered"), "the broker has it all")

    def all(self, topic):
        """Every message of this topic, JSON objects decoded."""
        return list(self._decoded.get(topic, ()))

    def last(self, topic):
        got = self.all(topic)
        return got[-1] if got else None

    async def next(self, topic, matches=lambda _: True):
        """Wait for a message of this topic that matches."""
        found = await until(lambda: [m for m in self.all(topic) if matches(m)], topic)
        return found[0]

    async def result(self, level, state, /, base="sems", **fields):
        """Wait for a step with this state, and these fields."""
        return await self.next(
            f"{base}/{level}/result",
            lambda m: m["state"] == state and all(m[name] == value for name, value in fields.items()),
        )


def decoded(payload):
    text = payload.decode(errors="replace")
    try:
        return json.loads(text) if text.startswith("{") else text
    except ValueError:
        return text


@asynccontextmanager
async def peer(broker, **options):
    it = Peer(**options)
    await asyncio.to_thread(it.client.connect, broker.host, broker.port)
    it.client.loop_start()
    try:
        await until(lambda: it.subscribed, "the peer is subscribed")
        yield it
    finally:
        it.client.disconnect()
        await asyncio.to_thread(it.client.loop_stop)


async def retained(broker, topic="#", protocol="5"):
    """Return what the broker keeps: topic → payload."""
    async with peer(broker, protocol=protocol) as it:
        it.publish("end-of-retained", "x")
        await it.next("end-of-retained")
        return {m.topic: decoded(m.payload) for m in it.messages if m.retain}


async def mosquitto_pub(broker, *args, stdin=None):
    process = await asyncio.create_subprocess_exec(
        need("mosquitto_pub"), "-h", broker.host, "-p", str(broker.port), *args, stdin=asyncio.subprocess.PIPE
    )
    await process.communicate(stdin)
    assert process.returncode == 0


async def mosquitto_sub(broker, *args):
    """Run until it ends by itself, e.g. by `-C 1`; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        need("mosquitto_sub"), "-h", broker.host, "-p", str(broker.port), *args, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    return out.decode()
