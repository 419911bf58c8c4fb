"""What a plug-in may import, ours or a stranger's: `from gateway.api import …`. docs/plugins.md says what stays.

Beside this face there are `gateway.api.modbus` for register maps, `gateway.api.mqtt` for payload formats, and
`gateway.api.testing`, with which a bridge is tested. All else of `gateway` may change at any time.
"""

from typing import TYPE_CHECKING, Any

from gateway.api.bridge import Bridge, BridgeSettings, Claim, tcp_ports
from gateway.api.capabilities import HistoryProvider, HistorySink, Probing, Sink
from gateway.api.contexts import (
    BaseContext,
    Context,
    ControllerContext,
    OperatorContext,
    OriginContext,
    SinkContext,
    SourceContext,
    StatesContext,
)
from gateway.api.version import API_VERSION
from gateway.config.secret import Secret
from gateway.core.balance import Flows, Sheet
from gateway.core.clock import Clock
from gateway.core.controller import Admitting, CallEstimate, Controller, Estimator, Outcome, ResultEffect
from gateway.core.errors import GatewayError, NotSentError, RefusedError, UnsureError
from gateway.core.findings import FindingCode
from gateway.core.model import (
    Alarm,
    BridgeStatus,
    Command,
    CommandEvent,
    CommandState,
    Device,
    DeviceKind,
    DeviceState,
    Halt,
    HistoryPlan,
    Origin,
    Page,
    Quality,
    Range,
    RateLimitWait,
    Reason,
    Resolution,
    Sample,
    Severity,
    Snapshot,
    Value,
    Written,
    new_command_id,
)
from gateway.core.points import NONE, POINTS, SETPOINTS, BadValueError, Kind, OutOfRangeError, Point, Type
from gateway.core.probe import Mark, Probe
from gateway.core.text import identifier, plain
from gateway.core.verdict import Check, Refusal, Verdict

if TYPE_CHECKING:
    from gateway.core.mailbox import Updates

__all__ = [
    "API_VERSION",
    "NONE",
    "POINTS",
    "SETPOINTS",
    "Admitting",
    "Alarm",
    "BadValueError",
    "BaseContext",
    "Bridge",
    "BridgeSettings",
    "BridgeStatus",
    "CallEstimate",
    "Check",
    "Claim",
    "Clock",
    "Command",
    "CommandEvent",
    "CommandState",
    "Context",
    "Controller",
    "ControllerContext",
    "Device",
    "DeviceKind",
    "DeviceState",
    "Estimator",
    "FindingCode",
    "Flows",
    "GatewayError",
    "Halt",
    "HistoryPlan",
    "HistoryProvider",
    "HistorySink",
    "Kind",
    "Mark",
    "NotSentError",
    "OperatorContext",
    "Origin",
    "OriginContext",
    "OutOfRangeError",
    "Outcome",
    "Page",
    "Point",
    "Probe",
    "Probing",
    "Quality",
    "Range",
    "RateLimitWait",
    "Reason",
    "Refusal",
    "RefusedError",
    "Resolution",
    "ResultEffect",
    "Sample",
    "Secret",
    "Severity",
    "Sheet",
    "Sink",
    "SinkContext",
    "Snapshot",
    "SourceContext",
    "StatesContext",
    "Type",
    "UnsureError",
    "Updates",
    "Value",
    "Verdict",
    "Written",
    "identifier",
    "new_command_id",
    "plain",
    "tcp_ports",
]


def __getattr__(name: str) -> Any:
    """Load with its metrics what most that import from here need not: a check of settings above all."""
    if name == "Updates":
        from gateway.core.mailbox import Updates  # noqa: PLC0415

        return Updates
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
