"""What the simulated GoodWe pushes, interface by interface, through real HTTP."""

import pytest

from gateway.core.model import DeviceKind
from gateway.sems.catalogue import load
from gateway.simulator.pushes import USES, PushOrder
from gateway.simulator.server import Simulator
from gateway.simulator.settings import SimulatorSettings
from tests.bridges.push.conftest import SECRET, pushed_to


@pytest.mark.parametrize(("platform", "api"), [("classic", "open_api"), ("developer", "developer")])
async def test_all_that_goodwe_pushes_is_taken(tmp_path, platform, api):
    simulator = Simulator(SimulatorSettings(port=0))
    await simulator.start()
    try:
        async with pushed_to(tmp_path, platform=platform, timeout=60) as it:
            pushed = [i.name for i in load(api).interfaces if i.use in USES]
            order = PushOrder(
                url=f"{it.url}/push",
                secret=SECRET,
                api=api,
                interfaces=tuple(pushed),
                timeout=120,
                duplicates=0.3,
                disorder=0.3,
                retries=0,
            )
            report = await simulator.pusher.done(simulator.pusher.begin(order).order)
            pushes = list(simulator.pusher.pushes)
            assert {push.answer for push in pushes} == {"204"}
            assert {push.interface for push in pushes} == set(pushed)
            assert (report.given_up, report.acknowledged) == (0, report.pushes)
            assert it.counts.get("bad", 0) == 0
            for state in it.bench.router.states():
                type_ = simulator.world.type_of(state.device.serial)
                said = load(api).kind_of(type_)
                # Of which of several types a device is, a push may not say.
                assert state.device.kind in (said, DeviceKind.INVERTER)
    finally:
        await simulator.stop()
