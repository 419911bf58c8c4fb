"""Requests to the gateway itself: `<base>/bridge/request/<x>`, answered at `<base>/bridge/response/<x>`.

An answer is `{"id", "ok": true, "data": …}` or `{"id", "ok": false, "error": {"reason", "detail"}}`; `id` is the
requester's own, whatever JSON value it is.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from gateway.api.bridge import Context
from gateway.bridges.mqtt import payloads
from gateway.bridges.mqtt.delivery import TopicClass
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.replies import Replies, Reply, put_answer
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import RequestName, RequestTopic, Topics
from gateway.commands.policy.halt import HaltError, told
from gateway.commands.requests import NAME_LIMIT, RequestError, text_in
from gateway.core import shapes, strict
from gateway.core.model import Origin, Reason

ID_LIMIT: Final = 1_024
"""Bytes of JSON of an `id`."""
PAGE: Final = 1_000
PAGE_LIMIT: Final = 5_000
"""Devices in one answer."""
BUSY: Final = 100
"""Answers that wait, after which only short ones are given."""
FLOOD: Final = 1_000
"""After which none is."""
LEVELS: Final = ("debug", "info", "warning", "error")

_encode: Final = msgspec.json.Encoder().encode
_Body = dict[str, Any]


class BridgeRequests:
    """Answers at once; only a halt and a resume wait, for the disk."""

    def __init__(
        self,
        settings: MqttSettings,
        context: Context,
        topics: Topics,
        outbox: Outbox,
        room: Callable[[str, bytes | None], int],
    ) -> None:
        """`room` says how many bytes the broker takes at a topic, with correlation data."""
        self._allowed = tuple(settings.requests)
        self._context = context
        self._topics = topics
        self._outbox = outbox
        self._room = room
        self._sending = settings.sending(TopicClass.RESPONSE)
        self._wanted = Replies(topics, context.log)
        self._does: Final[Mapping[RequestName, Callable[[_Body, int], Any]]] = {
            RequestName.DEVICES: self._devices,
            RequestName.HEALTH: self._health,
            RequestName.RESTART: self._restart,
            RequestName.LOG_LEVEL: self._log_level,
        }

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to."""
        return self._topics.requests if self._allowed else ()

    def receive(self, asked: RequestTopic, message: Message) -> None:
        """Take a request. One that was retained, or that may be old, would be executed at any odd time.

        A halt is taken whatever its age and wording, and however many answers wait: that is the safe side.
        """
        if message.retain:
            return
        name = asked.name
        if name == RequestName.HALT and name in self._allowed:
            self._take_halt(asked, message)
            return
        waiting = self._outbox.waiting
        if waiting >= FLOOD:
            # Answers must not crowd out the results of commands.
            return
        id_: Any = None
        reply: Reply | None = None
        try:
            try:
                reply = self._wanted.of(message, asked.user)
            finally:  # a refusal names the request, too
                body = _body_in(name, message.payload)
                id_ = _id_in(body)
            if message.backlog and message.expiry is None:
                raise RequestError(Reason.EXPIRED, "it may have waited at the broker; ask anew")
            if waiting >= BUSY:
                raise RequestError(Reason.RATE_LIMITED, f"{waiting} answers wait to be sent; ask again later")
            known = self._known(name)
            if known is RequestName.RESUME:
                _no_more(body)
                self._context.spawn(self._change(asked, id_, reply), name)
                return
            room = self._room_for(name, reply)
            answer = _done(id_, self._does[known](body, room - len(_encode(_done(id_, None)))))
            if (size := len(_encode(answer))) > room:
                raise RequestError(
                    Reason.OUT_OF_RANGE, f"the answer has {size} bytes; the broker takes {max(0, room)} here"
                )
        except RequestError as error:
            answer = _refused(id_, error)
        self._answer(name, answer, reply)

    def _room_for(self, name: str, reply: Reply | None) -> int:
        """Return how many bytes an answer may have, wherever it goes."""
        room = self._room(self._topics.response(name[:NAME_LIMIT]), None)
        return room if reply is None else min(room, self._room(reply.topic, reply.correlation))

    def _answer(self, name: str, answer: _Body, reply: Reply | None) -> None:
        qos, retain = self._sending.qos, self._sending.retain
        topic = self._topics.response(name[:NAME_LIMIT])
        put_answer(self._outbox, Message(topic=topic, payload=_encode(answer), qos=qos, retain=retain), reply)

    def _take_halt(self, asked: RequestTopic, message: Message) -> None:
        id_, reason, reply = None, "", None
        with suppress(RequestError):
            reply = self._wanted.of(message, asked.user)
        with suppress(RequestError):
            body = _body_in(asked.name, message.payload)
            reason = str(body.get("reason", ""))
            id_ = _id_in(body)
        self._context.spawn(self._change(asked, id_, reply, reason), asked.name)

    async def _change(self, asked: RequestTopic, id_: Any, reply: Reply | None, reason: str = "") -> None:
        """Halt control or resume it, and answer."""
        who = Origin.of(self._context.name, asked.user)
        try:
            if asked.name == RequestName.HALT:
                await self._context.halt(who, reason)
            else:
                await self._context.resume(who)
        except HaltError as error:
            answer = _refused(id_, RequestError(error.reason, str(error)))
        else:
            halted = self._context.halted
            answer = _done(id_, {"halted": told(halted) if halted else None})
        self._answer(asked.name, answer, reply)

    def _known(self, name: str) -> RequestName:
        if name in self._allowed:
            return RequestName(name)
        if name in list(RequestName):
            raise RequestError(
                Reason.NOT_PERMITTED, f"{name} is not allowed; add it to requests: of the bridge {self._context.name}"
            )
        raise RequestError(Reason.BAD_REQUEST, _no_such("request", name, list(RequestName)))

    def _devices(self, body: _Body, room: int) -> Any:
        offset = _whole(body, "offset", 0, 0, 1_000_000_000)
        limit = _whole(body, "limit", PAGE, 1, PAGE_LIMIT)
        _no_more(body, "offset", "limit")
        states = self._context.states()
        page: _Body = {"total": len(states), "offset": offset, "next": len(states)}
        room -= len(_encode(page | {"devices": []}))
        devices: list[msgspec.Raw] = []
        for state in states[offset : offset + limit]:
            serial = state.device.serial
            device = _encode({"serial": serial, "topic": self._topics.root(serial)} | shapes.device(state))
            room -= len(device) + 1
            if room < 0:
                break
            devices.append(msgspec.Raw(device))
        if not devices and offset < len(states):
            raise RequestError(Reason.OUT_OF_RANGE, "the broker takes no message that is large enough for a device")
        end = offset + len(devices)
        page["next"] = end if end < len(states) else None
        return page | {"devices": devices}

    def _health(self, body: _Body, _room: int) -> Any:
        _no_more(body)
        context = self._context
        return msgspec.Raw(
            payloads.health(
                context.clock.now(),
                context.bridges(),
                payloads.qualities(context.states()),
                self._outbox.dropped_results,
                self._outbox.dropped_history,
            )
        )

    def _restart(self, body: _Body, _room: int) -> Any:
        name = body.get("bridge")
        _no_more(body, "bridge")
        bridges = [bridge.name for bridge in self._context.bridges()]
        if not isinstance(name, str):
            raise RequestError(Reason.BAD_REQUEST, f'say which bridge, e.g. {{"bridge": "{bridges[0]}"}}')
        try:
            self._context.restart(name)
        except LookupError:
            raise RequestError(Reason.BAD_REQUEST, _no_such("bridge", name, bridges)) from None
        return {"bridge": name}

    def _log_level(self, body: _Body, _room: int) -> Any:
        level = body.get("level")
        _no_more(body, "level")
        if level not in LEVELS:
            raise RequestError(Reason.BAD_VALUE, f"level takes one of {', '.join(LEVELS)}")
        self._context.set_log_level(level)
        self._context.log.info("log level changed", level=level)
        return {"level": level}


