"""`home_assistant:` of the `mqtt` bridge."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def topic_name(topic: str) -> str:
    """Return the name of a topic, or of its first levels. Raises ValueError where nobody could publish to it."""
    if not topic or topic.startswith("/") or topic.endswith("/") or "//" in topic:
        raise ValueError(f"{topic!r} must be one or more levels like sems or home/sems, without / at an end")
    if any(char in topic for char in "+#"):
        raise ValueError(f"{topic!r} contains a wildcard; leave out + and #")
    if topic.startswith("$"):
        raise ValueError(f"{topic!r} begins with $, which is for the broker's own topics")
    if not topic.isprintable():
        raise ValueError(f"{topic!r} contains a control character")
    return topic


TopicName = Annotated[str, Field(max_length=500), AfterValidator(topic_name)]


class HomeAssistantSettings(BaseModel):
    """Also written as `true` or `false` alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=False, description="let Home Assistant find the devices by itself")
    prefix: TopicName = Field(default="homeassistant", description="its discovery prefix")
    status_topic: TopicName = Field(
        default="homeassistant/status", description="topic of its birth message, after which all is published again"
    )


def _from_bool(raw: Any) -> Any:
    return {"enabled": raw} if isinstance(raw, bool) else raw


HomeAssistantField = Annotated[
    HomeAssistantSettings, BeforeValidator(_from_bool, json_schema_input_type=bool | HomeAssistantSettings)
]
