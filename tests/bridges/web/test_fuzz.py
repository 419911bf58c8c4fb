"""Whatever bytes arrive, each request is answered in the form of a problem or taken, and the listener lives on."""

import asyncio
import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.points import SETPOINTS
from tests.bridges.web.conftest import SN, WRITER, served

VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)
FIELDS = st.sampled_from(["setpoint", "id", "ttl", "revert_after", "revert_value", "value", "time", *SETPOINTS])
OBJECTS = st.dictionaries(FIELDS | st.text(max_size=50), VALUES | st.lists(VALUES, max_size=2), max_size=5)
BODIES = st.binary(max_size=200) | OBJECTS.map(lambda body: json.dumps(body).encode())
ENCODED = st.text(max_size=30).map(lambda text: "".join(f"%{byte:02x}" for byte in text.encode()))
PATHS = st.sampled_from([SN, "", "%00", "..", "a/b", "%2e%2e%2f"]) | ENCODED
SCRAPS = st.lists(
    st.sampled_from([b"POST ", b"GET ", b"/api/v1/devices", b" HTTP/1.1\r\n", b"Host: localhost\r\n", b"\r\n",
                     b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n"])
    | st.binary(max_size=40), max_size=12).map(b"".join)  # fmt: skip


@pytest.fixture
def running(tmp_path):
    """The server on a loop of its own, which hypothesis can run again and again."""
    with asyncio.Runner() as runner:
        context = served(tmp_path)
        it = runner.run(context.__aenter__())
        client = httpx.AsyncClient(base_url=it.url, trust_env=False, headers={"Authorization": f"Bearer {WRITER}"})
        yield runner, it, client
        runner.run(client.aclose())
        runner.run(context.__aexit__(None, None, None))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(PATHS, BODIES, st.sampled_from(["", "?wait=x", "?wait=-0", "?x=%ff"]))
def test_every_body_is_taken_or_refused(running, path, body, query):
    runner, _, client = running
    headers = {"Content-Type": "application/json"}
    answer = runner.run(client.post(f"/api/v1/devices/{path}/set{query}", content=body, headers=headers))
    if answer.status_code in (200, 202):
        assert answer.json()["commands"]
    else:
        assert 400 <= answer.status_code < 500 or answer.json()["reason"] == "no_controller"
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["reason"]
        assert 0 < len(problem["detail"]) < 800


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(SCRAPS)
def test_no_bytes_end_the_listener(running, scraps):
    runner, it, client = running

    async def send():
        reader, writer = await asyncio.open_connection("127.0.0.1", it.runner.bridge.port)
        writer.write(scraps)
        if writer.can_write_eof():
            writer.write_eof()
        try:
            async with asyncio.timeout(120):
                answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()
        return answer

    answer = runner.run(send())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 5" not in answer
    assert runner.run(client.get("/healthz")).text == "ok\n"
