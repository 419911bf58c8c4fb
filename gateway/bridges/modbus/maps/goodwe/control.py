"""From the registers of a write request to what it asks for."""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.bridges.modbus.codes import ExceptionCode
from gateway.bridges.modbus.maps.goodwe.meaning import (
    Words,
    impossible,
    limits,
    lowest_or_full,
    meaning,
    moves,
    orders,
    scheduled,
)
from gateway.bridges.modbus.maps.goodwe.panel import TARGET_SOC, Panel, same
from gateway.bridges.modbus.maps.goodwe.registers import EMS_MODE, EMS_POWER, EXPORT_LIMIT, SETTINGS
from gateway.bridges.modbus.writes import Wish, WriteRefusedError
from gateway.core.model import Value
from gateway.core.points import BATTERY, SETPOINTS, BadValueError
from gateway.core.policy.policy import parse_within

BATTERY_SETPOINTS: Final = tuple(point.id for point in SETPOINTS.values() if point.group == BATTERY)

ACTS: Final[Mapping[int, Callable[[Words], bool]]] = {EXPORT_LIMIT: limits, EMS_POWER: moves, EMS_MODE: orders}
"""When a write of the register asks for its setpoint anew, changed or not. Those that aren't here always do."""
ALONG: Final[Mapping[int, tuple[str, ...]]] = {EMS_MODE: ("battery_power_target", TARGET_SOC)}
"""What a register asks for beside its own setpoint, where that is known."""


def written(address: int, payload: bytes) -> dict[int, int]:
    """Return register → number of a write request."""
    return {
        address + n: int.from_bytes(payload[2 * n : 2 * n + 2], "big", signed=False) for n in range(len(payload) // 2)
    }


def asks(panel: Panel, words: Words) -> list[Wish]:
    """Return what it means for the device when these registers are written. Changes nothing.

    Raises WriteRefusedError: 02 for a register that can't be written, 03 for what it does not take.
    """
    for register in words:
        if register not in SETTINGS:
            raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"register {register} is not writable")
    for register, word in words.items():
        if not SETTINGS[register].takes(word):
            raise _refused(f"register {register} does not take {word}")
    after = panel.after(words)
    if why := impossible(after):
        raise _refused(why)
    before = panel.words
    was, means = meaning(before, panel.device), meaning(after, panel.device)
    wanted: dict[str, Value] = {}
    for register, word in words.items():
        setpoint = SETTINGS[register].setpoint
        if not setpoint:
            continue
        if not ACTS.get(register, _always)(after):
            _check_kept(panel, setpoint, word)
        elif setpoint not in means:
            raise _refused(f"register {register}: there is no value yet to switch on, or none that means off")
        else:
            wanted[setpoint] = means[setpoint]
            wanted |= {other: means[other] for other in ALONG.get(register, ()) if other in means}
    battery = {setpoint: means[setpoint] for setpoint in BATTERY_SETPOINTS if setpoint in means}
    if "work_mode" in wanted and not panel.takes("work_mode") and (scheduled(before) or scheduled(after)):
        # Here the work mode only switches the schedule, which is an order for the battery, and that can be given.
        del wanted["work_mode"]
        wanted |= battery
    wanted |= {setpoint: value for setpoint, value in battery.items() if not same(was.get(setpoint), value)}
    if TARGET_SOC in wanted:
        # An earlier order may have left another one in force, at which this one would end at once.
        known = panel.target_soc
        stands = lowest_or_full(panel.device, str(means["battery_mode"])) if known is None else known
        if same(stands, wanted[TARGET_SOC]):
            del wanted[TARGET_SOC]
    return [Wish(setpoint, value) for setpoint, value in wanted.items()]


def _always(_: Words) -> bool:
    return True


def _check_kept(panel: Panel, setpoint: str, word: int) -> None:
    """Refuse now what would be refused when it comes to act. 0 stands for "nothing" and passes."""
    if setpoint == SETTINGS[EMS_MODE].setpoint or not word or panel.device is None:
        return
    if not panel.takes(setpoint):
        raise WriteRefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS, f"{panel.device.serial} does not take {setpoint}")
    try:
        parse_within(SETPOINTS[setpoint], word, panel.device.setpoints[setpoint])
    except BadValueError as error:
        raise _refused(str(error)) from error


def _refused(why: str) -> WriteRefusedError:
    return WriteRefusedError(ExceptionCode.ILLEGAL_DATA_VALUE, why)
