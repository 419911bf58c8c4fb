"""`sparkplug:` of the `mqtt` bridge."""

from typing import Annotated

from pydantic import AfterValidator, Field

from gateway.config.settings import Settings


def _is_id(text: str) -> str:
    # As [topic-structure-namespace-valid-group-id] demands and its siblings.
    if any(char in text for char in "+#/"):
        raise ValueError(f"{text!r} contains +, # or /, which Sparkplug ids must not")
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"{text!r} contains a control character, or a space at an end")
    return text


Id = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_id)]


class SparkplugSettings(Settings):
    """Who the gateway is among the edge nodes, and whom it waits for."""

    group: Id = Field(default="sems", description="Sparkplug group id")
    node: Id | None = Field(default=None, description="Sparkplug edge node id; default: gateway.id")
    types_in_data: bool = Field(
        default=False, description="repeat data types in NDATA and DDATA, for hosts that keep none from the births"
    )
    primary_host: Id | None = Field(
        default=None, description="id of the host without which nothing is published; default: none is waited for"
    )
