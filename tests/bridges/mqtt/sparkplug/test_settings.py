import pytest
from pydantic import ValidationError

from gateway.bridges.mqtt.settings import MqttSettings
from tests.bridges.mqtt.sparkplug.statements import checks


def test_what_stands_where_nothing_is_said():
    settings = MqttSettings(host="h", payload="sparkplug")
    assert MqttSettings(host="h").payload == "json"
    named = {"group": "sems", "node": None, "primary_host": None, "types_in_data": False}
    assert settings.sparkplug.model_dump() == named


@checks("topic-structure-namespace-valid-group-id", "topic-structure-namespace-valid-edge-node-id")
@pytest.mark.parametrize("field", ["group", "node", "primary_host"])
@pytest.mark.parametrize("value", ["", "a/b", "+", "a#", "a\n", " a", "a ", "x" * 201])
def test_an_id_that_sparkplug_forbids_is_refused(field, value):
    with pytest.raises(ValidationError):
        MqttSettings(host="h", payload="sparkplug", sparkplug={field: value})


def test_a_session_that_outlives_its_connection_is_refused():
    with pytest.raises(ValidationError, match="session_expiry must be 0 with payload: sparkplug"):
        MqttSettings(host="h", payload="sparkplug", session_expiry=60)
