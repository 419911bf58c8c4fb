"""`bridges.<name>` with `type: modbus`."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.api.bridge import EVERYWHERE, BridgeSettings, Claim, tcp_ports
from gateway.bridges.modbus import tls
from gateway.bridges.modbus.codec import WordOrder
from gateway.bridges.modbus.maps.chosen import Choice, build
from gateway.bridges.modbus.units import LAST_UNIT, Place, UnitBook, units_path
from gateway.config.host import Host
from gateway.config.local_file import LocalFile, beside
from gateway.config.network import Network
from gateway.config.settings import Settings
from gateway.config.short_form import ShortForm
from gateway.core.model import escape_role

LAST_PORT: Final = 65535
MAX_PORTS: Final = 256
GOODWE: Final = "goodwe"


Role = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Port = Annotated[int, Field(ge=0, le=LAST_PORT)]


class TlsSettings(Settings):
    """`tls:` of a listener: Modbus/TCP Security, with certificates on both sides."""

    certificate: LocalFile = Field(description="PEM file: this server's certificate, with its chain")
    key: LocalFile = Field(description="PEM file: its private key, not encrypted")
    client_ca: LocalFile = Field(description="PEM file: who signs the clients' certificates")
    write_roles: frozenset[str] = Field(
        default=frozenset(), description="roles, as the clients' certificates say, that may write; others only read"
    )

    @property
    def files(self) -> tls.TlsFiles:
        """The files alone."""
        return tls.TlsFiles(self.certificate, self.key, self.client_ca)

    @model_validator(mode="after")
    def _files_are_good(self) -> Self:
        try:
            tls.context(self.files)
        except tls.TlsError as error:
            raise ValueError(str(error)) from error
        return self


class Access(Settings):
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

    port: Port = Field(description="first port of its range, which is as long as the bridge's; 802 is usual for TLS")
    host: Host | None = Field(default=None, description="address to listen on; left out: the bridge's")


class UdpSettings(Settings):
    """`udp:`, or a line of it: one inverter on a UDP port, as behind a WiFi module of GoodWe's."""

    port: Port = Field(default=8899, description="where clients look for it")
    host: Host | None = Field(default=None, description="address to listen on; left out: the bridge's")
    device: str | None = Field(
        default=None, description="serial number of the inverter; left out: unit 247, or else the first one"
    )
    allow: tuple[Network, ...] | None = Field(
        default=None, min_length=1, description="networks whose machines are answered; left out: all"
    )
    read_only: bool = Field(default=True, description="false needs allow: a sender's address is easily forged")
    role: Role | None = Field(default=None, description="role of all who ask here, for rules: <bridge>/<role>")

    @model_validator(mode="after")
    def _who_writes_is_named(self) -> Self:
        if not self.read_only and self.allow is None:
            raise ValueError("read_only: false needs allow: the machines whose datagrams may write, e.g. [192.168.1.7]")
        return self


class Pin(ShortForm):
    """Where a device must be: `10`, or `{port: 5021, unit: 10}`."""

    SHORT: ClassVar = {"type": "integer", "minimum": 1, "maximum": LAST_UNIT}

    unit: int = Field(ge=1, le=LAST_UNIT)
    port: int | None = Field(default=None, ge=1, le=LAST_PORT, description="left out: the first of the range")

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_number(cls, raw: Any) -> Any:
        return {"unit": raw} if isinstance(raw, (int, str)) else raw


class ListenerSpec(NamedTuple):
    """One listener as it is to be opened: as many ports as the bridge has."""

    setting: str
    """Its setting's name, for messages, e.g. `listeners[0].port`."""
    host: str
    port: int
    access: Access


