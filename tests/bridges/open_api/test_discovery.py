"""Discovery, on virtual time: what is found, what is kept, what is withdrawn, and what hostile answers do."""

import asyncio
from contextlib import suppress
from datetime import UTC

import pytest
import yaml
from structlog.testing import capture_logs

from gateway.bridges.open_api.discovery import Given
from gateway.bridges.open_api.settings import OpenApiSettings
from gateway.core.errors import GatewayError
from gateway.core.model import DeviceKind
from gateway.core.zones import zone_name
from gateway.sems.catalogue import Use, load
from gateway.sems.discovery import PAGE_SIZE
from gateway.sems.errors import NoDataError, SemsRefusedError, TimedOutError, UnreachableError
from gateway.sems.overrides import CatalogueOverrides, checked, overridden
from gateway.sems.refusals import remedy
from tests.bridges.open_api.kit import CLASSIC, DEVELOPER, World, fleet, target
from tests.kit.clock import virtual

TYPES = ["inverter", "storage", "battery", "meter", "ev_charger", "sec1000", "homekit", "weather_station"]
SELDOM = 3600.0
"""Seconds between polls where polling is not the subject: a round of discovery may take hours of virtual time."""
APIS = pytest.mark.parametrize("api", ["open_api", "developer"])


async def rounds(world, count):
    """Look again, a minute after the last."""
    for _ in range(count):
        await asyncio.sleep(60)
        await world.discovery.round()


def events(logs):
    return [entry["event"] for entry in logs]


@APIS
@virtual
async def test_every_type_of_device_is_found_with_its_kind_plant_zone_and_setpoints(api):
    async with World(fleet(2, 16, TYPES), api) as world:
        devices = {s.device.serial: s.device for s in world.desk.router.announced()}
        assert len(devices) == 18
        for n, type_ in enumerate(TYPES):
            device = devices[f"device{n}"]
            kind = {"sec1000": "data_logger", "homekit": "data_logger"}.get(type_, type_)
            assert device.kind == kind
            assert device.plant == f"plant{n % 2}"
            assert device.time_zone == "Europe/Berlin"
            assert device.name == f"name of device{n}"
            assert world.plants.get(device.serial).type == type_
        assert devices["plant0"].kind is DeviceKind.PLANT
        assert devices["plant0"].rated_power == 5000
        assert devices["device0"].rated_power == 5000
        assert set(devices["device0"].setpoints) >= {"running", "active_power_limit", "reactive_power", "power_factor"}
        assert devices["device1"].setpoints["battery_power_target"].high == 5000
        assert set(devices["device5"].setpoints) == {
            "active_power_limit", "reactive_power", "power_factor", "export_limit"
        }  # fmt: skip
        assert set(devices["device4"].setpoints) == ({"charging"} if api == "developer" else set())
        assert not devices["device3"].setpoints


@APIS
@virtual
async def test_all_pages_are_read_also_where_they_are_shorter_than_asked_for(api):
    async with World(fleet(250, 0), api, interval=SELDOM) as world:
        assert len(world.plants) == 250
        plants = list(world.sems.targets.values())
        key = next(world.sems.catalogue.using(Use.PLANTS)).response[0].field

        def short(i, args):
            # It gives 30 where 100 were asked for, and the last page over and over.
            page = min(args.get("page", 1), 9) - 1
            return {"list": [{key: t.serial} for t in plants[page * 30 : page * 30 + 30]]} if "page" in args else None

        world.sems.spoil = short
        await world.discovery.round()
        assert len(world.plants) == 250


@virtual
async def test_a_page_that_is_refused_after_a_short_one_is_the_end_and_after_a_full_one_is_trouble():
    async with World(fleet(3, 3)) as world:
        world.sems.spoil = lambda i, a: SemsRefusedError("1", "no such page") if a.get("page", 1) > 1 else None
        await world.discovery.round()
        assert len(world.plants) == 6
    async with World(fleet(PAGE_SIZE + 3, 0), interval=SELDOM) as world:
        world.sems.spoil = lambda i, a: SemsRefusedError("1", "no such page") if a.get("page", 1) > 1 else None
        with pytest.raises(GatewayError):
            await world.discovery.round()
        assert len(world.plants) == PAGE_SIZE + 3, "nothing is withdrawn"


