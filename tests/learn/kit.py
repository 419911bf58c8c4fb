"""Answers of a small plant: one storage inverter, asked twice, ten minutes apart."""

from datetime import UTC, datetime, timedelta

from gateway.sems.recording import Answer

NOON = datetime(2026, 6, 21, 10, 0, tzinfo=UTC)
SERIAL, PLANT = "9010KETU218W0001", "b1d5c3f0-0000-4111-8222-000000000001"


def answer(interface, data, turn=0, **args):
    return Answer(
        interface, args, NOON + timedelta(minutes=10 * turn), 200, {"code": 0, "msg": "success", "data": data}
    )


def inverter(turn=0):
    """What GetInverterBySN says of it, as the catalogue has it: 6 kW of sun, 1 kW into the battery, 4 kW sold."""
    return {
        "last_refresh_time": f"2026-06-21 12:{10 * turn:02}:30", "status": 1, "pac": 5000, "ppv": 6000 + 20 * turn,
        "pbattery": -1000, "pmeter": 4000 + 20 * turn, "pload": 1000, "eday": 12.30 + turn, "etotal": 12345.6 + turn,
        "hour_total": 5000.1, "tempperature": 41.5, "vpv1": 600.5, "ipv1": 6.1, "vpv2": 500.5, "ipv2": 4.7,
        "vac1": 230.1, "iac1": 7.3, "vac2": 231.2, "iac2": 7.2, "vac3": 229.8, "iac3": 7.3, "fac1": 50.01, "soc": 62,
        "vbattery": 400.2, "ibattery": -2.5,
    }  # fmt: skip


def lists():
    """The lists that name plant and device."""
    device = {"sn": SERIAL, "name": "Roof", "model_type": "GW10K-ET", "capacity": 10, "device_type": "storage"}
    return [
        answer("GetUserPlantList", {"list": [{"plant_id": PLANT, "plant_name": "House"}]}, page_index=1),
        answer("GetInverterList", {"list": [device]}, Plantid=PLANT),
    ]


def twice(change):
    """All answers, with what `change(entry)` makes of each of the inverter's."""
    own = [answer("GetInverterBySN", change(inverter(turn)), turn, invertersn=SERIAL) for turn in (0, 1)]
    return [*lists(), *own]


def renamed(entry, **names):
    return {names.get(key, key): value for key, value in entry.items()}
