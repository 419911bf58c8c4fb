"""`sems-gateway demo --self-test`: the round trip, both ways, with clients that are not ours, over sockets."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import httpx
import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import AsyncModbusTcpClient
from rich.console import Console

from gateway.demo.example import Example

T = TypeVar("T")

SETPOINT: Final = "active_power_limit"
LEG_TIMEOUT: Final = 30.0
POLL: Final = 0.05
FROM_MQTT, FROM_MODBUS = 37.0, 82.0
ANOTHER: Final = "export_limit"
EXPORTED: Final = 2000.0
"""W."""


class LegError(Exception):
    """A leg of the round trip failed."""


class SelfTest:
    """Writes a limit over MQTT and finds it in the simulator and in Modbus; then the other way round."""

    def __init__(self, *, mqtt: int, modbus: int, sems: str, device: Example) -> None:
        self._ports = mqtt, modbus
        self._sems = sems
        self._serial, self._unit, self._register = device.serial, device.unit, device.limit
        self._results: list[dict[str, Any]] = []
        self._state: dict[str, Any] = {}
        self._asked = 0

    async def run(self, console: Console) -> bool:
        """Do all legs and print each with its latency. Returns whether all succeeded."""
        mqtt_port, modbus_port = self._ports
        mqtt = self._mqtt_client()
        modbus = AsyncModbusTcpClient("127.0.0.1", port=modbus_port, timeout=5, retries=0)
        try:
            await asyncio.to_thread(mqtt.connect, "127.0.0.1", mqtt_port)
            mqtt.loop_start()
            await modbus.connect()
            async with httpx.AsyncClient(base_url=self._sems, trust_env=False) as sems:
                return await self._legs(mqtt, modbus, sems, console)
        except OSError as error:
            console.print(f"[red]failed[/]  a client can't connect: {error}")
            return False
        finally:
            modbus.close()
            mqtt.disconnect()
            mqtt.loop_stop()

    async def _legs(
        self, mqtt: paho.Client, modbus: AsyncModbusTcpClient, sems: httpx.AsyncClient, console: Console
    ) -> bool:
        topic = f"sems/{self._serial}/set/{SETPOINT}"

        async def in_simulator() -> float | None:
            return _setpoint_of(self._serial, (await sems.get("/sim/state")).json(), SETPOINT)

        async def in_modbus() -> float | None:
            answer = await modbus.read_holding_registers(self._register, count=2, device_id=self._unit)
            if answer.isError():
                raise LegError(f"Modbus answered {answer}")
            value = modbus.convert_from_registers(answer.registers, modbus.DATATYPE.FLOAT32)
            return value if isinstance(value, float) else None

        async def write_modbus() -> bool:
            words = modbus.convert_to_registers(FROM_MODBUS, modbus.DATATYPE.FLOAT32)
            answer = await modbus.write_registers(self._register, words, device_id=self._unit)
            if answer.isError():
                raise LegError(f"Modbus answered {answer}")
            return True

        async def subscribed() -> bool:
            return bool(self._state)

        async def published() -> bool:
            mqtt.publish(topic, f"{FROM_MQTT:g}", qos=1)
            return True

        async def ended(value: float) -> bool:
            return any(result.get("state") == "succeeded" and result.get("value") == value for result in self._results)

        async def exported() -> bool:
            refused = [r for r in self._results if r.get("setpoint") == ANOTHER and r.get("state") == "rejected"]
            if len(refused) == self._asked:
                # What a device takes is found out some seconds after the start.
                self._asked += 1
                mqtt.publish(f"sems/{self._serial}/set/{ANOTHER}", f"{EXPORTED:g}", qos=1)
                await asyncio.sleep(1)
            state = (await sems.get("/sim/state")).json()
            return _setpoint_of(self._serial, state, ANOTHER) == EXPORTED

        async def shown() -> bool:
            return self._state.get(SETPOINT) == FROM_MODBUS

        legs: list[tuple[str, Callable[[], Awaitable[bool]]]] = [
            ("SEMS → gateway → MQTT        state arrives", subscribed),
            (f"MQTT → gateway              write {FROM_MQTT:g} %", published),
            ("gateway → Open API → SEMS   inverter obeys", lambda: _equals(in_simulator, FROM_MQTT)),
            ("SEMS → gateway → MQTT       result succeeded", lambda: ended(FROM_MQTT)),
            (f"gateway → Modbus            reads {FROM_MQTT:g} %", lambda: _equals(in_modbus, FROM_MQTT)),
            (f"Modbus → gateway            write {FROM_MODBUS:g} %", write_modbus),
            ("gateway → Open API → SEMS   inverter obeys", lambda: _equals(in_simulator, FROM_MODBUS)),
            ("SEMS → gateway → MQTT       result succeeded", lambda: ended(FROM_MODBUS)),
            (f"gateway → MQTT              state shows {FROM_MODBUS:g} %", shown),
            (f"MQTT → gateway → SEMS       export limit {EXPORTED:g} W, inverter obeys", exported),
            ("SEMS → gateway → MQTT       result succeeded", lambda: ended(EXPORTED)),
        ]
        for name, leg in legs:
            began = time.perf_counter()
            try:
                await _until(leg)
            except (LegError, TimeoutError, httpx.HTTPError) as error:
                trouble = str(error) or f"nothing within {LEG_TIMEOUT:.0f} s"
                console.print(f"[red]failed[/]  {name}: {trouble}", highlight=False)
                return False
            console.print(f"[green]ok[/]  {(time.perf_counter() - began) * 1000:7.0f} ms  {name}", highlight=False)
        console.print("The round trip works both ways. The simulated inverter takes 1 s to obey.", highlight=False)
        return True

    def _mqtt_client(self) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)

        def on_connect(client: paho.Client, *_: Any) -> None:
            client.subscribe([(f"sems/{self._serial}", 1), (f"sems/{self._serial}/result", 1)])

        def on_message(_client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
            with suppress(msgspec.DecodeError):
                payload = msgspec.json.decode(message.payload)
                if message.topic.endswith("/result"):
                    self._results.append(payload)
                else:
                    self._state = payload

        client.on_connect = on_connect
        client.on_message = on_message
        return client


async def _until(leg: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LEG_TIMEOUT):
        while not await leg():
            await asyncio.sleep(POLL)


async def _equals(read: Callable[[], Awaitable[float | None]], value: float) -> bool:
    return await read() == value


def _setpoint_of(serial: str, state: dict[str, Any], setpoint: str) -> float | None:
    """Find the value that is in force in what `/sim/state` says."""
    for plant in state["plants"]:
        for device in plant["devices"]:
            if device["serial"] == serial:
                value = device["setpoints"].get(setpoint)
                return float(value) if value is not None else None
    raise LegError(f"the simulator does not know {serial}")
