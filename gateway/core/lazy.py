"""Packages whose names are imported once they are asked for: a setting of a bridge is read without its bridge."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy(package: str, **modules: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package. `modules`: name → the module below the package that has it."""

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get