@virtual
async def test_what_is_gone_is_withdrawn():
    async with World(fleet(3, 9), interval=SELDOM) as world:
        for serial in ("plant2", "device2", "device5", "device8", "device0"):
            del world.sems.targets[serial]
        await world.discovery.round()
        assert {s.device.serial for s in world.desk.router.announced()} == {t.serial for t in world.plants}
        assert len(world.plants) == 7


@pytest.mark.parametrize("error", [TimedOutError("no"), SemsRefusedError("1", "no"), NoDataError("no")])
@APIS
@virtual
async def test_one_plants_trouble_is_its_own(error, api):
    async with World(fleet(3, 9), api, interval=SELDOM) as world:
        world.sems.spoil = lambda i, a: (
            error if i.use == "devices" and "plant1" in (a.get("plants") or [a.get("plant")]) else None
        )
        world.sems.targets["device99"] = target("device99", "inverter", "plant2")
        del world.sems.targets["device4"]
        with capture_logs() as logs:
            await world.discovery.round()
            assert not world.discovery.complete
            await world.discovery.round()
            assert [e["event"] for e in logs if "plant" in e] == ["plant can't be looked into"]
            assert world.plants.get("device99")
            assert world.plants.get("device4"), "a plant that can't be looked into keeps its devices"
            world.sems.spoil = lambda *_: None
            await world.discovery.round()
        said = [e["event"] for e in logs if "plant" in e]
        assert said == ["plant can't be looked into", "plant can be looked into again"]
        assert world.discovery.complete
        assert world.plants.get("device4") is None


@virtual
async def test_a_list_that_the_account_does_not_have_hides_nothing_of_the_others():
    async with World([*fleet(2, 6), target("w", "weather_station", "plant0")]) as world:
        world.sems.spoil = lambda i, a: (
            SemsRefusedError("100006", "not supported") if i.name == "GetDataLoggerList" else None
        )
        del world.sems.targets["device1"]
        with capture_logs() as logs:
            await world.discovery.round()
            await world.discovery.round()
        assert events(logs).count("SEMS does not list some devices") == 1
        assert world.plants.get("device1") is None
        assert world.plants.get("w"), "it may be there still"
        world.sems.spoil = lambda i, a: SemsRefusedError("1", "no") if i.use == "devices" else None
        await world.discovery.round()
        assert world.plants.get("device0")
        assert not world.discovery.complete


@virtual
async def test_devices_are_known_without_their_attributes():
    async with World([], "developer") as world:
        for t in fleet(1, 2):
            world.sems.targets[t.serial] = t
        world.sems.spoil = lambda i, a: SemsRefusedError("1", "no") if i.name == "DeviceAttributes" else None
        with capture_logs() as logs:
            await world.discovery.round()
            await world.discovery.round()
        assert not logs, "the finding says it"
        assert world.desk.found("interface_refused") == {"DeviceAttributes"}
        assert world.plants.get("device1").device.rated_power is None


@virtual
async def test_nothing_is_withdrawn_while_sems_is_away():
    async with World(fleet(2, 4)) as world:
        world.sems.spoil = lambda i, a: UnreachableError("away") if i.use == "devices" else None
        with pytest.raises(UnreachableError):
            await world.discovery.round()
        assert len(world.plants) == 6


# what a list does not say


@pytest.mark.parametrize("told", [[], {}, {"list": []}, NoDataError("null"), {"list": [{"plant_id": "plant2"}]}])
@virtual
async def test_a_list_that_loses_much_is_believed_after_three_rounds_that_agree(told):
    async with World(fleet(6, 12)) as world:
        everything = {t.serial for t in world.plants}
        world.sems.spoil = lambda i, a: told if i.use == "plants" else None
        for _ in range(2):
            with suppress(GatewayError):
                await world.discovery.round()
            assert {t.serial for t in world.plants} == everything
            await asyncio.sleep(60)
        if told == {} or isinstance(told, Exception):
            with pytest.raises(GatewayError):
                await world.discovery.round()
            assert {t.serial for t in world.plants} == everything, "no list is no word of anything"
            return
        assert world.desk.found("list_doubted") == {""}
        assert world.discovery.doubtful
        await world.discovery.round()
        left = {"plant2", "device2", "device8"} if isinstance(told, dict) and told["list"] else set()
        assert {t.serial for t in world.plants} == left
        assert not world.discovery.doubtful
        assert not world.desk.found("list_doubted")


