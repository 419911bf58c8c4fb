"""What the demo shows: a live table on a terminal, plain lines elsewhere."""

import asyncio
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Final

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from gateway.core.mailbox import Updates
from gateway.core.model import DeviceKind, DeviceState, iso
from gateway.demo.example import Example
from gateway.demo.ports import Ports
from gateway.run.app import Gateway
from gateway.terminal import show

REFRESH: Final = 1.0
NEWS_SHOWN: Final = 6
PLAIN_INTERVAL: Final = 10.0


class Screen:
    """Follows the gateway like any sink, and paints."""

    def __init__(self, gateway: Gateway, console: Console, example: Example, ports: Ports) -> None:
        self._gateway = gateway
        self._example = example
        self._console = console
        self._ports = ports
        self._news: deque[str] = deque(maxlen=NEWS_SHOWN)
        """Steps of commands, and alarms, as lines of markup."""

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
                            self._news.extend(_news(await mailbox.take()))
                    live.update(self._picture(), refresh=True)
                    await asyncio.sleep(REFRESH / 2)
        finally:
            self._gateway.router.detach("screen")

    async def _plain(self) -> None:
        """Print each step of a command and each alarm as it comes, and now and then how the plants do."""
        mailbox = self._gateway.router.attach("screen")
        loop = asyncio.get_running_loop()
        next_summary = loop.time()
        try:
            while True:
                updates = await mailbox.take()
                for line in _news(updates):
                    self._console.print(line, highlight=False)
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
        news = [Text.from_markup(line) for line in self._news]
        title = [Text("\ncommands and alarms", style="bold")] if news else []
        # A table of more lines than the terminal has is cut off below: what a command brings about stands above.
        return Group(*title, *news, *troubles, Padding(table, (1, 0, 0, 0)))

    def _hints(self) -> str:
        """Lines to paste into another terminal."""
        device, mqtt, modbus = self._example, self._ports.mqtt, self._ports.modbus
        # What `make demo` installs is on nobody's path.
        program = "sems-gateway" if which("sems-gateway") else str(Path(sys.executable).with_name("sems-gateway"))
        there = f"--data-dir {self._gateway.config.data_dir}"
        publish = f"mosquitto_pub -p {mqtt} -t sems/{device.serial}/set/active_power_limit"
        charging = f"mosquitto_pub -p {mqtt} -t sems/{device.charger}/set/charging"
        charger = (
            (
                "[dim]# have the EV charger wait, then let it charge[/]",
                f"{charging} -m false",
                f"{charging} -m true",
            )
            if device.charger
            else ()
        )
        mbpoll = f"mbpoll -m tcp -p {modbus} -a {device.unit} -0 -t 4:float -B -q -1"
        return "\n".join(
            (
                "",
                "[bold]Paste into another terminal[/]  [dim](sudo apt install mosquitto-clients mbpoll curl)[/]",
                "[dim]# the page: open it in a browser; its token sets values and halts[/]",
                f"http://127.0.0.1:{self._ports.web}/  [dim]token: {self._ports.web_token}[/]",
                "[dim]# everything, as it changes[/]",
                f"mosquitto_sub -p {mqtt} -t 'sems/#' -v",
                "[dim]# hold an inverter at 10 % of its rated power and see it obey, then let it go[/]",
                f"{publish} -m 10",
                f"{publish} -m 100",
                "[dim]# the same over Modbus: read its AC power and its limit, write the limit[/]",
                f"{mbpoll} -r {device.power} 127.0.0.1",
                f"{mbpoll} -r {device.limit} 127.0.0.1",
                f"{mbpoll} -r {device.limit} 127.0.0.1 80",
                "[dim]# feed at most 2 kW into the grid[/]",
                f"mosquitto_pub -p {mqtt} -t sems/{device.serial}/set/export_limit -m 2000",
                *charger,
                "[dim]# the same at the command line, and over HTTP[/]",
                f"{program} explain {there} {device.serial} active_power_limit 30",
                f"{program} send {there} {device.serial} active_power_limit 30 --wait",
                f"{program} audit {there}",
                f"{program} halt {there} --reason lunch; {program} resume {there}",
                self._over_http(40),
                "[dim]# break an inverter and see the alarm come, then repair it[/]",
                self._fault(tripped=True),
                self._fault(tripped=False),
                "[dim]# Ctrl-C here ends it[/]",
            )
        )

    def _over_http(self, limit: int) -> str:
        url = f"http://127.0.0.1:{self._ports.web}/api/v1/devices/{self._example.serial}/set"
        login = f"-H 'Authorization: Bearer {self._ports.web_token}'"
        return f"curl -s {login} --json '{{\"active_power_limit\": {limit}}}' {url}"

    def _fault(self, *, tripped: bool) -> str:
        order = {"devices": {self._example.serial: {"tripped": tripped}}}
        return f"curl -s -o /dev/null {self._ports.sems_url}/sim/faults -d '{msgspec.json.encode(order).decode()}'"


def _news(updates: Updates) -> list[str]:
    return [*map(show.step, updates.events), *map(show.alarm, updates.alarms)]


def _line(state: DeviceState) -> str:
    values = {point: state.values.get(point) for point in ("pv_power", "battery_power", "grid_power", "load_power")}
    text = "  ".join(f"{point}={value:.0f}" for point, value in values.items() if isinstance(value, (int, float)))
    stamp = iso(state.time) if state.time else "-"
    return f"{stamp}  {escape(state.device.name)}  {state.quality}  {text}"
