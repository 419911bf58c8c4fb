"""What holds for pure parsers whatever comes, beyond that they do not fail."""

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.replies import Replies
from gateway.bridges.mqtt.topics import Topics
from gateway.commands.requests import RequestError
from gateway.core.text import escaped, identifier, plain
from gateway.http.origin import ForbiddenError, OriginPolicy, _is_address, _split
from gateway.http.source import Sources
from gateway.sems.times import Order, written

EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)
TEXT = st.text(max_size=300) | st.text("\x1b\u202e\n ab…\ud800", max_size=300)
LIMITS = st.integers(2, 80)
PIECES = [
    "evil.example",
    "localhost",
    "plant.example",
    "127.0.0.1",
    "[::1]",
    ":",
    "80",
    "@",
    ".",
    "/",
    " ",
    "http://",
    "\x00",
    "%",
]
HEADER = st.binary(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=5).map(
    lambda parts: "".join(parts).encode()
)


def request(**headers):
    sent = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": sent, "client": ("192.0.2.9", 5), "path": "/"})


@EXAMPLES
@given(TEXT | st.integers() | st.floats() | st.none(), LIMITS)
def test_plain_text_is_short_clean_and_stays_as_it_is(raw, limit):
    made = plain(raw, limit)
    assert len(made) <= limit
    assert not any(ord(char) < 32 or char in "\u202e\x7f" or "\ud800" <= char <= "\udfff" for char in made)
    assert plain(made, limit) == made


@EXAMPLES
@given(TEXT, LIMITS)
def test_escaped_text_is_short_and_stays_as_it_is(raw, limit):
    made = escaped(raw, limit)
    assert len(made) <= limit
    assert escaped(made, limit) == made
    assert "\x1b" not in made
    assert "\u202e" not in made


@EXAMPLES
@given(TEXT | st.integers())
def test_an_identifier_is_what_was_said_or_nothing(raw):
    assert identifier(raw) in ("", str(raw).strip())


@EXAMPLES
@given(st.text("0123456789-/.:TZ+ APM", max_size=30) | st.integers() | st.floats() | TEXT)
def test_a_time_is_one_of_this_century_or_none(raw):
    said = written(raw)
    for order in Order:
        found = said.on(order) if said is not None and said.year else None
        assert found is None or 2000 <= found.year <= 9999


@EXAMPLES
@given(HEADER)
def test_no_host_but_ours_or_an_address_gets_in(host):
    try:
        OriginPolicy("127.0.0.1", ["plant.example"], lambda _: True).check(request(host=host))
    except ForbiddenError:
        return
    name, _ = _split(host.decode("latin-1"))
    assert _is_address(name) or "evil" not in name


@EXAMPLES
@given(HEADER)
def test_no_origin_but_ours_gets_in(origin):
    try:
        OriginPolicy("127.0.0.1", ["plant.example"], lambda _: True).check(request(host=b"127.0.0.1:80", origin=origin))
    except ForbiddenError:
        return
    assert origin.decode("latin-1").strip().lower().removeprefix("http://").removeprefix("https://").partition(":")[
        0
    ].removesuffix(".") in ("127.0.0.1", "plant.example")


@EXAMPLES
@given(HEADER)
def test_who_is_no_trusted_proxy_speaks_for_itself(forwarded):
    sources = Sources([], structlog.get_logger("test"))
    assert str(sources.of(request(x_forwarded_for=forwarded))) == "192.0.2.9"


@EXAMPLES
@given(
    st.builds(str.__add__, st.sampled_from(["ok/x/", "ok/", "", "$", "/ok/x/"]), st.text("okx/+#$\x00é", max_size=9)),
    st.sampled_from(["", "me", "you"]),
)
def test_no_answer_leaves_the_topics_that_are_permitted(topic, user):
    replies = Replies(Topics("sems", ["me", "you"], ["ok/x/#"]), structlog.get_logger("test"))
    try:
        reply = replies.of(Message(topic="sems/x/set", payload=b"", response_topic=topic), user)
    except RequestError:
        return
    assert reply.topic == topic
    assert topic.startswith("ok/x/")
    assert not set(topic) & set("+#\x00")
