"""Every command that the README tells a user to run, is run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.ports import free_port
from tests.kit.process import ROOT, finished
from tests.system.conftest import INVERTER

pytestmark = pytest.mark.system
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
YAML = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def readme_plant(shared, tmp_path):
    """The README's configuration, with this machine's addresses in the place of the plant's."""
    text = YAML[0].replace("https://eu.openapi.semsportal.com", f"http://127.0.0.1:{shared.sems}")
    text = text.replace("192.168.1.10", f"127.0.0.1, port: {shared.mqtt}").replace("me@mycompany.de", "demo")
    text = text.replace("host: 0.0.0.0, port: 5020", "host: 127.0.0.1, port: 5020")
    text = text.replace("port: 9090", f"port: {free_port()}")
    file = tmp_path / "config.yaml"
    file.write_text(text)
    (tmp_path / "config.sems-password").write_text("demo\n")
    return file


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def shell(command, **options):
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=300, check=False, **options
    )


def make_demo(**_):
    anywhere = " ".join(f"--{what}-port 0" for what in ("mqtt", "modbus", "sems", "web"))
    done = ok(shell(f"make --no-print-directory demo ARGS='--self-test {anywhere}'", cwd=ROOT))
    assert "The round trip works both ways" in done.stdout
    assert "demo --self-test" in README


def make_test(**_):
    assert " -m tests.again " in ok(shell("make -n test", cwd=ROOT)).stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """As uv and pipx do, but by pip, into a directory of its own, without dependencies, which are here already."""
    target = tmp_path_factory.mktemp("installed")
    ok(shell(f"{sys.executable} -m pip install --quiet --no-deps --target {target} .", cwd=ROOT))
    return target


def install(request, tmp_path, readme_plant, **_):
    env = os.environ | {"PYTHONPATH": str(request.getfixturevalue("installed"))}
    done = ok(shell(f"{sys.executable} -m gateway check {readme_plant}", cwd=tmp_path, env=env))
    assert "is in order" in done.stdout


def install_with_an_extra(request, **_):
    """What is installed is the same; the extra adds what it names."""
    target = request.getfixturevalue("installed")
    assert (target / "gateway" / "sems" / "catalogues" / "open_api.yaml").exists()
    (metadata,) = target.glob("*.dist-info/METADATA")
    assert "Provides-Extra: kafka" in metadata.read_text()


def init(shared, tmp_path, readme_plant, **_):
    file = tmp_path / "made.yaml"
    words = ("--account", "demo", "--password-file", tmp_path / "config.sems-password")
    cloud, broker = f"http://127.0.0.1:{shared.sems}", f"127.0.0.1:{shared.mqtt}"
    said = ok(finished("init", file, "--yes", *words, "--url", cloud, "--mqtt", broker, "--modbus", free_port())).stdout
    assert "lets us in" in said
    assert "in order" in ok(finished("check", file)).stdout


def check(readme_plant, **_):
    assert "read-only" in ok(finished("check", readme_plant)).stdout


def devices(readme_plant, **_):
    assert "9050KMTU220W0001" in ok(finished("devices", readme_plant)).stdout


def plan(readme_plant, **_):
    said = ok(finished("plan", readme_plant)).stdout
    assert "GetInverterBySN" in said
    assert "of 3060 that may be planned" in said


def history(readme_plant, tmp_path, **_):
    file = tmp_path / "history.csv"
    arguments = ("--from", "2026-06-20", "--to", "2026-06-20", "--out", file)
    ok(finished("history", readme_plant, INVERTER, *arguments))
    header, *rows = file.read_text().splitlines()
    assert header.startswith("time,")
    assert len(rows) == 288


def registers(readme_plant, **_):
    assert "active_power_limit" in ok(finished("registers", readme_plant)).stdout


def run(readme_plant, **_):
    from tests.kit.process import sems_gateway

    with sems_gateway("run", readme_plant, fresh=True) as gateway:
        gateway.line('"sems".*"up"')


def doctor(shared, **_):
    said = ok(finished("doctor", shared.config)).stdout
    assert "0 wrong" in said
    assert "pv + battery" not in said, "the sum comes out"


def units(shared, **_):
    assert INVERTER in ok(finished("units", shared.config)).stdout


