"""Whether data look good, by what the cloud says of their time: dead ones never for long, live ones never for ever."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import Device, DeviceKind, Quality, Snapshot
from gateway.core.zones import fixed, offset_name, zone_named
from gateway.sems.account_times import AccountTimes
from gateway.sems.alarms import Alarms
from gateway.sems.calls import Entry
from gateway.sems.catalogue import load
from gateway.sems.normalise import read
from gateway.sems.plants import Plants, Target
from gateway.sems.readings import Readings
from tests.bridges.open_api.kit import Desk
from tests.sems.kit import Clock

BY_SN = load("open_api").interface("GetInverterBySN")
PLANT = "plant"
POLL = 60


class Account:
    """One account that is asked every minute, of whose clocks a test says what they show."""

    def __init__(self, *, zone="", devices=("A",), date_format="auto", given="", at=None, data_dir=None):
        self.clock, self.data_dir = Clock(), data_dir
        self.clock.wall = at or self.clock.wall
        self.begin(date_format, given, zone, devices)

    def begin(self, date_format="auto", given="", zone="", devices=("A",)):
        self.desk = Desk(self.clock)
        self.desk.data_dir = self.data_dir
        self.times = AccountTimes(self.desk, date_format, given)
        self.plants = Plants(self.times.dates)
        self.times.on_inferred = lambda plant: self.plants.move(plant, *self.times.inferred(plant))
        self.readings = Readings(self.desk, load("open_api"), self.times)
        for serial in devices:
            device = Device(serial=serial, kind=DeviceKind.INVERTER, plant=PLANT, time_zone=zone)
            self.plants.put(Target(device, "inverter", zone_named(zone) or UTC))
            self.desk.announce(device)

    def answer(self, time, serial="A", **values):
        """Take in an answer about a device: `time` as SEMS writes it, or as the plant's clock has it."""
        if isinstance(time, datetime):
            time = f"{time:%Y-%m-%d %H:%M:%S}"
        target = self.plants.get(serial)
        entry = {"last_refresh_time": time, "status": 1, "pac": 100} | values
        reading = read(BY_SN, entry, target.zone, self.clock.now(), dates=self.times.dates)
        self.times.dates.note(BY_SN.name, serial, reading.unread)
        self.readings.take(target, BY_SN, reading, POLL, live=True)

    def wait(self, seconds=POLL):
        self.clock.pass_time(seconds)

    @property
    def local(self):
        """UTC, as a clock on the wall shows it."""
        return self.clock.now().replace(tzinfo=None)

    def state(self, serial="A"):
        self.desk.router.age()
        return self.desk.router.state(serial)

    def is_good(self, serial="A"):
        return self.state(serial).quality is Quality.GOOD

    def codes(self):
        return {code.value for code, _ in self.desk.findings}


# times that can't be read (S3)


def test_of_a_time_that_cannot_be_read_data_are_fresh_while_they_change():
    account = Account(zone="UTC")
    for minute in range(10):
        account.answer("22nd of June", pac=minute)
        assert account.is_good()
        assert account.state().time == account.clock.now()
        account.wait()
    assert account.codes() == {"time_unreadable"}
    since = account.state().time
    for _ in range(4):
        account.answer("23rd of June", pac=9)
        assert account.state().time == since
        account.wait()
    assert not account.is_good()
    account.answer("23rd of June", pac=10)
    assert account.is_good()
    account.answer(account.local)
    assert account.codes() == set()


def test_an_old_date_in_whatever_order_is_old():
    account = Account(zone="UTC", at=datetime(2025, 6, 24, 17, tzinfo=UTC))
    for _ in range(5):
        account.answer("22.06.2025 17:02:36")
        assert not account.is_good()
        account.wait()
    assert account.state().time == datetime(2025, 6, 22, 17, 2, 36, tzinfo=UTC)
    assert account.codes() == {"date_order"}


def test_of_a_device_that_is_gone_nothing_stays_unreadable():
    account = Account(zone="UTC", devices=("A", "B"))
    account.answer("?")
    account.answer("?", "B")
    account.plants.drop("A")
    account.readings.keep(lambda serial: account.plants.get(serial) is not None)
    assert account.codes() == {"time_unreadable"}
    account.plants.drop("B")
    account.readings.keep(lambda serial: account.plants.get(serial) is not None)
    assert account.codes() == set()


