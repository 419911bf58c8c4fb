"""`bridges.<name>` with `type: modbus`."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.bridges.modbus import tls
from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.maps.chosen import Choice, build
from gateway.bridges.modbus.units import LAST_UNIT, Place
from gateway.core.bridge import BridgeSettings
from gateway.core.policy.origins import escape

LAST_PORT: Final = 65535
EVERYWHERE: Final = ("0.0.0.0", "::", "")  # noqa: S104 - not listened on here
"""Hosts that stand for every address of the machine."""


def _beside_the_configuration(path: Path, info: ValidationInfo) -> Path:
    directory = (info.context or {}).get("directory")
    return directory / path if isinstance(directory, Path) else path


def _network(raw: Any) -> Any:
    try:
        return ip_network(raw)
    except (ValueError, TypeError) as error:
        try:
            meant = ip_network(raw, strict=False)
        except (ValueError, TypeError):
            raise ValueError("this is no network; write e.g. 192.168.1.0/24, or 192.168.1.7 for one machine") from error
        raise ValueError(
            f"{raw} is a machine and a network at once; write {meant} for the network, "
            f"or {str(raw).partition('/')[0]} for the machine"
        ) from error


LocalFile = Annotated[Path, AfterValidator(_beside_the_configuration)]
"""A file's path; a relative one starts at the configuration's directory."""
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Role = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Port = Annotated[int, Field(ge=0, le=LAST_PORT)]


class TlsSettings(BaseModel):
    """`tls:` of a listener: Modbus/TCP Security, with certificates on both sides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: LocalFile = Field(description="PEM file: this server's certificate, with its chain")
    key: LocalFile = Field(description="PEM file: its private key, not encrypted")
    client_ca: LocalFile = Field(description="PEM file: who signs the clients' certificates")
    write_roles: frozenset[str] = Field(
        default=frozenset(), description="roles, as the clients' certificates say, that may write; others only read"
    )

    @model_validator(mode="after")
    def _files_are_good(self) -> Self:
        try:
            tls.context(self)
        except tls.TlsError as error:
            raise ValueError(str(error)) from error
        return self


class Access(BaseModel):
    """Who may do what on one listener."""

    read_only: bool = Field(default=False, description="true: every write is answered with exception 01")
    allow: tuple[Network, ...] | None = Field(
        default=None, min_length=1, description="networks whose machines may connect; left out: all"
    )
    tls: TlsSettings | None = Field(default=None, description="certificate, key and client_ca, for Modbus/TCP Security")
    role: Role | None = Field(default=None, description="role of all who connect here, for rules: <bridge>/<role>")

    @model_validator(mode="after")
    def _one_says_the_role(self) -> Self:
        if self.tls is not None and self.role is not None:
            raise ValueError("with tls, a client's certificate says its role; take out role")
        return self


