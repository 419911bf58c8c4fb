"""What a request may do: what a browser says of it, and no page can change."""

import socket

import pytest
from starlette.requests import Request

from gateway.http.origin import ForbiddenError, OriginPolicy
from tests.kit.certificates import Authority

MACHINE = socket.gethostname()
OWN = {"host": "127.0.0.1:9090", "content-type": "application/json"}


def asked(method="POST", **headers):
    """A request with the headers that it needs, and these."""
    sent = OWN | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in sent.items() if value is not None]
    return Request({"type": "http", "method": method, "path": "/", "headers": raw})


def gate(host="127.0.0.1", hosts=(), certificate=None, secret=""):
    return OriginPolicy(host, hosts, lambda media_type: media_type == "application/json", certificate, secret)


def refused(request, **names):
    """Why a request is refused; "" where it is not."""
    try:
        gate(**names).check(request)
    except ForbiddenError as error:
        return error.kind
    return ""


METHODS = pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"])


@METHODS
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "localhost.evil.example", "[::1.evil", "127.1",
     "a@127.0.0.1", "127.0.0.1:9090:1", "2130706433", "localhost..", "", "ÿ", "xlocalhost", f"{MACHINE}.evil.example"],
)  # fmt: skip
def test_a_host_that_is_not_ours_is_refused_for_every_method(method, host):
    assert refused(asked(method, host=host)) == "foreign_host"


@pytest.mark.parametrize(
    "host",
    [None, "localhost", "LOCALHOST:9090", "localhost.", "127.0.0.1:80", "[::1]:9090", "127.9.9.9", "192.0.2.1", MACHINE,
     f"{MACHINE.partition('.')[0]}.local:9090", "bound.example", "named.example:1"],
)  # fmt: skip
def test_these_are_ours(host):
    assert refused(asked(host=host), host="bound.example", hosts=["named.Example"]) == ""


@METHODS
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "127.0.0.1:9090"),
        ("origin", "http://127.0.0.1:9090"),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "application/json"),
        ("content-encoding", "identity"),
        ("authorization", "Bearer x"),
        ("x-api-key", "x"),
    ],
)
def test_a_header_that_decides_comes_once(method, name, value):
    request = asked(method, **{name: value})
    assert refused(request, secret="X-Api-Key") == ""
    request.scope["headers"].append((name.encode(), value.encode()))
    assert refused(Request(request.scope), secret="X-Api-Key") == "doubled_header"


def test_the_names_of_the_certificate_are_ours(tmp_path):
    certificate, _ = Authority(tmp_path).sign("server", server=True)
    assert refused(asked(host="localhost"), certificate=certificate) == ""
    assert refused(asked(host="evil.example"), certificate=certificate) == "foreign_host"


@METHODS
@pytest.mark.parametrize(
    "origin",
    ["http://127.0.0.1:8000", "https://evil.example", "null", "", "http://localhost:9090", "http://127.0.0.1",
     "file://", "127.0.0.1:9090", "http://127.0.0.1:9090.evil.example", "http://127.0.0.1:9090@evil.example"],
)  # fmt: skip
def test_another_origin_is_refused_for_every_method(method, origin):
    assert refused(asked(method, origin=origin)) == "foreign_origin"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:9090", "http://127.0.0.1:9090"),
        ("localhost", "http://localhost"),
        ("localhost:443", "https://localhost"),
        ("named.example", "https://named.example"),
        ("127.0.0.1:8090", "https://named.example"),
        ("[::1]:9090", "http://[::1]:9090"),
    ],
)
def test_our_own_pages_may(host, origin):
    assert refused(asked(host=host, origin=origin, sec_fetch_site="same-origin"), hosts=["named.example"]) == ""


@METHODS
@pytest.mark.parametrize("site", ["cross-site", "same-site", "SAME-SITE", "anything", ""])
def test_what_the_browser_says_comes_from_elsewhere_is_refused(method, site):
    assert refused(asked(method, sec_fetch_site=site)) == "foreign_origin"
    assert refused(asked(method, sec_fetch_site="none")) == ""


def test_a_link_may_be_followed_and_no_frame_be_filled():
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert refused(asked("GET", **link)) == ""
    assert refused(asked("POST", **link)) == "foreign_origin"
    assert refused(asked("GET", **link | {"sec_fetch_dest": "iframe"})) == "foreign_origin"
    assert refused(asked("GET", **link, origin="null")) == "foreign_origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "content", [None, "", "text/plain", "text/plain; application/json", "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x", "application/jsonx", "application/json, text/plain"],
)  # fmt: skip
def test_what_a_form_can_send_is_refused_with_a_body_and_without(method, content):
    for length in ("0", "2"):
        assert refused(asked(method, content_type=content, content_length=length)) == "wrong_type"


def test_what_has_no_body_needs_no_type():
    assert refused(asked("DELETE", content_type=None)) == ""
    assert refused(asked("DELETE", content_type=None, content_length="2")) == "wrong_type"
    assert refused(asked("DELETE", content_type="text/plain", transfer_encoding="chunked")) == "wrong_type"
    assert refused(asked("GET", content_type=None)) == ""
