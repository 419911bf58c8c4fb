"""What the demo shows: a live table on a terminal, plain lines elsewhere."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from gateway import show
from gateway.app import Gateway
from gateway.core.model import CommandEvent, DeviceKind, DeviceState, iso
from gateway.demo.example import Example

REFRESH: Final = 1.0
STEPS_SHOWN: Final = 6
PLAIN_INTERVAL: Final = 10.0


class Screen:
    """Follows the gateway like any sink, and paints."""

    def __init__(
        self, gateway: Gateway, console: Console, *, example: Example, mqtt_port: int, modbus_port: int
    ) -> None:
        self._gateway = gateway
        self._example = example
        self._console = console
        self._mqtt_port = mqtt_port
        self._modbus_port = modbus_port
        self._steps: deque[CommandEvent] = deque(maxlen=STEPS_SHOWN)

    async def run(self) -> None:
        """Paint until cancelled."""
        self._console.print(self._hints())
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            await self._live()
        else:
            await self._plain()

    async def _live(self) -> None:
        mailbox = self._gateway.router.attach("screen")
        try:
            with Live(self._picture(), console=self._console, auto_refresh=False, transient=False) as live:
                while True:
                    # Ages grow also while nothing arrives.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(REFRESH):
                            self._steps.extend((await mailbox.take()).events)
                    live.update(self._picture(), refresh=True)
                    await asyncio.sleep(REFRESH / 2)
        finally:
            self._gateway.router.detach("screen")

    async def _plain(self) -> None:
        """Print each step of a command as it comes, and now and then how the plants do."""
        mailbox = self._gateway.router.attach("screen")
        loop = asyncio.get_running_loop()
        next_summary = loop.time()
        try:
            while True:
                updates = await mailbox.take()
                for event in updates.events:
                    self._console.print(show.step(event), highlight=False)
                if loop.time() >= next_summary:
                    next_summary = loop.time() + PLAIN_INTERVAL
                    for state in self._gateway.router.states():
                        if state.device.kind is DeviceKind.PLANT:
                            self._console.print(_line(state), highlight=False)
        finally:
            self._gateway.router.detach("screen")

    def _picture(self) -> Group:
        table = show.device_table(self._gateway.router.states(), width=self._console.width)
        down = [status for status in self._gateway.router.bridges() if not status.up]
        troubles = [Text(f"{status.name} is down: {status.detail}", style="red") for status in down]
        steps = [Text.from_markup(show.step(event)) for event in self._steps]
        title = [Text("\ncommands", style="bold")] if steps else []
        return Group(Padding(table, (1, 0, 0, 0)), *troubles, *title, *steps)

    def _hints(self) -> str:
        """Lines to paste into another terminal."""
        device, mqtt, modbus = self._example, self._mqtt_port, self._modbus_port
        publish = f"mosquitto_pub -p {mqtt} -t sems/{device.serial}/set/active_power_limit"
        mbpoll = f"mbpoll -m tcp -p {modbus} -a {device.unit} -0 -t 4:float -B -q -1"
        return "\n".join(
            (
                "",
                "[bold]Paste into another terminal[/]  [dim](sudo apt install mosquitto-clients mbpoll)[/]",
                "[dim]# everything, as it changes[/]",
                f"mosquitto_sub -p {mqtt} -t 'sems/#' -v",
                "[dim]# hold an inverter at 10 % of its rated power and see it obey, then let it go[/]",
                f"{publish} -m 10",
                f"{publish} -m 100",
                "[dim]# the same over Modbus: read its AC power and its limit, write the limit[/]",
                f"{mbpoll} -r {device.power} 127.0.0.1",
                f"{mbpoll} -r {device.limit} 127.0.0.1",
                f"{mbpoll} -r {device.limit} 127.0.0.1 80",
                "[dim]# Ctrl-C here ends it[/]",
            )
        )


def _line(state: DeviceState) -> str:
    values = {point: state.values.get(point) for point in ("pv_power", "battery_power", "grid_power", "load_power")}
    text = "  ".join(f"{point}={value:.0f}" for point, value in values.items() if isinstance(value, (int, float)))
    stamp = iso(state.time) if state.time else "-"
    return f"{stamp}  {state.device.name}  {state.quality}  {text}"
