"""The bill of materials (CycloneDX) of what production runs, and the list of its licences.

cyclonedx-py makes it from an environment into which requirements.lock alone was installed, so it has the licences that
packages declare of themselves. It knows no hashes of what pip installed; those come from the lock, to which pip was
held.
"""

import re
import tomllib

from packaging.utils import canonicalize_name

from tests.kit.process import ROOT

LOCK = ROOT / "requirements.lock"
BOM = ROOT / "sbom.cdx.json"
LICENCES = ROOT / "docs" / "licences.md"

ALLOWED = {
    "Apache-2.0": "notice and text stay with it; grants patents",
    "BSD-2-Clause": "notice stays with it",
    "BSD-3-Clause": "notice stays with it; no use of names",
    "ISC": "notice stays with it",
    "MIT": "notice stays with it",
    "MIT-0": "nothing is asked",
    "MPL-2.0": "its own files stay open; we change none",
    "PSF-2.0": "notice stays with it",
}
"""SPDX id → what it asks of who ships it. None of them says what our own code must be under."""

STATED = {
    "confluent-kafka": "Apache-2.0",
    "protobuf": "BSD-3-Clause",
}
"""Packages whose metadata have no SPDX name, as their LICENSE files say it."""


def complete(bom, lock):
    """Make cyclonedx-py's bill ours: hashes of the lock, one licence a component, and no addresses of shops."""
    for component in bom["components"]:
        name = canonicalize_name(component["name"])
        component["externalReferences"] = [
            {
                "type": "distribution",
                "url": component["purl"],
                "comment": "files that may be installed, from requirements.lock",
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in lock.hashes[name]],
            }
        ]
        component["licenses"] = [{"expression": licence(component)}]
    root = bom["metadata"]["component"]
    root["version"] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    by_name = {canonicalize_name(component["name"]): component["bom-ref"] for component in bom["components"]}
    bom["dependencies"] = [entry for entry in bom["dependencies"] if entry["ref"] != root["bom-ref"]]
    direct = sorted(by_name[name] for name in lock.direct & by_name.keys())
    bom["dependencies"].append({"ref": root["bom-ref"], "dependsOn": direct})
    return bom


def licence(component):
    """Return the SPDX expression of a component; an id that it declares counts before the words of a classifier."""
    stated = STATED.get(canonicalize_name(component["name"]))
    found = component.get("licenses", [])
    for one in found:
        if expression := one.get("expression") or one.get("license", {}).get("id"):
            return expression
    if stated is None:
        raise LookupError(f"{component['name']} declares no licence by its SPDX name: {found}; see STATED")
    return stated


def allowed(expression):
    """Tell whether we may ship something under this expression: one side of an OR is enough, an AND needs both."""
    return any(
        all(name in ALLOWED for name in re.split(r" AND ", side.strip("() "))) for side in re.split(r" OR ", expression)
    )


def faults(bom, lock):
    """What is wrong with a bill of materials for a lock."""
    listed = {canonicalize_name(component["name"]): component for component in bom["components"]}
    wanted = lock.on_linux()
    yield from (f"{name} is not in it" for name in sorted(wanted - listed.keys()))
    yield from (f"{name} is not in requirements.lock" for name in sorted(listed.keys() - wanted))
    for name in sorted(wanted & listed.keys()):
        component = listed[name]
        digests = {digest["content"] for reference in component["externalReferences"] for digest in reference["hashes"]}
        (expression,) = (one["expression"] for one in component["licenses"])
        if component["version"] != lock.version(name):
            yield f"{name} {component['version']} is {lock.version(name)} in requirements.lock"
        if digests != set(lock.hashes[name]):
            yield f"{name} has other hashes"
        if not allowed(expression):
            yield f"{name} is under {expression}, which is not in tests/supply/bom.py's ALLOWED"


def table(bom):
    """Return docs/licences.md."""
    rows = sorted(
        (canonicalize_name(one["name"]), one["version"], one["licenses"][0]["expression"]) for one in bom["components"]
    )
    return "\n".join([
        "# Licences",
        "",
        "What production runs (`requirements.lock`, on Linux), and under which licence. `make sbom` writes this file",
        "and `sbom.cdx.json`, in which each package also has the SHA-256 of every file it may be installed from.",
        "Compiled packages carry libraries of their own (confluent-kafka librdkafka, cryptography OpenSSL, pyyaml",
        "libyaml, uvloop libuv); their licences lie in the package. The gateway itself is under MIT.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
        *(f"| {name} | {version} | {expression} |" for name, version, expression in rows),
        "",
        "## What is allowed",
        "",
        "Where a package offers a choice, one of these is enough. A test refuses others.",
        "",
        "| licence | what it asks of us |",
        "|---|---|",
        *(f"| {name} | {asks} |" for name, asks in ALLOWED.items()),
        "",
    ])  # fmt: skip
