"""A simulator on a kernel port, clients for both of its APIs, and a clock moved by hand."""

import base64
import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import httpx

from gateway.core.clock import Clock
from gateway.sems.catalogue import load
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.fleet import DEFAULT_FLEET

NOON = datetime(2026, 6, 21, 12, 0, tzinfo=UTC)
HOUSE, BAKERY, PARK = DEFAULT_FLEET
HOUSE_SERIAL = HOUSE.devices[0].serial
ROOF_SERIAL = BAKERY.devices[1].serial
CATALOGUE = load("open_api")
DEVELOPER = load("developer")


def serial_of(type_, fleet=DEFAULT_FLEET):
    """The first device of a type, or the first plant's id."""
    if type_ == "plant":
        return fleet[0].id
    serials = [d.serial for plant in fleet for d in plant.devices if d.model.kind == type_]
    serials += [a.serial for plant in fleet for a in plant.accessories if a.type == type_]
    return serials[0]


class HandClock(Clock):
    def __init__(self, start=NOON):
        self._start = start
        self._elapsed = 0.0

    def now(self):
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self):
        return 1000.0 + self._elapsed

    def advance(self, seconds):
        self._elapsed += seconds

    def set_wall(self, moment):
        """Set the wall clock; seconds pass as before."""
        self._start += moment - self.now()


def order_window(clock):
    """What an order for a battery has besides: that it is one, and an hour in which it holds."""
    now = int(clock.now().timestamp())
    return {"battery_ordered": True, "begins": now, "ends": now + 3600}


class Developer:
    """A client of the developer platform."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.token = ""

    async def log_in(self, client_id="demo", secret="demo", fields=None):
        """Returns the HTTP answer."""
        basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        interface = DEVELOPER.interface("Token")
        answer = await self.cloud.http.post(
            interface.path,
            data=fields or {"grant_type": "client_credentials"},
            headers={"Authorization": f"Basic {basic}"},
        )
        if answer.status_code == 200 and "access_token" in answer.text:
            self.token = answer.json()["access_token"]
        return answer

    async def send(self, name, fields, **headers):
        """Make a call with these fields; returns the HTTP answer."""
        url = DEVELOPER.url_path(DEVELOPER.interface(name))
        headers = {"Authorization": f"Bearer {self.token}", "Request-Id": uuid.uuid4().hex} | headers
        return await self.cloud.http.post(url, json=fields, headers={k: v for k, v in headers.items() if v})

    async def call(self, name, setpoint="", **args):
        """Make a call with the gateway's arguments; returns code and data."""
        args = order_window(self.cloud.clock) | args
        envelope = (await self.send(name, DEVELOPER.interface(name).parameters(args, setpoint))).json()
        assert set(envelope) == {"code", "msg", "data"}
        return envelope["code"], envelope["data"]

    async def ask(self, name, setpoint="", **args):
        """Make a call that has to succeed; returns data."""
        code, data = await self.call(name, setpoint, **args)
        assert code == "00000"
        return data

    async def control(self, name, serial, setpoint="", **args):
        """Give a command; returns its receipt."""
        return (await self.ask(name, setpoint, serial=serial, **args))["taskId"]

    async def result(self, receipt):
        """What became of a task, in words."""
        [entry] = (await self.ask("ControlResult", receipt=receipt))["results"]
        return {0: "pending", 1: "succeeded", 2: "failed"}[entry["status"]], entry["message"]


class SimulatedCloud:
    """A running simulator and a client of its Open API."""

    def __init__(self, clock, **settings):
        self.clock = clock
        self.simulator = Simulator(SimulatorSettings(**({"port": 0, "seed": 7} | settings)), clock)
        self.token = ""
        self.developer = Developer(self)

    async def __aenter__(self):
        await self.simulator.start()
        self.http = httpx.AsyncClient(base_url=self.simulator.url, trust_env=False)
        return self

    async def __aexit__(self, *_):
        await self.http.aclose()
        await self.simulator.stop()

    @property
    def evidence(self):
        return self.simulator.cloud

    async def send(self, name, fields, *, method=None):
        """Make a call with these fields; returns the HTTP answer."""
        interface = CATALOGUE.interface(name)
        method = method or interface.method
        where = {"params": fields} if method == "GET" else {"json": fields}
        url = CATALOGUE.base + interface.path
        return await self.http.request(method, url, headers={"token": self.token}, **where)

    async def call(self, name, setpoint="", **args):
        """Make a call with the gateway's arguments; returns code and data."""
        args = order_window(self.clock) | args
        envelope = (await self.send(name, CATALOGUE.interface(name).parameters(args, setpoint))).json()
        assert set(envelope) == {"code", "msg", "data"}
        return str(envelope["code"]), envelope["data"]

    async def ask(self, name, setpoint="", **args):
        """Make a call that has to succeed; returns data."""
        code, data = await self.call(name, setpoint, **args)
        assert code == "0"
        return data

    async def log_in(self, password="demo"):
        md5 = hashlib.md5(password.encode()).hexdigest()
        code, data = await self.call("GetToken", account="demo", password_md5=md5)
        if data:
            self.token = data["token"]
        return code

    async def inverter(self, serial=HOUSE_SERIAL):
        return await self.ask("GetInverterBySN", serial=serial)

    async def control(self, name, serial=HOUSE_SERIAL, setpoint="", **args):
        """Give a command; returns its receipt."""
        return (await self.ask(name, setpoint, serial=serial, **args))["task_id"]

    async def result(self, receipt):
        """Return what GetControlResult says, in words."""
        data = await self.ask("GetControlResult", receipt=receipt)
        return {0: "pending", 1: "succeeded", 2: "failed"}[data["status"]], data["message"]

    async def break_(self, **order):
        answer = await self.http.post("/sim/faults", json=order)
        assert answer.status_code == 200, answer.text
        return answer.json()
