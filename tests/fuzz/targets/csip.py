"""What a 2030.5 server answers: from XML to events, and what they set."""

from contextlib import asynccontextmanager

from gateway.bridges.csip import xml
from gateway.bridges.csip.events import plan
from gateway.bridges.csip.identity import draws_of
from gateway.bridges.csip.mapping import setpoints_for, wishes
from gateway.bridges.csip.resources import MODES, Program, control_of, modes_of
from tests.bridges.csip.server import listed, watts
from tests.bridges.csip.test_parts import INVERTER, RANGES
from tests.fuzz import dice as change
from tests.fuzz.target import Target

NOW = 1_800_000_000
EVENT = (
    '<DERControl replyTo="/rsp" responseRequired="03"><mRID>AB{n}</mRID><creationTime>{t}</creationTime><EventStatus>'
    "<currentStatus>{n}</currentStatus><dateTime>{t}</dateTime><potentiallySuperseded>false</potentiallySuperseded>"
    "</EventStatus><interval><duration>600</duration><start>{t}</start></interval>"
    "<randomizeStart>-60</randomizeStart><DERControlBase>{base}</DERControlBase></DERControl>"
)
BASES = [
    watts("opModExpLimW", 15, 2) + watts("opModGenLimW", 4000),
    "<opModMaxLimW>5000</opModMaxLimW><opModEnergize>true</opModEnergize>",
]
SAMPLES = [
    listed("DERControl", *(EVENT.format(n=n, t=NOW - 60 * n, base=base) for n, base in enumerate(BASES))).encode(),
    xml.write("DefaultDERControl", [("mRID", "DD"), ("DERControlBase", [("opModMaxLimW", 5000)])]),
]


def make_csip(dice):
    return change.raw(dice, dice.choice(SAMPLES))


@asynccontextmanager
async def open_csip(_):
    async def feed(data):
        root = xml.read(data)
        controls = tuple(map(control_of, root.all("DERControl")))
        program = Program(mrid="P", primacy=1, default=modes_of(root.one("DERControlBase")), controls=controls)
        found = plan([program], {}, NOW, lambda mrid: draws_of("00", mrid), MODES.keys())
        plan([], found.records, NOW + 60, lambda mrid: draws_of("00", mrid), MODES.keys())
        for rated in (None, 8000.0):
            wishes(found.in_force, setpoints_for(INVERTER, {}, rated), RANGES, rated)

    yield feed


TARGETS = [Target("csip", "IEEE 2030.5: XML to events and setpoints", make_csip, open_csip, (xml.BadXmlError,))]
