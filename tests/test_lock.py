"""The locks from which the container is built have what pyproject.toml asks for, all of it with hashes, and no more."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.kit.process import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRY = re.compile(
    r"^(?P<requirement>[a-z0-9-]+==[^\\\n]+?) \\\n"
    r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    r"(?P<via>(?:    #.*\n)*)",
    re.MULTILINE,
)
ASKED = {
    "requirements.lock": [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["demo"]],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
}


class Lock:
    def __init__(self, text):
        self.entries = {}
        self.via = {}
        """Name → names of what needs it; the project's own, or none, for what was asked for itself."""
        for entry in ENTRY.finditer(text):
            requirement = Requirement(entry["requirement"])
            self.entries[requirement.name] = requirement
            words = re.sub(r"^ *#( *via)?", "", entry["via"], flags=re.MULTILINE).split()
            self.via[requirement.name] = {word for word in words if not word.startswith("(")}
        self.rest = ENTRY.sub("", text)

    def version(self, name):
        (pin,) = self.entries[name].specifier
        return pin.version

    @property
    def direct(self):
        return {name for name, via in self.via.items() if not via or PROJECT["project"]["name"] in via}


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


def test_the_container_installs_nothing_else():
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = [step for step in re.split(r"&&|\n", dockerfile) if re.search(r"\bpip (install|wheel)\b", step)]
    assert len(installs) == 4
    assert all("--require-hashes" in step or "--no-deps" in step for step in installs)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert all(name in dockerfile and f"!{name}" in ignored for name in ASKED)
