"""A configuration that is read again restarts what has changed and nothing else; a bad one changes nothing."""

import asyncio
import signal
import socket
import struct
from datetime import timedelta

import httpx
import pytest

from gateway.api.registry import installed
from gateway.config.document import ConfigError
from gateway.core import good_once
from gateway.core.model import Command, CommandState, Device, DeviceKind, Origin, new_command_id
from gateway.run.app import Gateway
from gateway.run.settings import Config
from tests.bridges.open_api.kit import cloud
from tests.kit.bench import until
from tests.kit.ports import free_port
from tests.kit.process import PATIENCE, eventually, finished, sems_gateway

CONFIG = """
log: {{format: json}}
bridges:
  sems: {{type: open_api, account: demo, password: demo, url: '{url}', poll_interval: {interval}}}
  modbus: {{type: modbus, port: {modbus}}}
  {more}
{control}
"""
RULE = "control: {enabled: true, allow: [{devices: ['*'], setpoints: [active_power_limit]}]}"
ALL = "control: {enabled: true, allow: [{devices: ['*'], setpoints: ['*']}]}"
INVERTER = "9010KETU218W0001"


class Plant:
    def __init__(self, directory, url):
        self.file = directory / "config.yaml"
        self.url, self.modbus, self.web = url, free_port(), free_port()

    def write(self, *, interval=60, more="", control="", spoilt=False):
        text = CONFIG.format(url=self.url, modbus=self.modbus, interval=interval, more=more, control=control)
        self.file.write_text(text.replace("type: modbus", "type: modbuss") if spoilt else text)
        self.file.chmod(0o600)

    @property
    def web_bridge(self):
        return f"web: {{type: web, port: {self.web}}}"


@pytest.fixture
async def plant(tmp_path):
    async with cloud() as simulator:
        yield Plant(tmp_path, simulator.url)


def answers(connection, number):
    """One Modbus request over a connection that is open."""
    connection.sendall(struct.pack(">HHHBBHH", number, 0, 6, 247, 3, 0, 1))
    return struct.unpack(">H", connection.recv(300)[:2])[0] == number


@pytest.mark.system
async def test_only_what_has_changed_is_restarted(plant):
    plant.write()

    def story():
        with sems_gateway("run", plant.file) as gateway:
            gateway.line('"event": "running"')
            with socket.create_connection(("127.0.0.1", plant.modbus), timeout=PATIENCE) as client:
                assert answers(client, 1)
                plant.write(interval=30, more=plant.web_bridge, control=RULE)
                done = finished("reload", plant.file)
                assert (done.returncode, done.stdout.strip()) == (
                    0, "started web; restarted sems; control has other rules"
                )  # fmt: skip
                assert answers(client, 2), "the client of a bridge that did not change is still connected"
                gateway.line('"bridge": "web".*"event": "up"')
                assert httpx.get(f"http://127.0.0.1:{plant.web}/healthz", trust_env=False).status_code == 200
                asked = finished("explain", plant.file, INVERTER, "active_power_limit", "50")
                assert asked.returncode == 0, asked.stdout
                assert finished("reload", plant.file).stdout.strip() == "nothing has changed"
                plant.write(interval=30)
                gateway.send_signal(signal.SIGHUP)
                gateway.line('"done": "ended web; control has other rules"')
                with pytest.raises(httpx.ConnectError):
                    httpx.get(f"http://127.0.0.1:{plant.web}/healthz", trust_env=False)
                assert answers(client, 3)
            known = finished("devices", plant.file)
            assert INVERTER in known.stdout
            assert "web" not in known.stderr
            return gateway.text

    text = await asyncio.to_thread(story)
    assert '"level": "error"' not in text


@pytest.mark.system
async def test_a_bad_file_changes_nothing_and_says_why(plant):
    plant.write(more=plant.web_bridge)

    def story():
        with sems_gateway("run", plant.file) as gateway:
            gateway.line('"event": "running"')
            plant.write(interval=30, spoilt=True)
            done = finished("reload", plant.file)
            assert done.returncode == 2
            assert "config.yaml:5: bridges.modbus.type: there is no bridge type 'modbuss'" in done.stderr
            assert "nothing has changed" in done.stderr
            gateway.send_signal(signal.SIGHUP)
            gateway.line("not reloaded, all stays as it is")
            plant.file.write_text("gateway: {id: another}\n" + plant.file.read_text().replace("modbuss", "modbus"))
            done = finished("reload", plant.file)
            assert (done.returncode, "gateway: is read at the start alone" in done.stderr) == (2, True)
            assert httpx.get(f"http://127.0.0.1:{plant.web}/healthz", trust_env=False).status_code == 200

    await asyncio.to_thread(story)


