"""Eclipse Paho for Python, as tests/clients/protocol.md says: `with_paho.py VERSION HOST PORT FILTER…`."""

import json
import sys

import paho.mqtt.client as paho


def on_message(_, __, message):
    line = {"what": message.topic, "value": message.payload.decode(), "retained": message.retain}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(version, host, port, *filters):
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "paho-under-test", protocol=int(version))
    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe([(filter_, 1) for filter_ in filters])
    client.connect(host, int(port))
    client.loop_start()
    for line in sys.stdin:
        topic, _, payload = line.rstrip("\n").partition(" ")
        client.publish(topic, payload, 1).wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


main(*sys.argv[1:])
