"""What every part of the configuration is."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A part of the configuration: an unknown key is an error, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
