"""`sems-gateway backup` and `restore`: a gateway goes on elsewhere, and nothing of its past is done again."""

import io
import json
import random
import tarfile
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr, field_validator

from gateway.api import BridgeSettings
from gateway.run import backup as backups
from gateway.run.settings import BridgeConfig, Config, Root
from tests.kit.process import eventually, finished
from tests.reliability.rig import Rig

pytestmark = pytest.mark.system

TIMER = ("9020KDTU219W0001", "export_limit")
OPEN = ("9020KETT221W0001", "export_limit")
FREE = ("9050KMTU220W0001", "export_limit")


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("old"), log="info")
    with rig.surroundings():
        yield rig


@pytest.fixture(scope="module")
def archive(rig):
    """Made while the gateway runs, with a command under way and a dead-man's timer."""
    rig.start()
    rig.wait_until_ready()
    eventually(lambda: rig.set(TIMER, 1.0, revert_after=3600, revert_value=2.0).status_code < 300)
    eventually(lambda: rig.ended(TIMER, 1.0) == "succeeded")
    rig.spoil(device_delay=3600)
    assert rig.set(OPEN, 5.0, ttl=3600).status_code < 300
    archive = rig.directory / "box.backup"
    done = ok(finished("backup", rig.config, archive, "--with-secrets"))
    assert "keep it where nobody else can read it" in done.stdout
    rig.spoil(device_delay=0)
    rig.stop()
    return archive


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def refused(*arguments):
    done = finished(*arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    return " ".join(done.stderr.split())


def controls(rig):
    return [(one["serial"], one.get("value")) for one in rig.ask("controls?limit=2000000")["controls"]]


def test_it_goes_on_elsewhere_with_its_units_and_does_nothing_of_its_past_again(rig, archive, tmp_path):
    assert archive.stat().st_mode & 0o777 == 0o600
    before = len(controls(rig))
    config, data_dir = tmp_path / "new" / "config.yaml", tmp_path / "new" / "data"
    said = ok(finished("restore", archive, config, "--data-dir", data_dir)).stdout
    assert "1 commands were open in it" in said
    assert f"set it yourself, {'/'.join(TIMER)} to 2.0" in said
    assert f"have it say {data_dir}" in said
    config.write_text(config.read_text().replace(str(rig.data_dir), str(data_dir)))
    assert (data_dir / "modbus-units.json").read_text() == (rig.data_dir / "modbus-units.json").read_text()
    assert {file.stat().st_mode & 0o777 for file in data_dir.iterdir()} == {0o600}
    old = rig.config, rig.data_dir
    rig.config, rig.data_dir = config, data_dir
    try:
        rig.start()
        rig.wait_until_ready()
        answer = rig.set(FREE, 3.0)
        assert (answer.status_code, answer.json()["reason"]) == (409, "halted")
        assert "restored from a backup" in answer.json()["detail"]
        ok(finished("resume", config))
        assert eventually(lambda: rig.set(FREE, 3.0).status_code < 300)
        eventually(lambda: rig.ended(FREE, 3.0) == "succeeded")
        assert rig.ended(OPEN, 5.0) == "unknown"
        assert rig.timers() == []
        told = controls(rig)[before:]
        assert {serial for serial, _ in told} == {FREE[0]}, told
        rig.stop()
    finally:
        rig.kill()
        rig.config, rig.data_dir = old
    ok(finished("audit", config))


def test_secrets_stay_out_unless_asked_for_and_that_is_said(rig, archive, tmp_path):
    target = tmp_path / "plain.backup"
    said = ok(finished("backup", rig.config, target)).stdout
    assert "left out: bridges.web.tokens.tester.token (config.yaml:" in said
    assert "tokens of SEMS" in said
    tokens = [file.read_bytes() for file in rig.data_dir.glob("*-session.json")]
    assert tokens
    with tarfile.open(target) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    assert not [name for name, text in content.items() if rig.token.encode() in text or text in tokens]
    assert "journal.sqlite" in " ".join(content)
    config = tmp_path / "config.yaml"
    ok(finished("restore", target, config, "--data-dir", tmp_path / "data"))
    checked = finished("check", config)
    assert checked.returncode == 2
    assert "bridges.web.tokens.tester.token" in checked.stderr


NAMESAKES = """\
# yaml-language-server: $schema=plant.schema.json
bridges:
  sems: &sems
    type: open_api
    account: demo
    password: demo
  twin:
    <<: [*sems, {password: "${password}"}]
    account: other
  mqtt:
    {type: mqtt, host: demo, username: demo, password: {file: broker}, transport: websockets, headers: {X-Demo: demo}}
"""


def test_a_secret_is_left_out_by_its_key_and_what_equals_it_stays(tmp_path, monkeypatch):
    file, archive, target = tmp_path / "plant.yaml", tmp_path / "plant.backup", tmp_path / "new" / "plant.yaml"
    file.write_text(NAMESAKES.replace("${password}", "stale"))
    (tmp_path / "broker").write_text("demo")
    (tmp_path / "plant.schema.json").write_text("{}")
    monkeypatch.setenv("SEMS_GATEWAY_BRIDGES__TWIN__PASSWORD", "fresh")
    said = ok(finished("backup", file, archive)).stdout
    told = [line.removeprefix("left out: ") for line in said.splitlines() if line.startswith("left out: bridges")]
    assert told == [
        "bridges.sems.password (plant.yaml:6)",
        "bridges.twin.password (plant.yaml:8)",
        "bridges.mqtt.headers.X-Demo (plant.yaml:11)",
    ]
    assert "left out: broker, which has a secret in it" in said
    ok(finished("restore", archive, target))
    expected = NAMESAKES.replace("password: demo", "password: change-me").replace('"${password}"', "change-me")
    assert target.read_text() == expected.replace("X-Demo: demo", "X-Demo: change-me")
    assert target.with_name("plant.schema.json").read_text() == "{}"


class Shortened(BridgeSettings):
    """A plugin's, which takes `login: [name, password]`."""

    login: dict[str, SecretStr]

    @field_validator("login", mode="before")
    @classmethod
    def _long(cls, short):
        return dict([short])


def test_a_secret_in_a_shorter_form_is_known_by_its_text(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("bridges:\n  own:\n    login: [me, hidden]\n")
    settings = Shortened.model_validate({"login": ["me", "hidden"]})
    config = Config(file, Root(bridges={"own": {}}), (BridgeConfig("own", None, "own", settings),))
    made = backups.make(config, tmp_path / "b", datetime.now(UTC), secrets=False, force=False)
    assert made.left_out[0] == "bridges.own.login[1] (config.yaml:3)"
    with tarfile.open(tmp_path / "b") as tar:
        assert b"login: [me, change-me]" in tar.extractfile("config/config.yaml").read()


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (".", "is a directory; name a file in it"),
        ("none/b", "there is no directory"),
        ("none", "there is no file"),
    ],
)
def test_a_file_that_can_not_be_is_told_in_plain_words(tmp_path, named, said):
    config, now = Config(tmp_path / "config.yaml", Root(bridges={"own": {}}), ()), datetime.now(UTC)
    if named != "none":
        with pytest.raises(backups.BackupError, match=said) as told:
            backups.make(config, tmp_path / named, now, secrets=False, force=True)
        assert "Errno" not in str(told.value)
    if named != "none/b":
        with pytest.raises(backups.BackupError, match=said) as told:
            backups.restore(tmp_path / named, tmp_path / "new" / "config.yaml", now, data_dir=None, force=False)
        assert "Errno" not in str(told.value)


