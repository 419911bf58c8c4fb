# ruff: noqa: INP001, T201 - a script that prints
"""How long the page takes for a step of a scroll through its list of devices, in headless Chromium.

    python benchmarks/page/run.py [--devices 2000] [--steps 200]

A step is a notch of the wheel (100 px), a page, or a jump to anywhere, in turn; its time is from the scroll to the end
of the frame that shows it: CPU of the page's thread (its script, layout and paint), in brackets time on the clock, into
which goes the wait for the frame, up to 17 ms, and whatever else the machine does. Meanwhile a tenth of the devices
change each second, which is in these times too. The aim is 60 ms at most.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.bridges.web import WebBridge, WebSettings
from tests.kit.bench import Bench, until
from tests.kit.chromium import Tab, driven

AIM: Final = 60.0
"""Milliseconds."""
STEP: Final = """async kind => {
  const box = document.getElementById('devices');
  const room = box.scrollHeight - box.clientHeight;
  // A message that is sent in a frame comes once that is laid out and painted.
  const painted = () => new Promise(done => requestAnimationFrame(() => {
    const {port1, port2} = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage(null);
  }));
  await new Promise(requestAnimationFrame);
  const began = performance.now();
  const by = {wheel: 100, page: box.clientHeight, jump: room * 0.37}[kind];
  box.scrollTop = (box.scrollTop + by) % room;
  await painted();
  return performance.now() - began;
}"""
KINDS: Final = ("wheel", "page", "jump")


async def change(gateway: Bench, serials: list[str]) -> None:
    """Publish a tenth of the devices each second, until cancelled."""
    n = 0
    while True:
        for serial in serials[n % 10 :: 10]:
            gateway.publish(serial, ac_power=float(n), battery_soc=50.0)
        n += 1
        await asyncio.sleep(1)


async def step(tab: Tab, kind: str) -> tuple[float, float]:
    """Scroll once. Returns milliseconds of CPU of the page's thread, and on the clock."""
    before = await busy(tab)
    clock = await tab.run(f"({STEP})('{kind}')")
    return await busy(tab) - before, clock


async def busy(tab: Tab) -> float:
    """Return milliseconds of CPU that the page's thread has had."""
    metrics = (await tab.call("Performance.getMetrics"))["metrics"]
    return 1000 * next(each["value"] for each in metrics if each["name"] == "TaskDuration")


async def measure(directory: Path, devices: int, steps: int) -> Mapping[str, list[tuple[float, float]]]:
    """Return milliseconds of each step, of CPU and on the clock, by kind."""
    serials = [f"SN{n:05}" for n in range(devices)]
    async with Bench(directory) as gateway:
        for serial in serials:
            gateway.announce(serial=serial, name=f"Inverter {serial}")
            gateway.publish(serial, ac_power=1000.0, battery_soc=50.0)
        runner = gateway.run(WebBridge, WebSettings(port=0, recent=120), "web")
        await until(lambda: runner.bridge.port)
        changing = asyncio.create_task(change(gateway, serials))
        url = f"http://127.0.0.1:{runner.bridge.port}/#/devices"
        async with driven(directory / "browser") as browser, browser.tab(url) as tab:
            await tab.until(f"document.getElementById('count').innerText === '{devices} of {devices}'")
            await tab.call("Performance.enable", timeDomain="threadTicks")
            for kind in KINDS * 5:  # the first ones compile
                await step(tab, kind)
            found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
            for kind in KINDS * steps:
                found[kind].append(await step(tab, kind))
            rows = await tab.run("document.querySelectorAll('#devices .row').length")
            print(f"{devices} devices, {rows} rows in the document")
        changing.cancel()
    return found


def main() -> None:
    """Print a line for each kind of step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measure(Path(directory), options.devices, options.steps))
    for kind, times in found.items():
        cpu, clock = (sorted(each) for each in zip(*times, strict=True))
        print(f"{kind:6} middle {at(cpu, 0.5)} ({at(clock, 0.5)}), 99 % {at(cpu, 0.99)} ({at(clock, 0.99)}), "
              f"longest {cpu[-1]:.0f} ({clock[-1]:.0f}) ms")  # fmt: skip
    longest = max(cpu for times in found.values() for cpu, _ in times)
    print(f"longest of all {longest:.0f} ms, the aim is {AIM:.0f} ms at most")


def at(times: list[float], part: float) -> str:
    """Return the time that this part of them does not exceed."""
    return f"{times[int(len(times) * part)]:.0f}"


if __name__ == "__main__":
    main()
