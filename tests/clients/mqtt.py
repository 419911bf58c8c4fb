"""Clients of MQTT, and brokers: states, retained; setpoints, and what became of them; Home Assistant's discovery."""

import json

from tests.clients import programs
from tests.clients.table import Checks, differs
from tests.clients.world import DEVICES, HOST, HOUSE, OLDER, PARK
from tests.kit.bench import until

FILTERS = ("sems/#", "homeassistant/#")
DISCOVERY = f"homeassistant/device/everything_{HOUSE}/config"


async def client(world, program):
    checks = Checks(program.name, program.version, program.language)
    await _main_job(world, checks, program, "mosquitto")
    return checks.rows


async def broker(world, program):
    """The gateway's main job at this broker, seen by paho; then the broker is killed, and comes back with nothing."""
    checks = Checks(f"{program.name} (broker)", program.version, program.language)
    running, paho = world.brokers[program.name], programs.PAHO_3 if program.name in OLDER else programs.PAHO
    await _main_job(world, checks, paho, program.name)
    await running.stop()
    await until(lambda: not _bridge(world, program.name).up, "the gateway sees that it is gone")
    checks.say("killed: the gateway notices, and says so")
    await running.start()
    await until(lambda: _bridge(world, program.name).up, "the gateway is back")
    await _main_job(world, checks, paho, program.name, "after its restart: ")
    return checks.rows


def _bridge(world, name):
    return next(bridge for bridge in world.gateway.router.bridges() if bridge.name == name)


async def _main_job(world, checks, program, at, when=""):
    async with programs.talking(program, HOST, world.ports[at], *FILTERS) as talk:
        online = ["sems/bridge/state"]

        def all_there():
            found = [topic for topic, line in talk.newest.items() if line["value"] == "online"]
            return (
                len(set(found) - set(online)) >= DEVICES and DISCOVERY in talk.newest and f"sems/{HOUSE}" in talk.newest
            )

        await talk.until(all_there, f"{DEVICES} devices online, a state, and Home Assistant's discovery")
        state, truth = json.loads(talk.newest[f"sems/{HOUSE}"]["value"]), world.truth(HOUSE)
        point = talk.newest[f"sems/{HOUSE}/ac_power"]
        discovery = json.loads(talk.newest[DISCOVERY]["value"])
        checks.say(
            f"{when}{DEVICES} devices online; state, point and Home Assistant's discovery, all retained",
            differs("ac_power", state["ac_power"], truth["ac_power"], 0.5),
            differs("battery_soc", state["battery_soc"], truth["battery_soc"], 0.5),
            differs("point", float(point["value"]), truth["ac_power"], 0.5),
            differs("quality", state["quality"], "good"),
            differs("gateway", talk.newest[online[0]]["value"], "online"),
            differs("sensor", discovery["components"]["battery_soc"]["unit_of_measurement"], "%"),
            "" if point["retained"] and talk.newest[DISCOVERY]["retained"] else "not retained",
        )
        limit = world.next_limit()
        topic, result = f"sems/{PARK}/set/active_power_limit", f"sems/{PARK}/result"
        steps = []
        for id_, value in (("well", limit), ("badly", 101)):
            talk.publish(topic, json.dumps({"value": value, "id": f"{program.name}-{limit}-{id_}"}))

        def ended(id_):
            steps[:] = [json.loads(line["value"]) for line in talk.lines if line["what"] == result]
            mine = [step for step in steps if step["id"] == f"{program.name}-{limit}-{id_}"]
            return mine and mine[-1]["state"] not in {"accepted", "sent"} and mine

        done = await talk.until(lambda: ended("well"), "the result of a set")
        refused = await talk.until(lambda: ended("badly"), "the refusal of a set")
        checks.say(
            f"{when}sets a limit: accepted, sent, succeeded; one of 101 % is refused, out_of_range",
            differs("steps", [step["state"] for step in done], ["accepted", "sent", "succeeded"]),
            differs("refused", [(step["state"], step["reason"]) for step in refused], [("rejected", "out_of_range")]),
            differs("the inverter's limit", world.limit(), limit),
        )


async def sparkplug(world, program):
    """A host asks for a rebirth, decodes all, and sets a limit."""
    checks = Checks(program.name, program.version, program.language)
    node, device = "spBv1.0/sems/{}/everything", "spBv1.0/sems/{}/everything/{}"
    async with programs.talking(program, HOST, world.ports["mosquitto"], "spBv1.0/#") as talk:
        # Once is enough: a client subscribes before it publishes what it is given. A second rebirth would take the
        # place of the data that are waited for below.
        talk.publish(node.format("NCMD"), json.dumps({"Node Control/Rebirth": True}))

        def born():
            births = sum("/DBIRTH/" in topic for topic in talk.newest)
            return births == DEVICES and device.format("DBIRTH", PARK) in talk.newest

        await talk.until(born, f"{DEVICES} births")
        house, truth = talk.newest[device.format("DBIRTH", HOUSE)]["value"], world.truth(HOUSE)
        there = talk.newest[node.format("NBIRTH")]["value"]
        checks.say(
            f"asks for a rebirth, decodes NBIRTH and {DEVICES} DBIRTH",
            differs("ac_power", house["ac_power"], truth["ac_power"], 0.5),
            differs("battery_soc", house["battery_soc"], truth["battery_soc"], 0.5),
            differs("serial number", house["Properties/Serial"], HOUSE),
            differs("status", house["status"], truth["status"]),
            differs("good devices", there["devices/good"], DEVICES),
        )
        limit = world.next_limit()
        talk.publish(device.format("DCMD", PARK), json.dumps({"active_power_limit": limit}))
        await world.reached(limit)

        came = device.format("DDATA", PARK)

        def told():
            return any(line["what"] == came and limit in line["value"].values() for line in talk.lines)

        await talk.until(told, "the new limit as DDATA")
        checks.say("sets a limit by DCMD: it reaches the inverter, and comes back as DDATA")
    return checks.rows
