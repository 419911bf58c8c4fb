"""The main job with real programs: mosquitto, mbpoll, the simulated SEMS and the gateway as processes."""

import json
import signal
import socket
import sqlite3
from contextlib import closing

import pytest

from tests.kit.ports import free_port
from tests.kit.process import eventually, finished, sems_gateway
from tests.system.conftest import AC_POWER, INVERTER, LIMIT

pytestmark = pytest.mark.system


def results(subscriber):
    return [json.loads(line.split(" ", 1)[1]) for line in list(subscriber.lines)]


def ended(subscriber, value):
    return next((r for r in results(subscriber) if r["state"] == "succeeded" and r["value"] == value), None)


def test_a_limit_set_over_mqtt_is_in_the_simulator_and_in_modbus_and_one_by_mbpoll_at_the_result_topic(plant):
    with plant.everything(), plant.subscribe(f"sems/{INVERTER}/result") as watcher:
        plant.publish(f"sems/{INVERTER}/set/active_power_limit", 10)
        eventually(lambda: ended(watcher, 10.0))
        assert [r["state"] for r in results(watcher)] == ["accepted", "sent", "succeeded"]
        assert plant.true_limit() == 10.0
        eventually(lambda: plant.read_float(LIMIT) == 10.0)
        eventually(lambda: 0 < (plant.power or 0) <= 1000.5, otherwise="the inverter does not obey")

        assert plant.mbpoll(LIMIT, 80).error == ""
        done = eventually(lambda: ended(watcher, 80.0))
        assert done["origin"].startswith("modbus:127.0.0.1")
        assert plant.true_limit() == 80.0
        eventually(lambda: plant.state()["active_power_limit"] == 80.0)


def test_sems_away_makes_data_stale_on_both_sides_and_heals_without_a_restart(plant):
    with plant.broker(), plant.gateway() as gateway:
        with plant.simulator():
            plant.wait_for_data()
            eventually(lambda: plant.power)  # each bridge shows it in its own time
        eventually(lambda: plant.state()["quality"] == "stale")
        eventually(lambda: plant.retained(f"sems/{INVERTER}/availability") == "offline")
        said = eventually(
            lambda: str(plant.read_float(AC_POWER)) if "failed" in str(plant.read_float(AC_POWER)) else ""
        )
        assert "respond" in said.lower() or "target" in said.lower()
        health = json.loads(plant.retained("sems/bridge/health"))
        assert not health["bridges"]["sems"]["up"]
        assert "can't be reached" in health["bridges"]["sems"]["detail"]
        with plant.simulator():
            plant.wait_for_data()
            eventually(lambda: plant.retained(f"sems/{INVERTER}/availability") == "online")
            eventually(lambda: plant.power)
            # Before the simulator was there, and between the two.
            downs = [line for line in gateway.lines if '"event": "down"' in line and '"sems"' in line]
            assert len(downs) <= 2, "a failure is logged once when it begins"


def test_a_broker_and_a_port_that_are_away_at_the_start_heal_too(plant):
    with plant.simulator(), plant.gateway() as gateway:
        gateway.line('"mqtt".*refused')
        with plant.broker():
            plant.wait_for_data()


def test_a_modbus_port_in_use_is_said_and_taken_when_it_is_free(plant):
    taken = socket.create_server(("127.0.0.1", plant.modbus))
    with taken, plant.broker(), plant.simulator(), plant.gateway() as gateway:
        gateway.line(f"port {plant.modbus} .*in use")
        plant.wait_for_data()
        taken.close()
        eventually(lambda: plant.power is not None)


def test_wrong_credentials_are_one_clear_line_and_no_hammering_not_even_over_restarts(plant):
    plant.configure(password="wrong-secret")
    with plant.broker(), plant.simulator():
        for _ in range(3):
            with plant.gateway() as gateway:
                gateway.line("check account and password")
            assert sum("check account and password" in line for line in gateway.lines) == 1
            assert "wrong-secret" not in gateway.text
        assert len(plant.ask_simulator("calls?interface=GetToken")["calls"]) == 1


@pytest.mark.parametrize(
    ("topic", "payload", "reason", "says"),
    [
        ("set", "{not json", "bad_request", "JSON"),
        ("set", '{"warp_factor": 9}', None, "warp_factor"),
        ("set/warp_factor", "9", None, "warp_factor"),
        ("set/active_power_limit", "101", "out_of_range", "0 to 100"),
        ("set/active_power_limit", "much", "bad_value", "number"),
        ("set/battery_mode", "charge", "not_permitted", "control.allow"),
    ],
)
def test_a_bad_set_message_is_refused_with_a_reason_and_nothing_is_sent(shared, topic, payload, reason, says):
    with shared.subscribe(f"sems/{INVERTER}/result") as watcher:
        before = len(shared.ask_simulator("controls")["controls"])

        # Once the watcher gets an answer, it is subscribed; answers to an earlier test may come first.
        def refused():
            shared.publish(f"sems/{INVERTER}/{topic}", payload)
            return [r for r in results(watcher) if r["state"] == "rejected" and says in r["detail"]]

        (answer, *_) = eventually(refused)
        assert reason is None or answer["reason"] == reason
        assert len(shared.ask_simulator("controls")["controls"]) == before


