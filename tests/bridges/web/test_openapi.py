"""`/api/v1/openapi.json` says what the server does: each route is in it, and each answer is as it says."""

import msgspec
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from gateway.bridges.modbus import ModbusBridge, ModbusSettings
from gateway.bridges.web import WebBridge, WebSettings, openapi, problems
from gateway.bridges.web.api import Api
from gateway.bridges.web.problems import KINDS, ProblemError
from gateway.core.findings import FindingCode
from gateway.core.points import POINTS, SETPOINTS, Type
from tests.bridges.web.conftest import READER, SN, WRITER, served
from tests.bridges.web.test_served import Caller
from tests.kit.bench import EVERYTHING, Silent, until

LIMIT = "active_power_limit"


async def document_of(web):
    answer = await web.get(openapi.PATH, READER)
    assert answer.status_code == 200
    return answer.json()


def validator(document, schema):
    """Checks formats too: `date-time` is."""
    return Draft202012Validator({**schema, "components": document["components"]}, format_checker=FormatChecker())


def described(document, method, path, answer):
    """Fail unless an answer is one that the document has."""
    said = document["paths"][path][method.lower()]["responses"][str(answer.status_code)]
    media = answer.headers["content-type"].partition(";")[0]
    body = answer.json() if media.endswith("json") else answer.text
    validator(document, said["content"][media]["schema"]).validate(body)
    assert set(answer.headers) & {"retry-after", "location"} <= {name.lower() for name in said.get("headers", {})}


async def test_every_route_is_in_it_and_nothing_else(tmp_path, monkeypatch):
    apps = []
    make = Api.app
    monkeypatch.setattr(Api, "app", lambda *given: apps.append(make(*given)) or apps[-1])
    async with served(tmp_path) as web:
        document = await document_of(web)
    found = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    served_here = openapi.operations(apps[0].routes)
    assert found == set(served_here) == set(openapi.OPERATIONS)
    assert document["openapi"] == "3.1.0"
    ids = [row["operationId"] for item in document["paths"].values() for row in item.values()]
    assert len(ids) == len(set(ids))


async def test_its_schemas_are_json_schema_and_its_references_lead_somewhere(it):
    document = await document_of(it)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = set(document["components"]["schemas"])

    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].removeprefix("#/components/schemas/") in names
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(document)


@pytest.mark.parametrize(
    ("settings", "reads"), [({}, [{}, {"bearer": ["read"]}]), ({"token": "t" * 16}, [{"bearer": ["read"]}])]
)
async def test_scopes_are_what_tokens_must_have(tmp_path, settings, reads):
    """And what needs which is as the server has it: a reader's token is let in, or is refused as one that reads."""
    async with served(tmp_path, **settings) as web:
        document = await document_of(web)
        for path, item in document["paths"].items():
            for method, row in item.items():
                needed = row["security"]
                url = path.format(serial=SN, id="none")
                options = {"json": {}} if method == "post" else {}
                asked = "HEAD" if path.endswith("/events") else method.upper()  # a stream does not end
                without = await web.ask(asked, url, **options)
                reading = await web.ask(asked, url, READER, **options)
                assert (without.status_code == 401) == bool(needed and {} not in needed), path
                refused = reading.status_code == 403 and reading.json()["reason"] == "read_only_token"
                assert refused == (needed == [{"bearer": ["control"]}]), path
                assert needed in ([], reads, [{"bearer": ["control"]}]), path


async def test_each_success_is_as_it_says(tmp_path):
    async with served(tmp_path, control=EVERYTHING.model_copy(update={"resume": ["web"]})) as web:
        document = await document_of(web)
        seen = set()

        async def ask(method, path, token=READER, *, query="", expected=200, id_="one", **options):
            answer = await web.ask(method, path.format(serial=SN, id=id_) + query, token, **options)
            assert answer.status_code == expected, answer.text
            described(document, method, path, answer)
            seen.add((method, path, expected))
            return answer

        # Every point that there is, with a value of its type; but for what is set below, which would be read back.
        points = [point for point in POINTS.values() if point.id != LIMIT]
        values = {Type.FLOAT: 1.5, Type.INTEGER: 3, Type.BOOLEAN: True, Type.TEXT: "a"}
        web.bench.publish(**{p.id: p.options[0] if p.options else values[p.type] for p in points})
        await until(lambda: web.bench.router.state(SN).values)
        web.runner.find(FindingCode.LIST_DOUBTED, "P1", "2 of 9 devices are left", "wait")
        set_, command = "/api/v1/devices/{serial}/set", "/api/v1/commands/{id}"
        await ask("GET", openapi.PATH)
        assert (await ask("GET", "/api/v1/devices")).json()["total"] == 1
        device = (await ask("GET", "/api/v1/devices/{serial}", WRITER)).json()
        assert device["setpoints"].keys() == {*EVERYTHING.allow[0].setpoints}
        assert device["values"]["ac_power"] == 1.5
        web.controller.gate.clear()
        await ask("POST", set_, WRITER, json={LIMIT: 50, "id": "one"}, expected=202)
        await ask("GET", command)
        web.controller.gate.set()
        await ask("POST", set_, WRITER, query="?wait=10", json={"setpoint": LIMIT, "value": 40})
        bridges = (await ask("GET", "/api/v1/bridges")).json()
        assert bridges["bridges"]["web"]["findings_total"] == 1
        await ask("POST", "/api/v1/devices/{serial}/explain", WRITER, json={LIMIT: 45})
        web.bench.run(Caller, Silent.Settings(), "sems")
        modbus = web.bench.run(ModbusBridge, ModbusSettings(port=0), "modbus")
        await until(lambda: modbus.bridge.register_maps(SN))
        registers = (await ask("GET", "/api/v1/devices/{serial}/registers", query="?map=native")).json()
        assert {type(row["value"]) for row in registers["registers"]} >= {str, int, float, type(None)}
        assert (await ask("GET", "/api/v1/budgets")).json()["budgets"]
        await web.runner.bridge._recent.note()
        recent = (await ask("GET", "/api/v1/recent", query=f"?serial={SN}&serial=nowhere")).json()
        assert recent["curves"][SN]["point"] == "ac_power"
        await ask("GET", "/api/v1/halt")
        assert (await ask("POST", "/api/v1/halt", WRITER, json={"reason": "work"})).json()["since"]
        await ask("GET", "/api/v1/halt")
        await ask("POST", "/api/v1/resume", WRITER, json={})
        await ask("GET", "/metrics")
        await ask("GET", "/healthz")
        assert (await ask("GET", "/readyz")).json()["findings"]
        port = web.runner.bridge.port
        web.bench.run(WebBridge, WebSettings(port=port), "down")
        await until(lambda: any(status.name == "down" for status in web.bench.router.bridges()))
        await ask("GET", "/readyz", expected=503)
        said = {(m, p, status) for (m, p), row in openapi.OPERATIONS.items() for status in row.answers}
        assert said - seen == {("DELETE", command, 200), ("GET", "/api/v1/events", 200)}  # the latter in test_events.py


