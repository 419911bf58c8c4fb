"""From set messages to commands, and from their steps to results."""

import asyncio
from collections import OrderedDict, deque
from datetime import datetime, timedelta
from typing import Final

import msgspec

from gateway.api.contexts import OriginContext
from gateway.bridges.mqtt import payloads
from gateway.bridges.mqtt.delivery import Sending
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.outbox import Outbox
from gateway.bridges.mqtt.replies import Replies, Reply, put_answer
from gateway.bridges.mqtt.topics import RESULT, SetTopic, Topics, unescape
from gateway.commands.requests import NAME_LIMIT, Request, RequestError, parse
from gateway.core.model import Command, CommandEvent, Origin, Reason, new_command_id
from gateway.core.tasks import all_of
from gateway.core.text import escaped

REQUEST_BACKLOG: Final = 20_000
TOGETHER: Final = 500
"""Requests submitted at a time: the journal writes them in one go."""
REPLY_BACKLOG: Final = 10_000
MAX_LOGGED: Final = 1_000
RESULTS_SENT: Final = Sending(qos=1, retain=False)


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """A request in order that waits for its turn."""

    topic: SetTopic
    serial: str
    request: Request
    reply: Reply | None
    arrived: datetime
    said: datetime
    """At the latest when it arrived."""
    expiry: int | None
    """Seconds that the sender of the message gave it, still left when it arrived."""


_Key = tuple[str, datetime]
"""A command's id, and when it was created: another with the same id is not it."""


