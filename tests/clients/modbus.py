"""Clients of Modbus: the native map, word by word; SunSpec; GoodWe's own."""

import struct

from gateway.bridges.modbus import registers
from tests.clients import programs
from tests.clients.table import Checks, differs
from tests.clients.world import HOST, HOUSE, PARK, UNITS

ILLEGAL_ADDRESS, ILLEGAL_VALUE, NO_PATH = 2, 3, 10
READ = {
    "ac_power": 0.5,
    "pv_power": 0.5,
    "grid_power": 0.5,
    "l1_voltage": 0.05,
    "energy_today": 0.01,
    "battery_soc": 0.5,
}
"""What is read, and how far it may be from the truth: what the cloud rounds to."""
SUNSPEC_MARK = [0x5375, 0x6E53]


def address(point, type_="float32"):
    return next(r.address for r in registers.registers() if r.point == point and r.type == type_)


async def native(world, program):
    """The orders of protocol.md: each library reads, writes, and understands a refusal."""
    house, park = UNITS[HOUSE], UNITS[PARK]
    limit, once_more = world.next_limit(), world.next_limit()
    limit_float, limit_word = address("active_power_limit"), address("active_power_limit", "int16")
    reads = {f"float:{house}:{address(point)}": point for point in READ}
    others = {f"input:{world.units[serial]}:{address('ac_power')}": serial for serial in world.inverters}
    mark, serial = f"read:{house}:40000:2", f"read:{house}:35003:8"
    refused = {
        f"write-float:{park}:{limit_float}:101": ILLEGAL_VALUE,
        f"write:{park}:{limit_word}:1001": ILLEGAL_VALUE,
        f"write:{park}:{address('ac_power', 'int32')}:1": ILLEGAL_ADDRESS,
        f"read:{house}:999:1": ILLEGAL_ADDRESS,
        "read:77:0:1": NO_PATH,
    }
    write = f"write-float:{park}:{limit_float}:{limit}"
    lines = await programs.lines(program, HOST, world.ports["modbus"], *reads, *others, mark, serial, *refused, write)

    def value(order):
        return lines[order].get("value", lines[order])

    truth = world.truth(HOUSE)
    checks = Checks(program.name, program.version, program.language)
    checks.say(
        f"FC3: {len(reads)} float32 of a hybrid inverter, SunSpec's mark, a serial number",
        *(differs(point, value(order), truth[point], READ[point]) for order, point in reads.items()),
        differs("mark", value(mark), SUNSPEC_MARK),
        differs("serial number", value(serial), list(struct.unpack(">8H", HOUSE.encode()))),
    )
    checks.say(
        f"FC4: AC power of {len(others)} units",
        *(differs(serial, value(order), world.truth(serial)["ac_power"], 0.5) for order, serial in others.items()),
    )
    checks.say(
        "refused: FC16 and FC6 out of range (03), a measurement (02), no register (02), no unit (0A)",
        *(differs(order, lines[order].get("exception"), code) for order, code in refused.items()),
    )
    checks.say(
        "FC16: a limit as float32 reaches the inverter", differs(write, lines[write], {"what": write, "value": None})
    )
    await world.reached(limit)
    write, read = f"write:{park}:{limit_word}:{once_more * 10}", f"float:{park}:{limit_float}"
    await programs.lines(program, HOST, world.ports["modbus"], write)
    await world.reached(once_more)
    await world.shown(once_more)
    lines = await programs.lines(program, HOST, world.ports["modbus"], read)
    checks.say("FC6: one as int16 too, and it reads back", differs(read, value(read), float(once_more), 0.01))
    return checks.rows


async def sunspec(world, program):
    """Every unit is scanned; each inverter's models say what the simulator says."""
    units = world.units
    lines = await programs.lines(program, HOST, world.ports["modbus"], ",".join(map(str, units.values())))

    def read(serial, *names):
        return next((lines[key]["value"] for name in names if (key := f"{units[serial]}.{name}") in lines), None)

    checks = Checks(program.name, program.version, program.language)
    checks.say(
        f"scans {len(units)} units, no model with an error, each with its serial number",
        *(line["error"] for line in lines.values() if "error" in line),
        *(
            differs(serial, read(serial, "1.SN"), serial if len(serial) <= 32 else serial.replace("-", ""))
            for serial in units
        ),
    )
    complaints = []
    for serial in world.inverters:
        truth = world.truth(serial)
        power = truth["ac_power"]
        complaints += [
            differs(f"{serial} 103 W", read(serial, "103.W", "101.W"), power, 10 + power / 100),
            differs(f"{serial} 701 W", read(serial, "701.W"), power, 10 + power / 100),
            differs(f"{serial} PhVphA", read(serial, "103.PhVphA", "101.PhVphA"), truth["l1_voltage"], 0.2),
            differs(
                f"{serial} WH", read(serial, "103.WH", "101.WH"), truth["energy_total"] * 1000, truth["energy_total"]
            ),
        ]
    checks.say(f"power, voltage and energy of {len(world.inverters)} inverters (101, 103, 701)", *complaints)
    for model, enable in ((123, "WMaxLim_Ena"), (704, "WMaxLimPctEna")):
        limit = world.next_limit()
        wanted = (f"{model}.WMaxLimPct={limit}", f"{model}.{enable}=1")
        await programs.lines(program, HOST, world.ports["modbus"], UNITS[PARK], *wanted)
        await world.reached(limit)
        checks.say(f"a limit by model {model} reaches the inverter")
    return checks.rows


async def goodwe(world, program):
    """Takes the cloud for the inverter in the house."""
    udp = program.name.endswith("UDP")
    number, mode = (0, "general") if udp else (2, "backup")
    port = world.ports["udp" if udp else "modbus"]
    lines = await programs.lines(program, HOST, port, UNITS[HOUSE], f"work_mode={number}")
    truth = world.truth(HOUSE)
    same = {
        "ppv": ("pv_power", 20 + truth["pv_power"] / 20),
        "vpv1": ("pv1_voltage", 0.2),
        "vgrid": ("l1_voltage", 0.2),
        "battery_soc": ("battery_soc", 1),
        "pbattery1": ("battery_power", 1),
        "e_day": ("energy_today", 0.1),
    }
    checks = Checks(program.name, program.version, program.language)
    checks.say(
        f"finds the inverter by {'UDP' if udp else 'Modbus TCP'}, reads {len(lines)} sensors",
        differs("serial number", lines["serial_number"]["value"], HOUSE),
        *(differs(name, lines[name]["value"], truth[point], by) for name, (point, by) in same.items()),
    )
    await world.has(HOUSE, "work_mode", mode)
    checks.say(f"a work mode ({mode}) reaches the inverter")
    return checks.rows