_ALONE: Final[Mapping[str, str]] = {
    RequestName.RESTART: "bridge",
    RequestName.LOG_LEVEL: "level",
    RequestName.HALT: "reason",
}
"""What a payload that is no JSON object stands for."""


def _done(id_: Any, data: Any) -> _Body:
    return {"id": id_, "ok": True, "data": data}


def _refused(id_: Any, error: RequestError) -> _Body:
    return {"id": id_, "ok": False, "error": {"reason": error.reason, "detail": error.detail}}


def _body_in(name: str, payload: bytes) -> _Body:
    if not payload.strip():
        return {}
    text = text_in(payload)
    if text[0] in '{["':
        try:
            body = strict.decode(text)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise RequestError(Reason.BAD_REQUEST, f"not JSON: {error}") from None
        if isinstance(body, dict):
            return body
        text = body if isinstance(body, str) else text
    key = _ALONE.get(name)
    if key is None:
        raise RequestError(Reason.BAD_REQUEST, 'send nothing, or a JSON object, e.g. {"id": 1}')
    return {key: text}


def _id_in(body: _Body) -> Any:
    id_ = body.pop("id", None)
    if len(_encode(id_)) > ID_LIMIT:
        raise RequestError(Reason.BAD_REQUEST, f"id has more than {ID_LIMIT} bytes")
    return id_


def _whole(body: _Body, key: str, default: int, low: int, high: int) -> int:
    value = body.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RequestError(Reason.BAD_VALUE, f"{key} takes a whole number, {low} to {high}")
    return value


def _no_more(body: _Body, *known: str) -> None:
    for key in body:
        if key not in known:
            raise RequestError(Reason.BAD_REQUEST, _no_such("key", key, ["id", *known]))


def _no_such(what: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name[:NAME_LIMIT].lower(), known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"there is no {what} {name[:NAME_LIMIT]!r}; {hint}"
