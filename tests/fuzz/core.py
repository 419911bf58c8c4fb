"""A whole core round what is fuzzed: real router, policy, journal and dispatcher, in memory, and a context of it."""

from contextlib import asynccontextmanager

from gateway.api.bridge import BridgeSettings
from tests.kit.bench import EVERYTHING, Bench, Silent


class Core(Bench):
    def context(self, name, bridge=Silent, settings=None):
        """Return a context; what it is given goes to the real core."""
        return self.run(bridge, settings or BridgeSettings(), name)


@asynccontextmanager
async def core(directory, control=EVERYTHING, clock=None):
    async with Core(directory, control, clock) as it:
        it.announce()
        it.publish(ac_power=1234.5, status="normal", pv_power=2000.0)
        yield it