class Commands:
    """Takes set messages in the order in which they arrive."""

    def __init__(
        self, context: OriginContext, ttl: float, topics: Topics, outbox: Outbox, sending: Sending = RESULTS_SENT
    ) -> None:
        self._context = context
        self._ttl = ttl
        self._topics = topics
        self._outbox = outbox
        self._sending = sending
        self._wanted = Replies(topics, context.log)
        self._waiting: deque[_Asked] = deque()
        self._arrived = asyncio.Event()
        self._replies: OrderedDict[_Key, Reply] = OrderedDict()
        """Open commands whose requester wants answers of its own."""
        self._told: set[str] = set()
        """Topics whose retained message was logged."""
        self._failing = False

    def receive(self, message: Message) -> None:
        """Take a message of a set topic; refuse it at once where that can be said at once."""
        topic = self._topics.parse_set(message.topic)
        if topic is None:
            return
        if message.retain:
            if message.payload:  # else it is what clears one
                self._ignore_retained(message.topic)
            return
        reply: Reply | None = None
        id_: str | None = None
        try:
            try:
                reply = self._wanted.of(message, topic.user)
            finally:  # a refusal names the request, too
                request = parse(topic.setpoint, message.payload)
                id_ = request.id
            now = self._context.clock.now()
            asked = _Asked(topic, self._serial(topic), request, reply, now, request.said(now), message.expiry)
            if message.backlog and message.expiry is None and request.time is None:
                raise RequestError(
                    Reason.EXPIRED,
                    "it waited at the broker, nobody knows how long; give it a message expiry interval or a time",
                )
            if len(self._waiting) >= REQUEST_BACKLOG:
                raise RequestError(Reason.RATE_LIMITED, f"{REQUEST_BACKLOG} requests wait already")
            self._waiting.append(asked)
            self._arrived.set()
        except RequestError as error:
            error.id = error.id or id_
            self._refuse(topic, error, reply)

    async def run(self) -> None:
        """Submit what was received, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                # Else a flood would have its own answers dropped.
                await self._outbox.room_for_results()
                await all_of(map(self._take, self._next()))

    def _next(self) -> list[_Asked]:
        """Return what may be submitted at once and still stays in order: for one setpoint each, and each id once."""
        batch = [self._waiting.popleft()]
        ids = {batch[0].request.id}
        if len(batch[0].request.values) == 1:
            while self._waiting and len(batch) < TOGETHER:
                request = self._waiting[0].request
                if len(request.values) != 1 or (request.id is not None and request.id in ids):
                    break
                ids.add(request.id)
                batch.append(self._waiting.popleft())
        return batch

    async def _take(self, asked: _Asked) -> None:
        """Submit one, whatever comes of it."""
        try:
            await self._submit(asked)
        except Exception as failure:
            # E.g. the journal can't be read. Logged once; each requester gets an answer.
            if not self._failing:
                self._failing = True
                self._context.log.exception("a request could not be taken", serial=asked.serial)
            error = RequestError(Reason.NOT_STORED, f"the gateway can't take the request now: {failure}")
            error.id = asked.request.id
            self._refuse(asked.topic, error, asked.reply)
        else:
            self._failing = False

    def step(self, event: CommandEvent) -> None:
        """Publish a step of a command, whoever asked for it."""
        key = event.command.id, event.command.created
        reply = self._replies.pop(key, None) if event.state.final else self._replies.get(key)
        self._answer(self._topics.root(event.command.serial), payloads.step(event), reply, bulk=event.command.bulk)

    async def _submit(self, asked: _Asked) -> None:
        commands = self._commands(asked)
        keys = [(command.id, command.created) for command in commands]
        if asked.reply is not None:
            # Before submitting, for the first step may be published before `submit` returns.
            self._remember(keys, asked.reply)
        try:
            events = await self._context.submit(*commands)
        except Exception:
            for key in keys:
                self._replies.pop(key, None)
            raise
        for key, event in zip(keys, events, strict=True):
            if event.command.created != key[1]:
                self._answer_again(key, event, asked)

    def _commands(self, asked: _Asked) -> list[Command]:
        request = asked.request
        ids = request.ids() or [new_command_id() for _ in request.values]
        expires = self._expires(asked)
        return [
            Command(
                id=id_,
                serial=asked.serial,
                setpoint=setpoint,
                value=value,
                origin=Origin.of(self._context.name, asked.topic.user),
                created=asked.arrived,
                expires=expires,
                revert_after=request.revert_after,
                revert_value=request.revert_value,
            )
            for id_, (setpoint, value) in zip(ids, request.values.items(), strict=True)
        ]

    def _expires(self, asked: _Asked) -> datetime:
        """Return when it is too late: `ttl` after it was said, at most when its sender had the message expire."""
        ttl = self._ttl if asked.request.ttl is None else asked.request.ttl
        expires = asked.said + timedelta(seconds=ttl)
        if asked.expiry is None:
            return expires
        return min(expires, asked.arrived + timedelta(seconds=asked.expiry))

    def _answer_again(self, key: _Key, event: CommandEvent, asked: _Asked) -> None:
        """Answer a request that came before, e.g. by QoS 1: no step follows from it, so say where it stands."""
        self._replies.pop(key, None)
        if asked.reply is not None and not event.state.final:
            self._remember([(event.command.id, event.command.created)], asked.reply)
        self._answer(asked.topic.root, payloads.step(event), asked.reply)

    def _remember(self, keys: list[_Key], reply: Reply) -> None:
        self._replies.update(dict.fromkeys(keys, reply))
        while len(self._replies) > REPLY_BACKLOG:
            self._replies.popitem(last=False)

    def _serial(self, topic: SetTopic) -> str:
        serial = unescape(topic.level)
        if serial is None or self._context.state(serial) is None:
            raise RequestError(
                Reason.UNKNOWN_DEVICE, f"no device {topic.level[:NAME_LIMIT]!r} is known", topic.setpoint
            )
        return serial

    def _refuse(self, topic: SetTopic, error: RequestError, reply: Reply | None) -> None:
        body = payloads.refusal(
            self._context.clock.now(),
            Origin.of(self._context.name, topic.user),
            escaped(unescape(topic.level) or topic.level, NAME_LIMIT),
            error.reason,
            error.detail,
            error.id,
            error.setpoint,
        )
        self._answer(topic.root, body, reply)

    def _answer(self, root: str, body: bytes, reply: Reply | None, *, bulk: bool = False) -> None:
        message = Message(topic=f"{root}/{RESULT}", payload=body, qos=self._sending.qos, retain=self._sending.retain)
        put_answer(self._outbox, message, reply, bulk=bulk)

    def _ignore_retained(self, topic: str) -> None:
        if topic in self._told or len(self._told) >= MAX_LOGGED:
            return
        self._told.add(topic)
        self._context.log.warning(
            "a retained set message is ignored; publish requests without the retain flag, and clear this one "
            "with an empty retained message",
            topic=topic[:200],
        )
