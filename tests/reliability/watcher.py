"""The subscriber: writes down every result in the order in which it comes, at QoS 1, and never goes away."""

import json
import time
import uuid
from collections import Counter

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.kit.process import eventually


def connect(client, port):
    """Connect as soon as the broker listens."""

    def listens():
        try:
            client.connect("127.0.0.1", port)
        except ConnectionRefusedError:
            return False
        return True

    eventually(listens)


class Watcher:
    def __init__(self, port, base="sems"):
        self.results = []
        """Payloads."""
        self.reasons = Counter()
        """Reason → how often something was rejected for it."""
        self._devices = {}
        self._mark = f"watcher/{uuid.uuid4()}"
        self._settled = False
        self._subscribed = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="watcher", protocol=paho.MQTTv5)
        topics = [(f"{base}/+/result", 1), (f"{base}/+/device", 1), (self._mark, 1)]
        self._client.on_connect = lambda client, *_: client.subscribe(topics)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        connect(self._client, port)
        self._client.loop_start()
        eventually(lambda: self._subscribed)

    def _on_subscribe(self, *_):
        self._subscribed = True

    def _on_message(self, _, __, message):
        if message.topic.endswith("/result"):
            self.results.append(bytes(message.payload))
            self.reasons[json.loads(message.payload)["reason"]] += 1
        elif message.topic == self._mark:
            self._settled = True
        elif not message.retain:
            self._devices[message.topic.split("/")[-2]] = time.time()

    def devices_since(self, moment):
        """Serials of devices that a gateway has told of since."""
        return {serial for serial, told in list(self._devices.items()) if told > moment}

    def settle(self):
        """Wait until all has come that was published before; the broker keeps the order."""
        self._settled = False
        self._client.publish(self._mark, b"", qos=1)
        eventually(lambda: self._settled)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()