@virtual
async def test_a_list_that_comes_back_or_wavers_takes_nothing_away():
    async with World(fleet(2, 12)) as world:
        rows = [[], [], ["device2", "device4"], [], ["device2"], None, [], []]
        for row in rows:
            world.sems.spoil = lambda i, a, row=row: (
                {"list": [{"sn": serial} for serial in row]}
                if row is not None and i.name == "GetInverterList" and a["plant"] == "plant0"
                else None
            )
            await rounds(world, 1)
            assert len(world.plants) == 14
            assert world.desk.found("list_doubted") == ({"plant0"} if row is not None else set())
        assert "GetInverterList lists 0 of 6" in world.desk.findings["list_doubted", "plant0"]


@virtual
async def test_a_device_or_two_of_many_are_gone_at_once():
    async with World(fleet(1, 9)) as world:
        for serial in ("device0", "device3", "device7"):
            del world.sems.targets[serial]
        await world.discovery.round()
        assert len(world.plants) == 7
        assert not world.discovery.doubtful


# what is refused


@APIS
@virtual
async def test_what_is_refused_costs_what_it_alone_brings(api):
    world = World(fleet(3, 9), api)
    refused = {i.name for i in world.sems.catalogue.using(Use.DETAIL)} | {"GetDataLoggerList"}
    world.sems.spoil = lambda i, a: SemsRefusedError("100004", "parameter") if i.name in refused else None
    async with world:
        assert len(world.plants) == 12
        assert world.discovery.complete
        assert world.desk.found("interface_refused") == refused & {i.name for i in world.sems.catalogue.interfaces}
        await asyncio.sleep(120)
        assert all(world.desk.router.state(t.serial).values for t in world.plants)
        world.sems.spoil = lambda *_: None
        await world.discovery.round()
        assert not world.desk.found("interface_refused")
        assert world.plants.get("plant0").device.time_zone == "Europe/Berlin"


@virtual
async def test_the_configuration_stands_in_for_lists_that_are_refused():
    given = Given(("plant0",), {"device0": ("", "plant0"), "b": ("battery", "plant0"), "lone": ("", "")})
    world = World([*fleet(1, 1), target("b", "battery", "plant0"), target("lone", "inverter", "x")], given=given)
    world.sems.spoil = lambda i, a: SemsRefusedError("1", "no") if i.use in {"plants", "devices"} else None
    async with world:
        types = {t.serial: (t.type, t.device.plant) for t in world.plants}
        assert types == {
            "plant0": ("plant", ""), "device0": ("inverter", "plant0"), "b": ("battery", "plant0"),
            "lone": ("inverter", ""),
        }  # fmt: skip
        assert world.plants.get("device0").zone.key == "Europe/Berlin"
        assert world.discovery.complete
        assert world.desk.found("interface_refused") == {"GetUserPlantList", "GetInverterList", "GetDataLoggerList"}
        await asyncio.sleep(120)
        assert all(world.desk.router.state(serial).values for serial in types)
        await rounds(world, 3)
        assert len(world.plants) == 4
        world.sems.spoil = lambda i, a: None
        await rounds(world, 3)
        assert len(world.plants) == 4, "what the configuration names stays, whatever a list says"