@pytest.mark.system
async def test_members_that_nobody_has_seen_are_named(plant):
    plant.write(control=RULE)

    def story():
        with sems_gateway("run", plant.file) as gateway:
            gateway.line('"event": "running"')
            seen = plant.file.parent / "data" / good_once.FILE
            eventually(
                lambda: seen.exists() and INVERTER in seen.read_text(), otherwise="it is known who has been seen"
            )
            plant.write(control=f"{ALL}\nfleets: {{rows: {{members: {{devices: [{INVERTER}, NOBODY]}}}}}}")
            return finished("reload", plant.file)

    done = await asyncio.to_thread(story)
    assert (done.returncode, done.stdout.strip()) == (0, "started fleet:rows; control has other rules")
    assert "warning:" in done.stderr
    assert "no device 'NOBODY' has been seen" in " ".join(done.stderr.split())


@pytest.mark.system
def test_without_a_gateway_it_says_so(tmp_path):
    (tmp_path / "config.yaml").write_text("bridges: {web: {type: web, port: 0}}")
    (tmp_path / "data").mkdir()
    done = finished("reload", tmp_path / "config.yaml")
    assert (done.returncode, "no gateway runs" in done.stderr) == (1, True)


@pytest.fixture
async def running(plant):
    """A gateway in this process, which knows its devices."""
    plant.write(control=RULE)
    gateway = Gateway(Config.load(plant.file, installed()))
    await gateway.start()
    try:
        await until(lambda: gateway.router.state(INVERTER) and gateway.router.state(INVERTER).time)
        yield gateway
    finally:
        await gateway.stop()


async def test_devices_stay_while_their_bridge_is_replaced_and_go_where_it_does_not_find_them_again(plant, running):
    router = running.router
    router.announce("sems", Device(serial="GONE", kind=DeviceKind.INVERTER))
    mailbox, removed = router.attach("test"), set()
    plant.write(interval=30, control=RULE)
    assert await running.reload() == "restarted sems"
    assert router.state(INVERTER) is not None
    await until(lambda: router.state("GONE") is None, "what was not found again has gone")
    removed |= (await mailbox.take()).removed
    assert INVERTER not in removed
    router.detach("test")


async def test_of_a_bridge_that_is_taken_out_nothing_is_left(plant, running):
    plant.write(control=RULE)
    plant.file.write_text("".join(line for line in plant.file.read_text().splitlines(True) if "sems:" not in line))
    assert await running.reload() == "ended sems"
    assert running.router.state(INVERTER) is None
    assert "sems" not in {status.name for status in running.router.bridges()}


async def test_a_command_under_way_outlives_the_bridge_that_carries_it(plant, running):
    mailbox, ended, now = running.router.attach("steps"), [], running._clock.now()
    command = Command(
        id=new_command_id(), serial=INVERTER, setpoint="active_power_limit", value=50.0, origin=Origin("modbus"),
        created=now, expires=now + timedelta(minutes=10),
    )  # fmt: skip
    assert [event.state for event in await running._dispatcher.submit(command)] == [CommandState.ACCEPTED]
    plant.write(interval=30, control=RULE)
    await running.reload()

    async def end():
        while not ended:
            ended.extend(event.state for event in (await mailbox.take()).events if event.state.final)

    await asyncio.wait_for(end(), PATIENCE)
    assert ended == [CommandState.SUCCEEDED]
    running.router.detach("steps")


async def test_what_can_not_be_taken_up_is_refused(plant, running):
    plant.write(control=RULE + "\naudit: {keep_days: 3}")
    with pytest.raises(ConfigError, match="audit: is read at the start alone"):
        await running.reload()
    assert running.config.root.audit.keep_days == 400