class ModbusSettings(Access, BridgeSettings):
    """The whole section."""

    host: Host = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: Port = Field(default=5020, description="0: any free one, named in the log")
    ports: int | None = Field(
        default=None,
        ge=1,
        le=MAX_PORTS,
        description=f"ports from `port` on, each with {LAST_UNIT} units; left out: as many as the devices need",
    )
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
    udp: tuple[UdpSettings, ...] = Field(
        default=(), description="the goodwe map over UDP: {port: 8899, …}, or a list of such; left out: off"
    )
    word_order: WordOrder = Field(default=WordOrder.ABCD, description="abcd: high word first; cdab: low word first")
    max_connections: int = Field(default=128, ge=1, description="clients at a time, for each port")
    max_connections_per_host: int = Field(default=16, ge=1, description="of one address, for each port")
    idle_timeout: float | None = Field(
        default=300, gt=0, description="seconds after which a silent client is disconnected; null: never"
    )
    ttl: float = Field(default=60, gt=0, le=86400, description="seconds until an unsent write expires")
    settle: float = Field(
        default=0.5,
        gt=0,
        le=60,
        description="seconds without a further write after which writes that belong together (sunspec, goodwe) are one "
        "command",
    )
    answer_writes: Literal["accepted", "done"] = Field(
        default="accepted", description="when a write is answered: once it is stored, or once the device did it"
    )
    answer_timeout: float = Field(
        default=5, gt=0, le=3600, description="seconds after which `done` is answered with exception 0x05"
    )

    @property
    def doors(self) -> list[ListenerSpec]:
        """Every listener, the bridge's own first."""
        return _doors(self, self.host, self.port, self.listeners)

    @property
    def connections(self) -> int:
        """See `BridgeSettings.connections`."""
        return len(self.doors) * (self.ports or 1) * self.max_connections

    def claims(self, gateway_id: str) -> Iterable[Claim]:  # noqa: ARG002
        """See `BridgeSettings.claims`. Where `ports` is left out, how many there will be is not known yet."""
        for door in self.doors:
            yield from tcp_ports(door.host, door.port, self.ports or 1, door.setting)
        for n, one in enumerate(self.udp):
            if one.port:
                yield Claim(f"udp[{n}].port", f"UDP port {one.port}", one.host or self.host)

    def conflicts(self, data_dir: Path, name: str) -> Iterable[str]:
        """See `BridgeSettings.conflicts`: units that are pinned to another device than has them."""
        book = UnitBook(units_path(data_dir, name), self.pins, self.ports or MAX_PORTS)
        book.load()
        return book.conflicts

    @property
    def roles(self) -> frozenset[str]:
        """See `BridgeSettings.roles`. Who has no role that may write commands nothing."""
        access: list[Access] = [self, *self.listeners]
        over_udp = [one.role for one in self.udp if one.role]
        return frozenset(
            role
            for one in access
            for role in [one.role or "", *(map(escape_role, one.tls.write_roles) if one.tls else ())]
            if role
        ) | frozenset(over_udp)

    @property
    def pins(self) -> Mapping[str, Place]:
        """Serial → where the configuration wants it."""
        return {serial: _place(pin, self.port) for serial, pin in self.units.items()}

    @field_validator("ports")
    @classmethod
    def _ports_end_in_time(cls, ports: int | None, info: ValidationInfo) -> int | None:
        if "port" in info.data and ports is not None:
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
        ports: int = known["ports"] or 1
        doors = _doors(None, known["host"], known["port"], listeners)
        for door in doors[1:]:
            _check_end(door.port, ports)
        for one, other in combinations(doors, 2):
            same_host = one.host == other.host or {one.host, other.host} & EVERYWHERE
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
        port: int = info.data["port"]
        ports: int = info.data["ports"] or min(MAX_PORTS, LAST_PORT + 1 - port)
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

    @field_validator("udp", mode="before", json_schema_input_type=UdpSettings | tuple[UdpSettings, ...])
    @classmethod
    def _udp_may_be_one(cls, raw: Any) -> Any:
        return [raw] if isinstance(raw, Mapping) else raw

    @field_validator("udp")
    @classmethod
    def _udp_fits(cls, udp: tuple[UdpSettings, ...], info: ValidationInfo) -> tuple[UdpSettings, ...]:
        maps: tuple[Choice, ...] = info.data.get("maps", ())
        if udp and maps and all(choice.map != GOODWE for choice in maps):
            raise ValueError(f"over UDP there is the map {GOODWE} alone, and `maps` does not name it; add it there")
        for one, other in combinations(udp, 2):
            hosts = {one.host or info.data.get("host"), other.host or info.data.get("host")}
            if one.port and one.port == other.port and (len(hosts) == 1 or hosts & EVERYWHERE):
                raise ValueError(f"two entries have port {one.port} of one host; give each its own host or port")
        return udp

    @field_validator("maps")
    @classmethod
    def _maps_fit(cls, maps: tuple[Choice, ...], info: ValidationInfo) -> tuple[Choice, ...]:
        found = tuple(
            choice.model_copy(update={"map": str(beside(Path(choice.map), info))}) if choice.is_file else choice
            for choice in maps
        )
        build(found, WordOrder.ABCD)  # clashes are the same in either order
        return found


def _doors(access: Access | None, host: str, port: int, listeners: Iterable[ListenerSettings]) -> list[ListenerSpec]:
    further = (
        ListenerSpec(f"listeners[{n}].port", listener.host or host, listener.port, listener)
        for n, listener in enumerate(listeners)
    )
    return [ListenerSpec("port", host, port, access or Access()), *further]


def _place(pin: Pin, first_port: int) -> Place:
    return Place(0 if pin.port is None else pin.port - first_port, pin.unit)


def _check_end(port: int, ports: int) -> None:
    if port + ports - 1 > LAST_PORT:
        raise ValueError(
            f"{ports} ports from {port} on end above {LAST_PORT}; begin at {LAST_PORT + 1 - ports} or below"
        )


def _range(port: int, ports: int) -> str:
    return f"port {port}" if ports == 1 else f"ports {port} to {port + ports - 1}"