@pytest.mark.parametrize("api", ["open_api", "developer", "realtime"])
def test_every_remedy_can_be_pasted(api):
    for interface in [i for i in load(api).interfaces if i.use is not Use.LOGIN]:
        for way in remedy(interface).split("; or "):
            text = way.split(", with")[0].split(", where")[0].split(", which")[0]
            said = yaml.safe_load(text.replace("SERIAL", "sn1").replace("PLANT", "p1"))
            if "overrides" in said:
                found = checked(CatalogueOverrides(**said["overrides"]), api)
                assert overridden(load(api), found) != load(api)
            elif api != "realtime":
                login = CLASSIC if api == "open_api" else DEVELOPER
                assert OpenApiSettings(**login, **said).given != Given()


# what comes along


@virtual
async def test_a_sec1000s_meters_come_along_and_go_when_it_has_them_no_more():
    targets = [*fleet(1, 1), target("logger", "sec1000", "plant0"), target("m", "meter", "plant0", carrier="logger")]
    async with World(targets) as world:
        assert world.plants.get("m") is None, "no list has it"
        await asyncio.sleep(120)
        meter = world.plants.get("m")
        assert (meter.carrier, meter.device.plant, meter.device.kind) == ("logger", "plant0", "meter")
        assert world.desk.router.state("m").values["grid_power"] == 10
        assert not world.calls("GetMeterBySN")
        await world.discovery.round()
        assert world.plants.get("m"), "a round that no list has it in does not take it away"
        del world.sems.targets["m"]
        await asyncio.sleep(65)
        assert world.plants.get("m"), "nor does one answer"
        assert world.desk.found("list_doubted") == {"logger"}
        await asyncio.sleep(180)
        await world.discovery.round()
        assert world.plants.get("m") is None
        assert not world.desk.found("list_doubted")
        assert world.desk.router.state("m") is None
        world.sems.targets["m"] = targets[-1]
        await asyncio.sleep(120)
        assert world.plants.get("m")
        del world.sems.targets["logger"]
        await rounds(world, 3)
        assert world.plants.get("m") is None, "it goes with what brought it"


@virtual
async def test_what_comes_along_must_be_of_a_type_that_may():
    strange = [
        {"sn": "logger", "device_type": "sec1000"},
        {"sn": "x1", "device_type": "toaster"},
        {"sn": "x2"},
        {"sn": "x3", "device_type": "sec1000"},
        {"device_type": "meter"},
        {"sn": "x" * 65, "device_type": "meter"},
        {"sn": "bad\nserial", "device_type": "meter"},
        {"sn": True, "device_type": "meter"},
        {"sn": 12345, "device_type": "meter"},
    ]
    async with World([*fleet(1, 1), target("logger", "sec1000", "plant0")]) as world:
        world.sems.spoil = lambda i, a: {"devices": strange} if i.name == "GetSEC1000" else None
        await asyncio.sleep(120)
        assert {t.serial for t in world.plants} == {"plant0", "device0", "logger", "12345"}


# hostile answers

JUNK = [None, [], {}, "", 0, 3.5, True, [[]], [None], ["x"], [{"sn": {}}], {"list": None}, {"list": "x"},
        {"list": {"list": []}}, {"list": [1, None, [], {"sn": ["a"]}, {"plant_id": {}}]},
        {"list": [{"sn": "a" * 10_000, "device_type": "inverter"}, {"sn": "", "device_type": "meter"}]}]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=repr)
@pytest.mark.parametrize("use", ["plants", "detail", "devices", "live", "alarms"])
@virtual
async def test_junk_for_an_answer_breaks_nothing(use, junk):
    async with World(fleet(1, 2)) as world:
        await asyncio.sleep(60)
        world.sems.spoil = lambda i, a: junk if i.use == use else None
        with suppress(GatewayError):
            await world.discovery.round()
        await asyncio.sleep(400)
        world.sems.spoil = lambda *_: None
        await world.discovery.round()
        await asyncio.sleep(400)
        assert {t.serial for t in world.plants} == {"plant0", "device0", "device1"}
        assert world.desk.router.state("device0").values["pv_power"] == 1000