def test_it_overwrites_nothing_unless_told_and_never_what_is_in_use(rig, archive, tmp_path):
    assert "is there already" in refused("backup", rig.config, archive)
    assert "is there already" in refused("restore", archive, rig.config)
    config = tmp_path / "config.yaml"
    assert "is not empty" in refused("restore", archive, config)
    assert not config.exists()
    rig.start()
    rig.wait_until_ready()
    assert "another process holds" in refused("restore", archive, rig.config, "--force")
    rig.stop()
    had = {file.name for file in rig.data_dir.iterdir()} - {"lock"}
    said = ok(finished("restore", archive, config, "--force")).stdout
    (aside,) = rig.data_dir.glob("before-restore-*")
    assert str(aside) in said.replace("\n", "")
    assert {file.name for file in aside.iterdir()} == had
    assert json.loads((rig.data_dir / "halt.json").read_text())["by"] == "gateway"


@pytest.mark.parametrize("how", ["cut", "noise", "newer", "foreign", "outside", "links"])
def test_what_is_damaged_newer_or_no_backup_is_refused_before_anything_is_written(archive, tmp_path, how):
    bad, config = tmp_path / "bad.backup", tmp_path / "there" / "config.yaml"
    content = archive.read_bytes()
    dice = random.Random(how)
    if how == "cut":
        bad.write_bytes(content[: dice.randrange(len(content))])
    elif how == "noise":
        at = dice.randrange(20, len(content) - 20)
        bad.write_bytes(content[:at] + bytes(b ^ 0xFF for b in content[at : at + 8]) + content[at + 8 :])
    elif how == "foreign":
        bad.write_bytes(b"no backup at all")
    else:
        with tarfile.open(archive) as tar, tarfile.open(bad, "w:gz") as out:
            for member in tar.getmembers():
                text = tar.extractfile(member).read()
                if member.name == "manifest.json" and how == "newer":
                    text = json.dumps(json.loads(text) | {"version": "999.0.0"}).encode()
                    member.size = len(text)
                elif member.name != "manifest.json" and how == "outside":
                    member.name = f"../{member.name}"
                elif member.name != "manifest.json" and how == "links":
                    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/nowhere", 0
                out.addfile(member, io.BytesIO(text))
    told = refused("restore", bad, config, "--data-dir", tmp_path / "data")
    assert ("999.0.0" if how == "newer" else "damaged") in told
    assert not config.exists()
    assert not (tmp_path / "data").exists()


def test_after_an_upgrade_a_copy_of_what_was_there_is_kept(rig, archive, tmp_path):
    """Y6. It is a backup of the version before, so that one can be gone back to."""
    copy, told = rig.data_dir / "before-upgrade.backup", rig.data_dir / "version.json"
    (rig.data_dir / "halt.json").unlink(missing_ok=True)
    assert not copy.exists()
    rig.start()
    rig.wait_until_ready()
    eventually(told.exists)
    now = json.loads(told.read_text())["gateway"]
    rig.stop()
    assert not copy.exists()
    told.write_text('{"gateway": "0.0.1"}')
    rig.start()
    rig.wait_until_ready()
    eventually(lambda: json.loads(told.read_text())["gateway"] == now)
    rig.stop()
    with tarfile.open(copy) as tar:
        assert json.loads(tar.extractfile("manifest.json").read())["version"] == "0.0.1"
    ok(finished("restore", copy, tmp_path / "config.yaml", "--data-dir", tmp_path / "data"))
    assert not (tmp_path / "data" / "before-upgrade.backup").exists()