def test_a_state_that_changes_is_no_measurement():
    account = Account(zone="UTC")
    account.answer("?", status=1)
    account.wait(200)
    account.answer("?", status=0)
    assert not account.is_good()


# the order of day and month (S4)


@pytest.mark.parametrize("hours", [0, 30])
def test_a_device_is_never_shown_a_month_off(hours):
    """12/11 is the 12th of November; nothing before has told so."""
    account = Account(zone="UTC", at=datetime(2026, 11, 12, 9, 0, tzinfo=UTC))
    account.wait(hours * 3600)
    for _ in range(48):
        account.answer(f"{account.local:%d/%m/%Y %H:%M:%S}")
        assert account.state().time == account.clock.now()
        assert account.is_good()
        account.wait(1800)


async def test_what_was_learned_is_kept_over_a_restart(tmp_path):
    account = Account(zone="UTC", at=datetime(2026, 11, 13, 9, tzinfo=UTC), data_dir=tmp_path)
    account.answer("13/11/2026 09:00:00")
    await account.times._save()
    account.begin(zone="UTC")
    account.times.restore()
    account.clock.wall = datetime(2026, 12, 1, 9, tzinfo=UTC)
    account.answer("05/11/2026 09:00:00")
    assert account.state().time == datetime(2026, 11, 5, 9, tzinfo=UTC)
    assert account.codes() == {"date_order"}
    assert [path.name for path in tmp_path.iterdir()] == ["sems-times.json"]
    account.begin(zone="UTC", date_format="MM/dd/yyyy")
    account.times.restore()
    account.answer("05/11/2026 09:00:00")
    assert account.state().time == datetime(2026, 5, 11, 9, tzinfo=UTC)


# times from the future (S5)


def test_one_time_from_the_future_keeps_out_none_of_the_right_ones():
    account = Account(zone="UTC")
    account.answer(account.local + timedelta(hours=10), pac=1)
    assert account.state().time == account.clock.now()
    account.wait()
    account.answer(account.local - timedelta(seconds=5), pac=2)
    assert account.state().values["ac_power"] == 2
    assert account.state().time == account.clock.now() - timedelta(seconds=5)


def test_a_time_from_the_future_that_stands_still_is_dead():
    account = Account(zone="UTC")
    frozen = account.local + timedelta(hours=10)
    for _ in range(5):
        account.answer(frozen)
        account.wait()
    assert not account.is_good()


# zones (S6)