@virtual
async def test_duplicates_and_devices_that_call_themselves_plants_are_nothing():
    async with World(fleet(2, 2)) as world:
        rows = [{"sn": s, "device_type": t} for s in ("device0", "plant1", "new", "new") for t in ("storage", "meter")]
        world.sems.spoil = lambda i, a: {"list": rows} if i.name == "GetInverterList" else None
        await world.discovery.round()
        assert world.desk.found("list_doubted") == {"plant1"}, "no list has device1"
        await rounds(world, 2)
        assert {t.serial for t in world.plants} == {"plant0", "plant1", "device0", "new"}
        assert world.plants.get("plant1").type == "plant"
        assert world.plants.get("new").type == "storage", "the first that says something is believed"
        assert world.plants.get("new").plant == "plant0", "and the first plant that has it"


@virtual
async def test_a_type_that_nobody_knows_is_left_out_and_said_once():
    async with World(fleet(1, 1)) as world:
        rows = [{"sn": "a", "device_type": "toaster"}, {"sn": "b", "device_type": "toaster"}, {"sn": "c"},
                {"sn": "d", "device_type": None}, {"sn": "e", "device_type": 7.0}]  # fmt: skip
        world.sems.spoil = lambda i, a: {"list": rows} if i.name == "GetInverterList" else None
        with capture_logs() as logs:
            await rounds(world, 3)
        assert {t.serial: t.type for t in world.plants} == {"plant0": "plant", "c": "inverter", "d": "inverter"}
        assert [e["device_type"] for e in logs if "device_type" in e] == ["toaster", "7"]


@virtual
async def test_a_time_zone_that_is_none_is_found():
    async with World(fleet(1, 1)) as world:
        world.sems.spoil = lambda i, a: {"time_zone": "Mars/Base", "capacity": "x"} if i.use == "detail" else None
        await world.discovery.round()
        assert "'Mars/Base'" in world.desk.findings["zone_unknown", "plant0"]
        plant = world.plants.get("plant0")
        assert (plant.zone, plant.device.time_zone, plant.device.rated_power) == (UTC, "", None)


@virtual
async def test_a_time_zone_that_is_none_is_replaced_by_the_one_that_was_set():
    async with World(fleet(1, 1), told_times={"time_zone": "Asia/Tokyo"}) as world:
        world.sems.spoil = lambda i, a: {"time_zone": "Mars/Base"} if i.use == "detail" else None
        await world.discovery.round()
        assert world.desk.findings == {}
        assert world.plants.get("plant0").device.time_zone == "Asia/Tokyo"


@virtual
@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"time_zone": "UTC+10:00"}, "UTC+10:00"),
        ({"time_span": -5.5}, "UTC+05:30"),
        ({"time_span": "3"}, "UTC-03:00"),
        ({"time_zone": "W. Europe Standard Time"}, "Europe/Berlin"),
        ({"time_span": "-10.0 h"}, "UTC+10:00"),
    ],
)
async def test_a_time_zone_may_be_an_offset_or_a_span_with_the_sign_reversed(said, name):
    async with World(fleet(1, 1)) as world:
        world.sems.spoil = lambda i, a: said if i.use == "detail" else None
        await world.discovery.round()
        assert {t.device.time_zone for t in world.plants} == {name}
        assert {zone_name(t.zone) for t in world.plants} == {name}


# large fleets


@virtual
async def test_discovering_2000_devices_does_not_hold_up_the_polling_of_what_is_known():
    world = World(fleet(100, 2000))
    poller = asyncio.create_task(world.poller.run())
    await world.discovery.round()
    assert world.calls("GetInverterBySN") or world.calls("GetInverterList"), "what was known was polled meanwhile"
    world.poller.discovered()
    assert len(world.plants) == 2100
    poller.cancel()
    await asyncio.gather(poller, return_exceptions=True)


@virtual
async def test_discovery_keeps_to_its_own_part_of_the_calls():
    async with World(fleet(500, 1000)) as world:
        began = world.clock.monotonic()
        await asyncio.sleep(3600)
        round_ = asyncio.create_task(world.discovery.round())
        await asyncio.sleep(3600)
        share = world.poller.plan.discovery_per_hour
        # A third of what discovery calls; the others are called by polling too.
        assert 0 < len(world.calls("GetDataLoggerList", began + 3600)) <= share / 2
        round_.cancel()