def test_a_retained_set_is_ignored_with_a_log_line(shared):
    topic = f"sems/{INVERTER}/set/active_power_limit"
    shared.publish(topic, 33, "--retain")
    try:
        with sems_gateway("run", shared.second_config()) as second:
            second.line("retained")
        assert shared.true_limit() != 33.0
    finally:
        shared.clear(topic)


@pytest.mark.parametrize(("register", "value", "says"), [(AC_POWER, 5, "address"), (LIMIT, 101, "value")])
def test_a_bad_modbus_write_has_the_exception_it_should(shared, register, value, says):
    done = shared.mbpoll(register, value)
    assert says in done.error.lower()


def test_with_control_off_a_write_is_an_illegal_function(plant):
    plant.config.write_text(plant.config.read_text().replace("enabled: true", "enabled: false"))
    with plant.everything():
        assert "illegal function" in plant.mbpoll(LIMIT, 50).error.lower()
        assert plant.true_limit() == 100.0


# the command line


def test_send_shows_each_step_and_says_by_its_exit_code_how_it_ended(shared):
    done = finished("send", shared.config, INVERTER, "active_power_limit", "64", "--wait")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["accepted", "sent", "succeeded"]
    assert shared.true_limit() == 64.0
    done = finished("send", shared.config, INVERTER, "active_power_limit", "640", "--wait")
    assert done.returncode == 1
    assert "out_of_range" in done.stdout
    done = finished("send", shared.config, INVERTER, "active_power_limit", "65")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)


def test_devices_of_the_running_gateway_and_without_one_fresh_from_sems(shared, plant):
    live = finished("devices", shared.config)
    assert live.returncode == 0
    assert live.stdout.count("9050KMTU") == 5
    assert "kW" in live.stdout
    plant.sems = shared.sems
    plant.configure()
    fresh = finished("devices", plant.config)
    assert fresh.returncode == 0
    assert fresh.stdout.count("9050KMTU") == 5
    assert "asking SEMS" in fresh.stderr


@pytest.mark.parametrize("format_", ["table", "csv", "json", "markdown"])
def test_registers_in_every_format(shared, format_):
    done = finished("registers", shared.config, "--format", format_)
    assert done.returncode == 0
    assert "active_power_limit" in done.stdout
    assert str(LIMIT) in done.stdout


def test_send_without_a_gateway_says_how_to_start_one(plant):
    done = finished("send", plant.config, INVERTER, "running", "true")
    assert done.returncode == 1
    assert "sems-gateway run" in done.stderr


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_bad_configuration_exits_2_with_file_line_and_remedy(plant, command):
    plant.config.write_text(plant.config.read_text().replace("type: mqtt", "type: mqqt"))
    done = finished(command, plant.config)
    assert done.returncode == 2
    assert f"{plant.config}:10: bridges.mqtt.type: there is no bridge type 'mqqt'; did you mean 'mqtt'?" in done.stderr


def test_check_of_a_good_one_and_version(plant):
    done = finished("check", plant.config)
    assert done.returncode == 0
    assert "is in order: sems (open_api), mqtt (mqtt), modbus (modbus); control enabled" in done.stdout
    assert finished("--version", fresh=True).stdout.startswith("sems-gateway ")


def test_a_second_gateway_on_the_same_data_is_refused(shared):
    done = finished("run", shared.config)
    assert done.returncode == 1
    assert "another process holds" in done.stderr


def test_a_journal_of_another_format_stops_the_start_with_a_remedy(plant):
    (plant.directory / "data").mkdir()
    with closing(sqlite3.connect(plant.directory / "data" / "journal.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    done = finished("run", plant.config)
    assert done.returncode == 1
    assert "move the file away" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_good_order(plant, number):
    with plant.broker(), plant.simulator(), plant.gateway() as gateway:
        plant.wait_for_data()
        with plant.subscribe("sems/bridge/state") as watcher:
            watcher.line("online")
            assert gateway.end(number) == 0
            watcher.line("offline")
        assert not any("rror" in line for line in gateway.lines), gateway.text
        with plant.gateway() as again:
            again.line('"up"')


def test_killed_it_is_offline_by_its_will_and_a_restart_picks_up(plant):
    with plant.broker(), plant.simulator():
        with plant.gateway() as gateway:
            plant.wait_for_data()
            gateway.end(signal.SIGKILL)
        eventually(lambda: plant.retained("sems/bridge/state") == "offline")
        with plant.gateway():
            eventually(lambda: plant.retained("sems/bridge/state") == "online")
            eventually(lambda: plant.power is not None)


def test_a_simulator_port_in_use_is_said():
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        done = finished("simulate", "--port", port)
    assert done.returncode == 1
    assert str(port) in done.stderr
