# ruff: noqa: INP001, T201 - a script that prints
"""Publishes sets at a steady rate and takes the time until each is accepted; prints ms. `PORT SECONDS RATE`."""

import json
import sys
import threading
import time

import msgspec
import paho.mqtt.client as paho


def main(port: int, seconds: float, rate: float) -> None:
    """Ask, listen, print."""
    run = time.time_ns()
    sent: dict[str, float] = {}
    took: dict[str, float] = {}
    ready = threading.Event()

    def on_message(_: object, __: object, message: paho.MQTTMessage) -> None:
        step = msgspec.json.decode(message.payload)
        if step["state"] == "accepted" and step["id"] in sent:
            took[step["id"]] = time.perf_counter() - sent[step["id"]]

    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = on_message
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe("sems/+/result", 0)
    ready.wait(10)
    began = time.perf_counter()
    for n in range(int(seconds * rate)):
        time.sleep(max(0.0, began + n / rate - time.perf_counter()))
        sent[f"{run}-{n}"] = time.perf_counter()
        wish = {"active_power_limit": n % 100, "id": f"{run}-{n}"}
        client.publish(f"sems/SN{n % 1000:05}/set", json.dumps(wish), 0)
    patience = time.perf_counter() + 10
    while len(took) < len(sent) and time.perf_counter() < patience:
        time.sleep(0.01)
    client.disconnect()
    print(json.dumps({"asked": len(sent), "ms": sorted(1000 * one for one in took.values())}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
