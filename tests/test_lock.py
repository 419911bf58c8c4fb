"""The locks have what pyproject.toml asks for, all of it with hashes, and no more; all is installed from them alone."""

import re
import tomllib
from collections import defaultdict

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.kit.process import ROOT
from tests.supply.lock import Lock

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
RUN = [*PROJECT["project"]["dependencies"], *EXTRAS["kafka"]]
DEMO = [*RUN, *EXTRAS["demo"]]
ASKED = {
    "requirements.lock": RUN,
    "requirements-demo.lock": DEMO,
    "requirements-dev.lock": [*DEMO, *PROJECT["dependency-groups"]["dev"]],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
}


def faults(lock, asked):
    """What is wrong with a lock for what is asked."""
    wanted = {canonicalize_name(requirement.name): requirement.specifier for requirement in asked}
    for name, specifier in wanted.items():
        if name not in lock.entries or not specifier.contains(lock.version(name)):
            yield f"{name}{specifier} is not in it"
    reached = set(wanted)
    while more := {name for name, via in lock.via.items() if via & reached} - reached:
        reached |= more
    yield from (f"{name} is wanted by nobody" for name in lock.entries.keys() - reached)
    yield from (f"{name} is not asked for any more" for name in lock.direct - wanted.keys())
    if lock.rest.strip():
        yield f"this is no entry with hashes: {lock.rest.strip()[:80]}"


@pytest.mark.parametrize("file", ASKED)
def test_a_lock_agrees_with_pyproject(file):
    lock = Lock((ROOT / file).read_text())
    assert list(faults(lock, map(Requirement, ASKED[file]))) == [], "run make lock"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda text, asked: (re.sub(r"(?m)^httpx==.*\n(    .*\n)+", "", text), asked), "httpx>=0.28 is not in it"),
        (lambda text, asked: (text, [*asked, "nonesuch>=1"]), "nonesuch>=1 is not in it"),
        (lambda text, asked: (text, [one.replace("httpx>=0.28", "httpx>=99") for one in asked]), "httpx>=99 is not in"),
        (lambda text, asked: (text, [one for one in asked if "starlette" not in one]), "starlette is not asked for"),
        (lambda text, asked: (text + "evil==1.0\n", asked), "no entry with hashes: evil"),
        (lambda text, asked: (text + "evil==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via worse\n", asked),
         "evil is wanted by nobody"),
    ],
)  # fmt: skip
def test_a_lock_that_does_not_agree_is_found_out(spoil, says):
    text, asked = spoil((ROOT / "requirements.lock").read_text(), ASKED["requirements.lock"])
    assert any(says in fault for fault in faults(Lock(text), map(Requirement, asked)))


def test_all_locks_have_the_same_versions():
    """What the tests ran with is what production runs."""
    locks = {file: Lock((ROOT / file).read_text()) for file in ASKED}
    pins = defaultdict(set)
    for lock in locks.values():
        for name in lock.entries:
            pins[name].add((lock.version(name), tuple(lock.hashes[name])))
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}, "run make lock"


def test_production_has_no_broker_in_it():
    """Only the demo needs one; who commands a plant need not carry a second broker about."""
    assert "amqtt" not in Lock((ROOT / "requirements.lock").read_text()).entries
    assert "amqtt" in Lock((ROOT / "requirements-demo.lock").read_text()).entries


def installs(script):
    """Return the steps of a Dockerfile or Makefile in which pip installs something."""
    steps = re.split(r"&&|\n", script.replace("\\\n", " "))
    return [step for step in steps if re.search(r"(\bpip|\$\(LOCKED\).*) (install|wheel)\b", step)]


def test_the_container_installs_nothing_else():
    dockerfile = (ROOT / "Dockerfile").read_text()
    steps = installs(dockerfile)
    assert len(steps) == 4
    assert all("--require-hashes" in step or "--no-deps" in step for step in steps)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    used = set(re.findall(r"-r (\S+)", dockerfile))
    assert used == {"requirements.lock", "requirements-build.lock"}
    copied = {"requirements.lock", "requirements-build.lock", "sbom.cdx.json"}
    assert all(name in dockerfile and f"!{name}" in ignored for name in copied)
    assert not any("demo" in line or "dev" in line for line in ignored)


def test_demo_and_tests_install_nothing_else():
    """But pip itself, and the tools of `make lock`, `audit`, `sbom`, `fuzz`, `fleet`, no part of what is delivered."""
    makefile = (ROOT / "Makefile").read_text()
    loose = [step for step in installs(makefile) if not re.search("--require-hashes|--no-deps", step)]
    assert all(re.search(r'--upgrade "pip|\$\(VENV\)/tools/bin/python|"atheris|"pygal', step) for step in loose)
    assert len(loose) == 4
    rule = makefile[makefile.index("$(VENV)/%.stamp: requirements-%.lock") :]
    assert len(installs(rule[: rule.index("\n\n")])) == 3
