"""The access rules of docs/mqtt.md, from the page itself, and brokers that hold the gateway to them (`make acl`)."""

import os
import re
import subprocess
from pathlib import Path

from tests.kit.process import ROOT

BOUND = os.environ.get("SEMS_GATEWAY_ACL") == "1"
"""Whether brokers that let everybody in bind the gateway all the same."""
GATEWAYS = ("gateway", "sparkplug")
PASSWORD = "of-the-acl"
_PAGE = ROOT / "docs" / "mqtt.md"
_BLOCK = re.compile(r"^```acl\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What tests use in the place of the names that the page has.
_SPARKPLUG = [("sems", "test-gateway"), ("Süd 7", "n 1"), ("Süd 7", "n 2"), ("plant 7", "system-test")]
_BASES = ["sems", "site/7/sems", "home/pv", "other", "home/sems"]
_ANSWERS = ["sems/response/#", "answers/#", "one"]
"""In the place of the first, as the page says: `response_topics` of tests."""
_PREFIXES = ["homeassistant", "ha"]


def documented():
    """Return the rules as they stand on the page."""
    return "\n".join(_BLOCK.findall(_PAGE.read_text()))


def rules(text=None):
    """Return user → [(access, filter)]."""
    found, user = {}, None
    for line in (documented() if text is None else text).splitlines():
        match line.split(maxsplit=2):
            case ["user", name]:
                user = found.setdefault(name, [])
            case ["topic", access, filter_]:
                user.append((access, filter_))
            case [] | ["#", *_]:
                pass
            case _:
                raise ValueError(f"docs/mqtt.md: what is {line!r}?")
    return found


def matches(filter_, topic):
    """Whether a filter takes a topic (MQTT 5.0 §4.7)."""
    levels, ours = topic.split("/"), filter_.split("/")
    if ours[-1] == "#":
        ours.pop()
        levels = levels[: len(ours)]
    return len(ours) == len(levels) and all(mine in ("+", level) for mine, level in zip(ours, levels, strict=True))


def _as_tests_name_things():
    lines = []
    for user in GATEWAYS:
        lines.append(f"user {user}")
        for access, filter_ in rules()[user]:
            named = [filter_]
            if filter_.startswith("spBv1.0/sems/"):
                named = [
                    filter_.replace("/sems/", f"/{group}/").replace("/house", f"/{node}") for group, node in _SPARKPLUG
                ]
            elif filter_ == _ANSWERS[0]:
                named = [*_ANSWERS, *(f"{base}/response/#" for base in _BASES)]
            elif filter_.startswith("sems/"):
                named = [f"{base}{filter_.removeprefix('sems')}" for base in _BASES]
            elif filter_.startswith("homeassistant/"):
                named = [f"{prefix}{filter_.removeprefix('homeassistant')}" for prefix in _PREFIXES]
            lines += [f"topic {access} {name}" for name in named]
    return "\n".join(lines)


def binding(directory, users, passwords, *, as_documented=False):
    """Return lines of mosquitto.conf that hold `users` to their rules and let all others do everything.

    `passwords` is mosquitto_passwd. `as_documented`: to the very text of the page, else with the names of other tests.
    """
    acl, known = Path(directory) / "acl", Path(directory) / "acl-passwords"
    acl.write_text(f"topic readwrite #\n\n{documented() if as_documented else _as_tests_name_things()}\n")
    for file in (acl, known):
        file.touch()
        file.chmod(0o600)
    for user in users:
        subprocess.run([passwords, "-b", str(known), user, PASSWORD], check=True, capture_output=True)
    return [f"acl_file {acl}", f"password_file {known}", "allow_anonymous true", "log_type all"]


def login(payload="json"):
    """Return the settings by which a gateway is bound; none where tests leave it free."""
    if not BOUND:
        return {}
    return {"username": "sparkplug" if payload == "sparkplug" else "gateway", "password": PASSWORD}


def refused(log):
    """Return what the broker did not let a gateway do, as its log has it."""
    return [line for line in log.splitlines() if "Denied PUBLISH" in line]
