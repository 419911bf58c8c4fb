"""Settings of store and forward."""

from pydantic import ByteSize, Field

from gateway.config.settings import Settings


class StoreSettings(Settings):
    """`store:` under a bridge of `type: mqtt`."""

    enabled: bool = Field(default=False, description="keep what could not be published")
    max_bytes: ByteSize = Field(
        default=ByteSize(100_000_000), ge=100_000, description="of the file, e.g. 100 MB; then the oldest are dropped"
    )
    max_age: float = Field(default=7 * 86_400, gt=0, description="seconds after which what waits is dropped")
    rate: float = Field(default=500, ge=1, le=100_000, description="messages a second to make up for it")
