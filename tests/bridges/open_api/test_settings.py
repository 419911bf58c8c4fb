"""`type: open_api` in the configuration: both platforms, and what is wrong with the rest."""

import pytest
from pydantic import ValidationError

from gateway.bridges.open_api import OpenApiSettings

CLASSIC = {"account": "a", "password": "b"}
DEVELOPER = {"platform": "developer", "client_id": "a", "client_secret": "b"}


def test_classic_is_the_default():
    settings = OpenApiSettings(**CLASSIC)
    assert settings.host == "https://openapi.semsportal.com/"
    assert settings.catalogue.api == "open_api"
    assert settings.calls == settings.catalogue.calls_per_hour == 3600
    assert (settings.credentials.account, settings.credentials.password) == ("a", "b")


@pytest.mark.parametrize("region", ["eu", "au", "us", "hk"])
def test_the_developer_platform_has_regions(region):
    settings = OpenApiSettings(**DEVELOPER, region=region)
    assert settings.host == f"https://{region}-gateway.semsportal.com"
    assert settings.catalogue.api == "developer"
    assert (settings.credentials.account, settings.credentials.password) == ("a", "b")


def test_a_url_of_ones_own_goes_before_the_region():
    assert OpenApiSettings(**DEVELOPER, url="https://example.com").host == "https://example.com/"


def test_calls_are_the_users_where_the_user_says():
    assert OpenApiSettings(**DEVELOPER, calls_per_hour=50).calls == 50
    assert OpenApiSettings(**DEVELOPER).calls == 3600


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (CLASSIC | {"time_zone": "Nowhere"}, "no time zone"),
        (CLASSIC | {"url": "no url"}, "url"),
        (CLASSIC | {"poll_interval": 0}, "poll_interval"),
        (CLASSIC | {"account": ""}, "platform classic is entered by account and password; add account"),
        ({}, "add account and password"),
        ({"client_id": "a", "client_secret": "b"}, "add account and password instead of client_id and client_secret"),
        ({"platform": "developer"} | CLASSIC, "add client_id and client_secret instead of account and password"),
        (CLASSIC | {"client_id": "a"}, "platform classic takes no client_id; take it out"),
        (DEVELOPER | CLASSIC, "platform developer takes no account and no password"),
        (CLASSIC | {"region": "au"}, "platform classic has no region; set url"),
        (CLASSIC | {"take_dispatch": True}, "take_dispatch is for platform developer"),
        (CLASSIC | {"platform": "new"}, "known here: developer, classic"),
        (DEVELOPER | {"region": "mars"}, "'eu', 'au', 'us', 'hk' or 'cn'"),
        (DEVELOPER | {"overrides": {"interfaces": {"GetToken": {"path": "x"}}}}, "there is no interface 'GetToken'"),
    ],
)
def test_what_is_wrong_is_said(fields, says):
    with pytest.raises(ValidationError) as error:
        OpenApiSettings(**fields)
    assert says in str(error.value)


def test_overrides_are_in_the_catalogue():
    settings = OpenApiSettings(**CLASSIC, overrides={"interfaces": {"GetInverterBySN": {"path": "elsewhere"}}})
    assert settings.catalogue.interface("GetInverterBySN").path == "elsewhere"
