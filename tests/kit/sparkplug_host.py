"""A Sparkplug host, run by the Python that has pysparkplug: `… HOST PORT`.

Prints a line of JSON for every message, twice: as pysparkplug decodes it with the births it has seen, and as
Tahu's schema has it, field by field. Takes lines of JSON from its standard input and does what they say.
"""

import json
import sys
import threading
import time

import pysparkplug as psp
from google.protobuf.json_format import MessageToDict
from paho.mqtt import client as paho
from pysparkplug._protobuf import Payload

print_lock = threading.Lock()


def tell(**line):
    with print_lock:
        sys.stdout.write(json.dumps(line, default=str) + "\n")
        sys.stdout.flush()


def metric(m):
    return {
        "name": m.name,
        "value": m.value,
        "type": m.datatype.name,
        "alias": m.alias,
        "time": m.timestamp,
        "null": m.is_null,
    }


def on_message(_, message):
    try:
        payload = message.payload
        metrics = getattr(payload, "metrics", None)
        if metrics is None and hasattr(payload, "bd_seq_metric"):
            metrics = [payload.bd_seq_metric]
        tell(
            kind="decoded",
            type=str(message.topic.message_type.value),
            device=message.topic.device_id,
            seq=getattr(payload, "seq", None),
            metrics={m.name: metric(m) for m in metrics or ()},
        )
    except Exception as error:  # noqa: BLE001 - the test wants to see whatever it is
        tell(kind="error", error=repr(error))


def on_raw(_, __, message):
    parts = message.topic.split("/")
    if parts[1] == "STATE":
        return
    payload = MessageToDict(Payload.FromString(message.payload), preserving_proto_field_name=True)
    tell(
        kind="raw",
        topic=message.topic,
        type=parts[2],
        device=parts[4] if len(parts) > 4 else None,
        qos=message.qos,
        retain=bool(message.retain),
        payload=payload,
        at=int(time.time() * 1000),
    )


def command(host, order):
    now = order.get("time") or psp.get_current_timestamp()
    match order["do"]:
        case "state":
            topic = psp.Topic(message_type=psp.MessageType.STATE, sparkplug_host_id=order["host"])
            host.publish(psp.Message(topic, psp.State(timestamp=now, online=order["online"]), psp.QoS(1), retain=True))
        case "rebirth":
            topic = psp.Topic(order["group"], psp.MessageType.NCMD, order["node"])
            requested = psp.Metric(now, "Node Control/Rebirth", psp.DataType.BOOLEAN, value=order.get("value", True))
            host.publish(psp.Message(topic, psp.NCmd(now, (requested,)), psp.QoS(0), retain=False), include_dtypes=True)
        case "write":
            topic = psp.Topic(order["group"], psp.MessageType.DCMD, order["node"], order["device"])
            wishes = tuple(
                psp.Metric(now, w.get("name"), psp.DataType[w["type"]], value=w["value"], alias=w.get("alias"))
                for w in order["metrics"]
            )
            message = psp.Message(topic, psp.DCmd(now, wishes), psp.QoS(0), retain=order.get("retain", False))
            host.publish(message, include_dtypes=order.get("types", False))


def main(address, port):
    raw = paho.Client()
    raw.on_message = on_raw
    ready = threading.Semaphore(0)
    raw.on_subscribe = lambda *_: ready.release()
    raw.connect(address, port)
    raw.subscribe("spBv1.0/#", 1)
    raw.loop_start()
    host = psp.Client("host-under-test")
    # It hears its own commands too, and one to a device without a birth would end its thread.
    host._client.suppress_exceptions = True
    connected = threading.Event()
    host.connect(address, port=port, callback=lambda _: connected.set())
    connected.wait()
    host._client.on_subscribe = lambda *_: ready.release()
    host.subscribe(psp.Topic("#"), psp.QoS(1), on_message)
    ready.acquire(timeout=120)
    ready.acquire(timeout=120)
    tell(kind="ready")
    for line in sys.stdin:
        command(host, json.loads(line))
    host.disconnect()
    raw.disconnect()


main(sys.argv[1], int(sys.argv[2]))
