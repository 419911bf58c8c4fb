"""Reads from Home Assistant's package, without running it, which classes, units and state classes go together."""

import ast
import zipfile
from enum import Enum, StrEnum

CONST = "homeassistant/const.py"
FILES = {
    "sensor": "homeassistant/components/sensor/const.py",
    "number": "homeassistant/components/number/const.py",
    "binary_sensor": [f"homeassistant/components/binary_sensor/{name}.py" for name in ("__init__", "const")],
    "button": [f"homeassistant/components/button/{name}.py" for name in ("__init__", "const")],
}


class Any:
    """Stands for what these files import and the tables don't need."""

    def __getattr__(self, name):
        return Any()

    def __call__(self, *_, **__):
        return Any()

    def __getitem__(self, _):
        return Any()


class Names(dict):
    def __missing__(self, name):
        raise NameError(name)


def constants(source, names):
    """Run the enumerations and constants of a module, and nothing else of it."""
    for node in ast.parse(source).body:
        is_enum = isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id in ("StrEnum", "Enum") for base in node.bases
        )
        if not is_enum and not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        if isinstance(node, ast.ClassDef):
            node.decorator_list, node.keywords = [], []
        if isinstance(node, ast.AnnAssign):
            node = ast.copy_location(ast.Assign([node.target], node.value), node)  # noqa: PLW2901 - what it is typed as
        try:
            exec(compile(ast.Module([node], []), "<home assistant>", "exec", dont_inherit=True), names)
        except Exception:  # noqa: BLE001 - what it needs is not among the constants
            continue
    return names


def text(value):
    return value.value if isinstance(value, Enum) else value


def table(found):
    return {text(key): sorted(map(text, values), key=str) for key, values in sorted(found.items())}


def read(wheel):
    """Return the rules of a version."""
    with zipfile.ZipFile(wheel) as it:

        def names_of(*files):
            names = {"StrEnum": StrEnum, "Enum": Enum, "Final": Any(), "Any": Any, "enum": Any()}
            for file in files:
                source = it.read(file).decode().replace("from __future__ import annotations", "")
                constants("from enum import StrEnum\n" + source, names)
            return names

        there = set(it.namelist())
        sensor = names_of(CONST, FILES["sensor"])
        number = names_of(CONST, FILES["number"])
        classes = {}
        for platform in ("binary_sensor", "button"):
            names = names_of(*(file for file in FILES[platform] if file in there))
            name = "BinarySensorDeviceClass" if platform == "binary_sensor" else "ButtonDeviceClass"
            classes[platform] = sorted(one.value for one in names[name])
        return {
            "sensor": {
                "classes": sorted(one.value for one in sensor["SensorDeviceClass"]),
                "units": table(sensor["DEVICE_CLASS_UNITS"]),
                "state_classes": table(sensor["DEVICE_CLASS_STATE_CLASSES"]),
                "all_state_classes": sorted(one.value for one in sensor["SensorStateClass"]),
            },
            "number": {
                "classes": sorted(one.value for one in number["NumberDeviceClass"]),
                "units": table(number["DEVICE_CLASS_UNITS"]),
            },
            **{platform: {"classes": found} for platform, found in classes.items()},
        }
