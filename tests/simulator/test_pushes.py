"""What the simulated GoodWe pushes, taken by a real HTTP server."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest
import uvicorn
from starlette.responses import Response

from gateway.sems.catalogue import load
from gateway.sems.normalise import entries, read
from gateway.simulator.pushes import PushOrder
from tests.kit.bench import until
from tests.kit.ports import free_port
from tests.simulator.kit import HOUSE, HOUSE_SERIAL, PARK, ROOF_SERIAL, SimulatedCloud


class Receiver:
    """Takes pushes and answers what it is told to."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/push"
        self.got = []
        self.headers = []
        self.answers = []
        self.under_way = self.most_at_once = 0
        self.hold = 0.0

    async def __call__(self, scope, receive, send):
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        if self.hold:
            await asyncio.sleep(self.hold)
        self.got.append(msgspec.json.decode(body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.under_way -= 1
        status = self.answers.pop(0) if self.answers else 204
        await Response(status_code=status)(scope, receive, send)

    async def __aenter__(self):
        config = uvicorn.Config(
            self, port=self.port, log_config=None, access_log=False, lifespan="off", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_):
        self._server.should_exit = True
        await self._task


@pytest.fixture
async def receiver():
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def pusher(cloud):
    return cloud.simulator.pusher


async def push(pusher, receiver, **order):
    fields = {"url": receiver.url, "pause": 0.01, "interval": 0.0} | order
    return await pusher.done(pusher.begin(PushOrder(**fields)).order)


async def test_a_push_is_the_answer_to_the_query_with_its_name(cloud, pusher, receiver):
    await push(pusher, receiver, interfaces=("GetInverterBySN", "GetPlantPowerFlow"), devices=(HOUSE_SERIAL, HOUSE.id))
    inverter, plant = sorted(receiver.got, key=lambda body: "plant_id" in body)
    assert inverter == {"interface": "GetInverterBySN", "sn": HOUSE_SERIAL, "data": await cloud.inverter()}
    asked = await cloud.ask("GetPlantPowerFlow", plant=HOUSE.id)
    assert plant == {"interface": "GetPlantPowerFlow", "plant_id": HOUSE.id, "data": asked}
    assert receiver.headers[0]["content-type"] == "application/json"
    assert "x-push-secret" not in receiver.headers[0]


async def test_the_secret_goes_in_a_header(pusher, receiver):
    await push(pusher, receiver, devices=(HOUSE_SERIAL,), interfaces=("GetInverterBySN",), secret="s3cret")
    assert receiver.headers[0]["x-push-secret"] == "s3cret"


async def test_bodies_of_the_developer_platform_are_its_own(pusher, receiver):
    await push(pusher, receiver, api="developer", interfaces=("DeviceTelemetry",), devices=(ROOF_SERIAL,))
    interface = load("developer").interface("DeviceTelemetry")
    [body] = receiver.got
    [entry] = entries(interface, body["data"])
    now = datetime.now(UTC)
    assert read(interface, entry, UTC, now).text("serial") == body["sn"] == ROOF_SERIAL


async def test_without_names_everything_that_is_measured_is_pushed(pusher, receiver):
    report = await push(pusher, receiver)
    told = {body.get("sn", body.get("plant_id")) for body in receiver.got}
    world = pusher._world
    assert told == {serial for plant in world for serial in (plant.id, *(d.serial for d in plant.everything))}
    assert report.pushes == report.acknowledged == len(receiver.got)
    assert not report.under_way


async def test_what_is_not_answered_2xx_is_tried_again_and_then_given_up(pusher, receiver):
    receiver.answers = [500, 503, 204, 302, 500, 401, 404]
    one = {"interfaces": ("GetInverterBySN",), "devices": (HOUSE_SERIAL,)}
    first = await push(pusher, receiver, **one)
    assert (first.attempts, first.acknowledged, first.given_up) == (3, 1, 0)
    second = await push(pusher, receiver, **one)
    assert (second.attempts, second.acknowledged, second.given_up) == (4, 0, 1)
    won, lost = pusher.pushes
    assert (won.attempts, won.answer) == (3, "204")
    assert won.acknowledged >= won.sent
    assert (lost.attempts, lost.answer, lost.acknowledged) == (4, "404", None)
    assert receiver.got[0] == receiver.got[2]


async def test_nobody_there_is_tried_again_too(pusher):
    url = f"http://127.0.0.1:{free_port()}/push"
    order = PushOrder(url=url, interfaces=("GetInverterBySN",), devices=(HOUSE_SERIAL,), retries=2, pause=0.0)
    report = await pusher.done(pusher.begin(order).order)
    assert (report.attempts, report.given_up) == (3, 1)
    assert pusher.pushes[0].answer == "ConnectError"


async def test_duplicates_and_late_ones_come_and_are_on_record(clock, pusher, receiver):
    inverters = tuple(device.serial for device in PARK.devices)
    order = {"interfaces": ("GetInverterBySN",), "devices": inverters, "rounds": 8, "connections": 1}
    report = await push(pusher, receiver, **order, duplicates=0.3, disorder=0.3, echoes=0.3, seed=3)
    assert report.pushes > 8 * 5
    assert report.pushes == report.acknowledged == len(receiver.got) == len(pusher.pushes)
    originals = [p for p in pusher.pushes if not p.copy]
    copies = [p for p in pusher.pushes if p.copy]
    assert len(originals) == 8 * 5
    assert {p.number for p in copies} <= {p.number for p in originals}
    rounds = [[p.round for p in originals if p.serial == serial] for serial in inverters]
    assert any(numbers != sorted(numbers) for numbers in rounds)
    assert [p.serial for p in pusher.pushes] == [body["sn"] for body in receiver.got]
    again = await push(pusher, receiver, **order, duplicates=0.3, disorder=0.3, echoes=0.3, seed=3)
    assert again.pushes == report.pushes


async def test_a_burst_uses_many_connections(receiver):
    async with SimulatedCloud(clock=None, plants=40) as cloud:
        receiver.hold = 0.05
        report = await push(cloud.simulator.pusher, receiver, interfaces=("GetInverterBySN",), connections=32)
        assert report.acknowledged == 8 + 37 * 4
        assert 8 < receiver.most_at_once <= 32
        assert set(Counter(body["sn"] for body in receiver.got).values()) == {1}


@pytest.mark.parametrize(
    ("order", "trouble"),
    [
        ({"interfaces": ("SetWorkMode",)}, "SetWorkMode is not pushed"),
        ({"interfaces": ("GetInverterPower",)}, "GetInverterPower is not pushed"),
        ({"api": "realtime"}, "api is one of"),
        ({"devices": ("nobody",)}, "none of these devices"),
        ({"devices": (HOUSE.id,), "interfaces": ("GetInverterBySN",)}, "none of these devices"),
    ],
)
async def test_an_order_that_can_not_be_followed_says_why(cloud, receiver, order, trouble):
    answer = await cloud.http.post("/sim/pushes", json={"url": receiver.url} | order)
    assert answer.status_code == 400
    assert trouble in answer.json()["error"]


async def test_orders_and_their_record_over_http(cloud, pusher, receiver):
    order = {"url": receiver.url, "interfaces": ["GetInverterBySN"], "devices": [HOUSE_SERIAL, ROOF_SERIAL]}
    number = (await cloud.http.post("/sim/pushes", json=order)).json()["order"]
    await pusher.done(number)
    shown = (await cloud.http.get("/sim/pushes", params={"order": number, "limit": 1})).json()
    assert shown["orders"] == [
        {
            "order": 1, "url": receiver.url, "pushes": 2, "attempts": 2, "acknowledged": 2, "given_up": 0,
            "under_way": False,
        }
    ]  # fmt: skip
    [last] = shown["pushes"]
    assert last["interface"] == "GetInverterBySN"
    assert last["data"] == next(body["data"] for body in receiver.got if body["sn"] == last["serial"])
    assert (await cloud.http.get("/sim/pushes", params={"order": 7})).json()["pushes"] == []
    assert (await cloud.http.post("/sim/pushes", json={"url": "ftp://x"})).status_code == 400


async def test_settings_have_it_push_from_the_start_and_stopping_ends_it(clock, receiver):
    settings = {"push_url": receiver.url, "push_secret": "s3cret", "push_interfaces": ("GetSEC1000",)}
    async with SimulatedCloud(clock, **settings) as cloud:
        async with asyncio.timeout(120):
            while not receiver.got:
                await asyncio.sleep(0.01)
        [report] = cloud.simulator.pusher.reports
        assert report.under_way
    assert not report.under_way
    assert receiver.headers[0]["x-push-secret"] == "s3cret"
    assert {entry["device_type"] for entry in receiver.got[0]["data"]["devices"]} == {"sec1000", "meter"}


async def test_where_plants_upload_each_is_pushed_when_the_cloud_has_heard_of_it(clock, receiver, monkeypatch):
    monkeypatch.setattr("gateway.simulator.pushes._LOOK", 0.01)
    settings = {
        "plants": 12,
        "upload_interval": 60.0,
        "push_url": receiver.url,
        "push_interfaces": ("GetInverterBySN",),
    }
    async with SimulatedCloud(clock, **settings) as cloud:
        world, pusher = cloud.simulator.world, cloud.simulator.pusher
        done = Counter(world.inverters)

        def all_came():
            return Counter(push.serial for push in pusher.pushes if push.acknowledged) == done

        await until(all_came)
        sizes = []
        for _ in range(20):
            before = {plant.id: world.uploaded(plant, world.physics.now()) for plant in world}
            clock.advance(6.5)
            due = [plant for plant in world if world.uploaded(plant, world.physics.now()) > before[plant.id]]
            done.update(device.serial for plant in due for device in plant.devices)
            await until(all_came)
            sizes.append(len(due))
        assert max(sizes) < 8
        assert min(done.values()) == 3
