"""The gateway as a program against a simulator as a program: what it shows of a device."""

from contextlib import contextmanager

import httpx

from tests.kit.ports import free_port
from tests.kit.process import eventually, sems_gateway


@contextmanager
def gateway(directory, sems, more=""):
    """Run one; `more` is lines of its bridge. Yields its configuration and an HTTP client of its page."""
    port, config = free_port(), directory / "config.yaml"
    config.write_text(
        f"gateway: {{data_dir: {directory}/data}}\n"
        f"bridges:\n"
        f"  web: {{type: web, port: {port}}}\n"
        f"  sems:\n"
        f"    type: open_api\n"
        f"    url: {sems}\n"
        f"    account: demo\n"
        f"    password: demo\n"
        f"    poll_interval: 10\n"
        f"{more}"
    )
    with (
        sems_gateway("run", config) as program,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as http,
    ):
        program.line("web")
        yield config, http


def values(http, serial, wanted):
    """Wait until a device has all of these points; returns its values."""

    def found():
        try:
            said = http.get(f"/devices/{serial}")
        except httpx.TransportError:
            return None
        values = said.json().get("values", {}) if said.status_code == 200 else {}
        return values if all(values.get(point) is not None for point in wanted) else None

    return eventually(found, otherwise=lambda: http.get(f"/devices/{serial}").text)