class ListenerSettings(Access):
    """A line of `listeners:`: one more way to the same devices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: Port = Field(description="first port of its range, which is as long as the bridge's; 802 is usual for TLS")
    host: str | None = Field(default=None, description="address to listen on; left out: the bridge's")


class Pin(BaseModel):
    """Where a device must be: `10`, or `{port: 5021, unit: 10}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: int = Field(ge=1, le=LAST_UNIT)
    port: int | None = Field(default=None, ge=1, le=LAST_PORT, description="left out: the first of the range")

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_number(cls, raw: Any) -> Any:
        return {"unit": raw} if isinstance(raw, (int, str)) else raw


class Door(NamedTuple):
    """One listener as it is to be opened: as many ports as the bridge has."""

    setting: str
    """Its setting's name, for messages, e.g. `listeners[0].port`."""
    host: str
    port: int
    access: Access


class ModbusSettings(Access, BridgeSettings):
    """The whole section."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: Port = Field(default=5020, description="0: any free one, named in the log")
    ports: int = Field(default=1, ge=1, le=256, description=f"ports from `port` on, each with {LAST_UNIT} units")
    listeners: tuple[ListenerSettings, ...] = Field(
        default=(), description="further listeners for the same devices: port, host, read_only, allow, tls"
    )
    units: dict[str, Pin] = Field(
        default={}, description="serial number → unit, or {port: …, unit: …}, for devices that must have a certain one"
    )
    stale: Literal["exception", "sentinel"] = Field(
        default="exception",
        description="reads of measurements that are not good: exception 0x0B, or values that say 'not there'",
    )
    maps: tuple[Choice, ...] = Field(
        default=(Choice(map="native"),), min_length=1, description="register maps each unit has: names or CSV files"
    )
    word_order: WordOrder = Field(default=WordOrder.ABCD, description="abcd: high word first; cdab: low word first")
    max_connections: int = Field(default=128, ge=1, description="clients at a time, for each port")
    idle_timeout: float | None = Field(
        default=300, gt=0, description="seconds after which a silent client is disconnected; null: never"
    )
    ttl: float = Field(default=60, gt=0, le=86400, description="seconds until an unsent write expires")
    answer_writes: Literal["accepted", "done"] = Field(
        default="accepted", description="when a write is answered: once it is stored, or once the device did it"
    )
    answer_timeout: float = Field(
        default=5, gt=0, le=3600, description="seconds after which `done` is answered with exception 0x05"
    )

    @property
    def doors(self) -> list[Door]:
        """Every listener, the bridge's own first."""
        return _doors(self, self.host, self.port, self.listeners)

    @property
    def roles(self) -> frozenset[str]:
        """See `BridgeSettings.roles`. Who has no role that may write commands nothing."""
        access: list[Access] = [self, *self.listeners]
        return frozenset(
            role
            for one in access
            for role in [one.role or "", *(map(escape, one.tls.write_roles) if one.tls else ())]
            if role
        )

    @property
    def pins(self) -> Mapping[str, Place]:
        """Serial → where the configuration wants it."""
        return {serial: _place(pin, self.port) for serial, pin in self.units.items()}

    @field_validator("ports")
    @classmethod
    def _ports_end_in_time(cls, ports: int, info: ValidationInfo) -> int:
        if "port" in info.data:
            _check_end(info.data["port"], ports)
        return ports

    @field_validator("listeners")
    @classmethod
    def _listeners_fit(
        cls, listeners: tuple[ListenerSettings, ...], info: ValidationInfo
    ) -> tuple[ListenerSettings, ...]:
        known = info.data
        if known.keys() < {"host", "port", "ports"}:
            return listeners
        ports: int = known["ports"]
        doors = _doors(None, known["host"], known["port"], listeners)
        for door in doors[1:]:
            _check_end(door.port, ports)
        for one, other in combinations(doors, 2):
            same_host = one.host == other.host or {one.host, other.host} & set(EVERYWHERE)
            if same_host and one.port and other.port and abs(one.port - other.port) < ports:
                raise ValueError(
                    f"{other.setting}: {_range(other.port, ports)} on {other.host} meets {_range(one.port, ports)} "
                    f"of {one.setting}; choose a port that keeps clear of it"
                )
        return listeners

    @field_validator("units")
    @classmethod
    def _pins_fit(cls, units: dict[str, Pin], info: ValidationInfo) -> dict[str, Pin]:
        if "port" not in info.data or "ports" not in info.data:
            return units
        port, ports = info.data["port"], info.data["ports"]
        owners: dict[Place, str] = {}
        for serial, pin in units.items():
            if pin.port is not None and not port:
                raise ValueError(f"{serial} can't have port {pin.port} while `port: 0` means any; give `port` a number")
            if pin.port is not None and not port <= pin.port < port + ports:
                raise ValueError(
                    f"port {pin.port} of {serial} is not among {_range(port, ports)}; "
                    "choose one of these, or raise `ports`"
                )
            other = owners.setdefault(_place(pin, port), serial)
            if other != serial:
                raise ValueError(f"{pin.unit} is given to both {other} and {serial}; each needs its own")
        return units

    @field_validator("maps")
    @classmethod
    def _maps_fit(cls, maps: tuple[Choice, ...], info: ValidationInfo) -> tuple[Choice, ...]:
        found = tuple(
            choice.model_copy(update={"map": str(_beside_the_configuration(Path(choice.map), info))})
            if choice.is_file
            else choice
            for choice in maps
        )
        build(found, WordOrder.ABCD)  # clashes are the same in either order
        return found


def _doors(access: Access | None, host: str, port: int, listeners: Iterable[ListenerSettings]) -> list[Door]:
    further = (
        Door(f"listeners[{n}].port", listener.host or host, listener.port, listener)
        for n, listener in enumerate(listeners)
    )
    return [Door("port", host, port, access or Access()), *further]


def _place(pin: Pin, first_port: int) -> Place:
    return Place(0 if pin.port is None else pin.port - first_port, pin.unit)


def _check_end(port: int, ports: int) -> None:
    if port + ports - 1 > LAST_PORT:
        raise ValueError(
            f"{ports} ports from {port} on end above {LAST_PORT}; begin at {LAST_PORT + 1 - ports} or below"
        )


def _range(port: int, ports: int) -> str:
    return f"port {port}" if ports == 1 else f"ports {port} to {port + ports - 1}"
