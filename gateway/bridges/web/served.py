"""What other bridges tell of themselves: the registers that they serve, and the calls that they have left."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.contexts import SinkContext
from gateway.api.served import CallBudget, ServedMap
from gateway.bridges.web.inventory import known
from gateway.bridges.web.problems import ProblemError
from gateway.bridges.web.replies import json_response
from gateway.core.model import Reason, iso


def registers(context: SinkContext, request: Request) -> Response:
    """Answer what stands in a device's registers now: `?bridge=&map=`."""
    state = known(context, request.path_params["serial"])
    serial, query = state.device.serial, request.query_params
    servers = context.register_servers()
    maps = [(name, each) for name, server in servers.items() for each in server.register_maps(serial)]
    bridge, chosen = _chosen(maps, query.get("bridge"), query.get("map"))
    found = servers[bridge].served_registers(serial, chosen) if bridge is not None and chosen is not None else ()
    return json_response(
        {
            "serial": serial,
            "quality": state.quality,
            "time": iso(state.time) if state.time else None,
            "maps": [
                {
                    "bridge": name,
                    "map": each.map,
                    "port": each.port,
                    "unit": each.unit,
                    "word_order": each.word_order,
                    "registers": each.registers,
                }
                for name, each in maps
            ],
            "bridge": bridge,
            "map": chosen,
            "registers": found,
        }
    )


def _chosen(maps: list[tuple[str, ServedMap]], bridge: str | None, map_: str | None) -> tuple[str | None, str | None]:
    """Return the bridge and the map that are meant. Raises ProblemError where there are none such."""
    for name, each in maps:
        if bridge in (None, name) and map_ in (None, each.map):
            return name, each.map
    if bridge is None and map_ is None:
        return None, None
    there = ", ".join(f"{each.map} of {name}" for name, each in maps) or "none"
    raise ProblemError(Reason.BAD_REQUEST, f"the device is not served so; there is {there}")


def budgets(context: SinkContext) -> Response:
    """Answer what is left of the calls of each account, once for all bridges that share it."""
    accounts: dict[str, tuple[list[str], CallBudget]] = {}
    for name, budget in context.call_budgets().items():
        accounts.setdefault(budget.account, ([], budget))[0].append(name)
    found: list[dict[str, Any]] = [
        {
            "bridges": names,
            "per_hour": budget.per_hour,
            "used": budget.used,
            "left": budget.left,
            "planned": budget.planned,
            "held": round(budget.held, 1),
        }
        for names, budget in accounts.values()
    ]
    return json_response({"budgets": found})
