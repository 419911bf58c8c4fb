"""SEMS gateway: GoodWe's SEMS cloud in MQTT topics and Modbus TCP registers, and setpoints back."""

__version__: str
"""As it is installed. Found out once it is asked for: what can do so takes a tenth of the time that `send` takes."""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        found = version("sems-gateway")
    except PackageNotFoundError:  # run from a source tree that was never installed
        found = "0+unknown"
    globals()[name] = found
    return found
