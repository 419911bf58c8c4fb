"""A gateway's core with a batch bridge, GoodWe's side of it simulated, and a Kafka cluster between them."""

import asyncio
import json
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from gateway.bridges.batch import BatchBridge, BatchSettings
from gateway.commands.policy.policy import ControlSettings, Rule
from gateway.core.model import CommandState, Device, DeviceKind, Range
from gateway.core.points import SETPOINTS
from gateway.kafka import KafkaConnection
from gateway.run.supervisor import Runner
from gateway.sems.catalogue import load
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.batch import BatchSettings as CloudSettings
from gateway.simulator.results import ResultFault
from tests.kit.bench import Bench, collected, until
from tests.kit.clock import NOON

SUPPLIER = "acme"
CONTROL = ControlSettings(
    enabled=True, allow=[Rule(devices=["*"], setpoints=list(SETPOINTS))], max_per_minute=100_000, refresh_within=0
)
HOUSE, ROOF = "9010KETU218W0001", "9020KDTU219W0001"
QUICK = {"fetch.wait.max.ms": 20}
"""The mock answers a fetch no sooner, also when something comes."""
INTERFACES = [interface.name for interface in load("batch").interfaces]


def device(serial=HOUSE, kind=DeviceKind.STORAGE, **setpoints):
    known = {"running": Range(), "active_power_limit": Range(0, 100)} | setpoints
    return Device(serial=serial, kind=kind, name="House", plant="p", rated_power=10_000.0, setpoints=known)


class Plant(Bench):
    """`send` gives commands, `ended` waits for what became of them, `goodwe` is the far side."""

    def __init__(self, data_dir, cluster, prefix, control=CONTROL):
        super().__init__(data_dir, control)
        self.cluster = cluster
        self.prefix = prefix
        self.events = []
        self.goodwe = None

    def settings(self, **changes):
        fields = {
            "connection": {"bootstrap_servers": self.cluster.plaintext, "options": QUICK},
            "prefix": self.prefix,
            "supplier": SUPPLIER,
            "whitelist": [HOUSE, ROOF],
            "linger_ms": 10,
            "group": f"gateway.{self.prefix}",
        }
        return BatchSettings.model_validate(fields | changes)

    def join(self, name="batch", **changes):
        """Run a batch bridge, as the only controller unless others are named."""
        runner = self.prepare(name, **changes)
        runner.start()
        return runner

    def prepare(self, name="batch", **changes):
        """Make it, and let it be the only controller; a dispatcher that is started looks for it at once."""
        runner = Runner(name, name, BatchBridge, self.settings(**changes), self.services)
        self.runners.append(runner)
        self.dispatcher.use({name: runner.bridge})
        return runner

    def status(self, name="batch"):
        return next((s for s in self.router.bridges() if s.name == name), None)

    async def up(self, name="batch"):
        return await until(lambda: (s := self.status(name)) and s.up and s, "the bridge is up")

    async def down(self, words, name="batch"):
        return await until(lambda: (s := self.status(name)) and not s.up and words in s.detail and s, f"down: {words}")

    def topic(self, interface="active_power", kind="command"):
        return f"{self.prefix}.{SUPPLIER}.{interface}.{kind}"

    async def send(self, *commands):
        answers = await self.dispatcher.submit(*commands)
        assert all(a.state is CommandState.ACCEPTED for a in answers), answers
        return commands

    def steps(self, command):
        return [e for e in self.events if e.command.id == command.id]

    async def ended(self, *commands):
        def ends():
            found = {e.command.id: e for e in self.events if e.state.final and not e.correction}
            return [found[c.id] for c in commands] if all(c.id in found for c in commands) else None

        return await until(ends, "the commands end")

    async def done(self, *commands):
        """Send commands and return their ends; of one its end."""
        ends = await self.ended(*await self.send(*commands))
        return ends[0] if len(ends) == 1 else ends

    async def counted(self, wanted, name="batch"):
        """Wait until results have come to what is wanted."""
        figures = self.figures(name)
        with suppress(TimeoutError):
            await until(lambda: figures.results == wanted)
        assert figures.results == wanted, f"{dict(figures.results)}, bad: {dict(figures.bad)}"

    def figures(self, name="batch"):
        return next(r.bridge._tally for r in self.runners if r.name == name)

    def spoil(self, result, **fields):
        self.goodwe.batch.faults.listed = (ResultFault(result=result, **fields),)

    # what nobody simulates: a far side by hand

    async def commands(self, count, interface="active_power"):
        messages = await asyncio.to_thread(self.cluster.messages, self.topic(interface), count)
        return [json.loads(message.value()) for message in messages]

    async def answer(self, *values, interface="active_power"):
        """Publish results: raw ones as they are."""
        raw = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
        await asyncio.to_thread(self.cluster.send, self.topic(interface, "result"), b"key", *raw)


def result(request, *results, **more):
    entries = [{"sn": sn, "code": code, "msg": "said", "timestamp": 0} for sn, code in results]
    return {"requestId": request, "timestamp": 0, "results": entries} | more


@asynccontextmanager
async def plant(directory, cluster, *, simulated=True, control=CONTROL, prefix="", before=None, **cloud):
    """Give topics of the test's own, a core that knows two devices, and a simulated GoodWe unless told otherwise."""
    prefix = prefix or f"goodwe-{uuid.uuid4().hex[:8]}"
    directory.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        bench = Plant(directory, cluster, prefix, control)
        if before is not None:
            before(bench)
        await stack.enter_async_context(bench)
        bench.events, _ = await stack.enter_async_context(collected(bench.router))
        bench.announce(device())
        bench.announce(device(ROOF, DeviceKind.INVERTER))
        await asyncio.to_thread(make_topics, bench)
        if simulated:
            bench.goodwe = await stack.enter_async_context(goodwe(cluster.plaintext, prefix, **cloud))
        yield bench


def make_topics(bench, **config):
    """Make all topics that are not there yet."""
    wanted = [bench.topic(interface, kind) for interface in INTERFACES for kind in ("command", "result")]
    there = bench.cluster.there()
    if missing := [topic for topic in wanted if topic not in there]:
        bench.cluster.make(*missing, partitions=2, **config)


@asynccontextmanager
async def goodwe(servers, prefix, **fields):
    whitelist = fields.pop("whitelist", None)
    settings = CloudSettings(
        connection=KafkaConnection(bootstrap_servers=[servers], options=QUICK),
        prefix=prefix,
        supplier=SUPPLIER,
        group=f"goodwe.{prefix}",
        whitelist=whitelist,
    )
    fields = {"port": 0, "start": NOON, "device_delay": 0} | fields
    simulator = Simulator(SimulatorSettings(**fields), batch=settings)
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()