def learn(readme_plant, tmp_path, **_):
    told = ok(finished("learn", readme_plant, "--wait", "0", cwd=tmp_path))
    (overrides,) = tmp_path.glob("learned-*.yaml")
    assert overrides.name in told.stdout


def send(shared, **_):
    done = finished("send", shared.config, INVERTER, "active_power_limit", "50", "--wait")
    assert "succeeded" in ok(done).stdout


def explain(shared, **_):
    done = ok(finished("explain", shared.config, INVERTER, "active_power_limit", "50"))
    assert "permitted, and sent as 50.0" in done.stdout


def halt(readme_plant, **_):
    done = ok(finished("halt", readme_plant, "--reason", "works on the roof"))
    assert "works on the roof" in done.stdout
    resumed = ok(finished("resume", readme_plant)).stdout
    assert "control goes on" in resumed
    assert "works on the roof" in resumed


def audit(shared, **_):
    done = ok(finished("audit", shared.config, "--since", "24h"))
    assert "started" in done.stdout
    assert "The audit is whole" in done.stderr


def docker_build(**_):
    """Where an engine runs, for real; elsewhere at least all that the Dockerfile names is there."""
    docker = shutil.which("docker")
    if docker and shell(f"{docker} info").returncode == 0:
        ok(shell("docker build -t sems-gateway .", cwd=ROOT))
        return
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == {
        "gateway",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "requirements.lock",
        "requirements-build.lock",
        "sbom.cdx.json",
    }


def docker_run(**_):
    docker = shutil.which("docker")
    if docker and shell(f"{docker} info").returncode == 0:
        ok(shell("docker run --rm sems-gateway --version"))


def simulate(**_):
    from tests.kit.process import sems_gateway

    with sems_gateway("simulate", "--port", free_port()) as simulator:
        simulator.line("ready")
    assert "sems-gateway simulate --port 8080 " in README


RUN = {
    "sems-gateway simulate --port 8080": simulate,
    "make demo": make_demo,
    "make test": make_test,
    "uv tool install .": install,
    "uv tool install '.[kafka]'": install_with_an_extra,
    "sems-gateway init config.yaml": init,
    "sems-gateway check config.yaml": check,
    "sems-gateway plan config.yaml": plan,
    "sems-gateway history config.yaml 9010KETU218W0001 --from 2026-06-20 --to 2026-06-20 --out history.csv": history,
    "sems-gateway devices config.yaml": devices,
    "sems-gateway registers config.yaml": registers,
    "sems-gateway units config.yaml": units,
    "sems-gateway learn config.yaml": learn,
    "sems-gateway run config.yaml": run,
    "sems-gateway doctor config.yaml": doctor,
    "sems-gateway send config.yaml 9010KETU218W0001 active_power_limit 50 --wait": send,
    "sems-gateway explain config.yaml 9010KETU218W0001 active_power_limit 50": explain,
    'sems-gateway halt config.yaml --reason "works on the roof"': halt,
    "sems-gateway audit config.yaml --since 24h": audit,
    "docker build -t sems-gateway .": docker_build,
    next(command for command in COMMANDS if command.startswith("docker run")): docker_run,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme(command, request, shared, tmp_path, readme_plant):
    RUN[command](request=request, shared=shared, tmp_path=tmp_path, readme_plant=readme_plant)


def test_the_readmes_control_section_is_valid(readme_plant):
    readme_plant.write_text(readme_plant.read_text() + YAML[1])
    assert "control enabled" in ok(finished("check", readme_plant)).stdout


def test_the_example_configuration_says_the_defaults(tmp_path):
    from gateway.api.registry import installed
    from gateway.run.settings import Config

    file = tmp_path / "config.yaml"
    file.write_text((ROOT / "config.example.yaml").read_text())
    config = Config.load(file, installed())
    assert config.root.control == type(config.root.control)()
    assert config.root.gateway == type(config.root.gateway)()
    for bridge in config.bridges:
        for name, field in type(bridge.settings).model_fields.items():
            if name in {"account", "password"}:  # to be filled in, so no defaults
                continue
            if not field.is_required() and name in bridge.settings.model_fields_set:
                assert getattr(bridge.settings, name) == field.get_default(call_default_factory=True), name


@pytest.mark.parametrize("page", [*sorted(Path(ROOT, "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link