@given(
    quarters=st.integers(-48, 56),
    upload=st.integers(1, 5),
    lag=st.integers(0, 60),
    devices=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_the_zone_that_nobody_says_is_found_by_the_newest_times(quarters, upload, lag, devices):
    serials = [f"d{n}" for n in range(devices)]
    account = Account(devices=serials)
    offset = timedelta(minutes=15 * quarters)
    for minute in range(upload * 5 + 1):
        for n, serial in enumerate(serials):
            measured = account.local - timedelta(minutes=(minute + n) % upload, seconds=lag)
            account.answer(measured + offset, serial)
        account.wait()
    assert account.times.inferred(PLANT)[1] == offset_name(offset)
    assert account.codes() == {"zone_inferred"}
    for n, serial in enumerate(serials):
        assert account.is_good(serial)
        account.answer(account.local + offset - timedelta(seconds=7), serial, pac=n)
        assert account.state(serial).time == account.clock.now() - timedelta(seconds=7)
    assert {target.device.time_zone for target in account.plants} == {offset_name(offset)}


@given(quarters=st.integers(-48, 56), dead_for=st.integers(0, 30 * 3600), devices=st.integers(1, 4))
@settings(deadline=None)
def test_dead_data_in_an_unknown_zone_do_not_look_good(quarters, dead_for, devices):
    serials = [f"d{n}" for n in range(devices)]
    account = Account(devices=serials)
    frozen = account.local - timedelta(seconds=dead_for) + timedelta(minutes=15 * quarters)
    for minute in range(20):
        for serial in serials:
            account.answer(frozen, serial)
            if minute > 15 or not -120 <= dead_for - 900 * quarters <= 900:
                assert not account.is_good(serial)
        account.wait()
    assert account.times.inferred(PLANT) is None


def test_live_data_west_of_utc_are_not_stale_for_ever_and_those_east_of_it_not_good_for_ever():
    for hours in (-5, 10):
        account = Account()
        account.answer(account.local + timedelta(hours=hours))
        assert not account.is_good()
        assert account.codes() == {"zone_unknown"}
        account.wait()
        account.answer(account.local + timedelta(hours=hours))
        assert account.is_good()


def test_a_backlog_tells_no_zone():
    """A logger that was away for six hours sends what it has, a value every minute."""
    account = Account()
    away = account.local - timedelta(hours=6)
    account.answer(away)
    account.wait()
    for _ in range(60):
        away += timedelta(minutes=5)
        account.answer(away)
        account.wait()
        assert account.times.inferred(PLANT) is None


@pytest.mark.parametrize(("before", "after"), [(60, 120), (120, 60)])
def test_a_zone_that_was_found_follows_when_clocks_are_set(before, after):
    account = Account()
    offset = timedelta(minutes=before)
    for minute in range(90):
        if minute == 30:
            assert account.times.inferred(PLANT)[1] == offset_name(offset)
            offset = timedelta(minutes=after)
        account.answer(account.local - timedelta(minutes=minute % 5) + offset)
        account.wait()
    assert account.times.inferred(PLANT)[1] == offset_name(offset)
    account.answer(account.local + offset)
    assert account.state().time == account.clock.now()


def test_of_a_device_that_was_only_pushed_the_plant_is_waited_for_before_anybody_is_asked_for_a_zone():
    account = Account()
    alone = Target(Device(serial="B", kind=DeviceKind.INVERTER), "inverter", UTC)
    account.plants.put(alone)
    account.desk.announce(alone.device)
    dead = account.local - timedelta(days=3)
    account.answer(dead, "B")
    assert not account.is_good("B")
    assert "zone_unknown" not in account.codes()
    account.wait(61)
    account.answer(dead, "B")
    assert "zone_unknown" in account.codes()


def test_what_the_plant_says_or_the_user_sets_ends_all_guessing():
    account = Account()
    for _ in range(5):
        account.answer(account.local + timedelta(hours=3))
        account.wait()
    assert account.codes() == {"zone_inferred"}
    said = read(load("open_api").interface("GetPlantDetail"), {"time_zone": "Europe/Berlin"}, UTC, account.clock.now())
    assert account.times.zone(PLANT, said)[1] == "Europe/Berlin"
    assert account.codes() == set()
    assert account.times.inferred(PLANT) is None
    account.begin(given="Asia/Tokyo")
    assert account.times.zone(PLANT, msgspec.structs.replace(said, attributes={}))[1] == "Asia/Tokyo"


# alarms (siblings of S5)


def test_an_alarm_from_the_future_is_raised_when_it_was_first_seen_and_stays_one():
    account = Account(zone="UTC")
    alarms = Alarms(account.desk, account.plants)
    interface = load("open_api").interface("GetInverterAlarms")
    first = account.clock.now()
    row = {field.attribute: field.field for field in interface.response if field.attribute}
    for _ in range(3):
        entry = {row["code"]: "E1", row["raised"]: f"{first + timedelta(hours=9):%Y-%m-%d %H:%M:%S}"}
        reading = read(interface, entry, UTC, account.clock.now())
        alarms.take([account.plants.get("A")], [Entry("A", "inverter", "", reading)])
        account.wait()
    ((*_, (serial, [alarm])),) = [account.desk.told]
    assert (serial, alarm.raised) == ("A", first)
    assert len({alarm.id for _, [alarm] in account.desk.told}) == 1


def test_offsets_beyond_the_earth_are_none():
    assert fixed(timedelta(hours=15)) is None


# what another bridge brings (S18)


def test_who_asks_seldom_because_another_brings_the_data_keeps_nothing_good_for_longer():
    account = Account(zone="UTC")
    target = account.plants.get("A")
    reading = read(BY_SN, {"last_refresh_time": f"{account.local:%Y-%m-%d %H:%M:%S}", "pac": 5}, UTC, account.local)
    account.readings.take(target, BY_SN, reading, 900, live=True, due=POLL)
    assert account.is_good()
    account.wait(3 * POLL + 1)
    assert not account.is_good()
    quick = {"serial": "A", "source": "push", "interval": POLL, "values": {"energy_today": 1.0}}
    account.desk.router.announce("push", target.device)
    account.desk.router.publish(Snapshot(time=account.clock.now(), **quick))
    assert account.is_good()
    assert account.state().values == {"ac_power": 5.0, "energy_today": 1.0}, "beside the other's data it is shown"