async def test_a_command_that_is_cancelled_is_as_it_says(it):
    document = await document_of(it)
    it.controller.gate.clear()
    await it.set({LIMIT: 50, "id": "first"})
    await it.set({LIMIT: 60, "id": "second"})
    answer = await it.ask("DELETE", "/api/v1/commands/second", WRITER)
    assert answer.status_code == 200
    described(document, "DELETE", "/api/v1/commands/{id}", answer)
    it.controller.gate.set()


REFUSED = {
    "bad_request": ("GET", "/api/v1/devices", "?limit=0", {}),
    "unknown_device": ("GET", "/api/v1/devices/{serial}", "", {"serial": "nowhere"}),
    "unknown_command": ("GET", "/api/v1/commands/{id}", "", {}),
    "unknown_setpoint": ("POST", "/api/v1/devices/{serial}/set", "", {"json": {"speed": 1}}),
    "out_of_range": ("POST", "/api/v1/devices/{serial}/set", "", {"json": {LIMIT: 101, "id": "x"}}),
    "bad_value": ("POST", "/api/v1/devices/{serial}/set", "", {"json": {LIMIT: "much"}}),
    "not_json": ("POST", "/api/v1/halt", "", {"data": {"reason": "a form"}}),
    "too_large": ("POST", "/api/v1/resume", "", {"json": "x" * 70_000}),
    "method_not_allowed": ("DELETE", "/api/v1/devices/{serial}/set", "", {}),
    "foreign_host": ("GET", "/healthz", "", {"headers": {"Host": "elsewhere.example"}}),
    "unauthorized": ("GET", "/metrics", "", {"token": "wrong"}),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_each_problem_is_as_it_says(it, reason):
    document = await document_of(it)
    method, path, query, options = REFUSED[reason]
    options = dict(options)
    token, serial = options.pop("token", WRITER), options.pop("serial", SN)
    answer = await it.ask(method, path.format(serial=serial, id="none") + query, token, **options)
    assert answer.json()["reason"] == reason
    known = "post" if path.endswith("/set") else method
    described(document, known, path, answer)


async def test_each_kind_of_problem_is_one_that_the_schema_has(it):
    document = await document_of(it)
    schema = validator(document, document["components"]["schemas"]["Problem"])
    for kind in KINDS:
        schema.validate(msgspec.json.decode(problems.response(ProblemError(kind, "why")).body))


async def test_each_setpoint_is_in_what_may_be_sent(it):
    """In the form that the document has, the parser takes it."""
    document = await document_of(it)
    body = document["paths"]["/api/v1/devices/{serial}/set"]["post"]["requestBody"]["content"][openapi.JSON]["schema"]
    schema = validator(document, body)
    for name, point in SETPOINTS.items():
        value = point.options[0] if point.options else True if point.type is Type.BOOLEAN else point.high or 1
        assert point.parse(value) is not None
        schema.validate({name: value})
        schema.validate({"setpoint": name, "value": value, "revert_after": 5, "time": "2026-06-21T12:00:00Z"})
        assert not schema.is_valid({"setpoint": name})
        assert not schema.is_valid({name: []})
    assert not schema.is_valid({"setpoint": LIMIT, "value": 1, "revert_value": 100})
    assert not schema.is_valid({"speed": 1})
    assert not schema.is_valid({"id": "alone"})
    assert not schema.is_valid({LIMIT: 1, "ttl": 0})


async def test_it_is_not_for_who_may_not_read(tmp_path):
    async with served(tmp_path, token="t" * 16) as web:
        assert (await web.get(openapi.PATH)).status_code == 401
