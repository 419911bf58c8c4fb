"""Settings that listeners for HTTP share."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from gateway.http_server import tls_context


def _beside_the_configuration(path: Path, info: ValidationInfo) -> Path:
    directory = (info.context or {}).get("directory")
    return directory / path if isinstance(directory, Path) else path


LocalFile = Annotated[Path, AfterValidator(_beside_the_configuration)]
"""A file's path; a relative one starts at the configuration's directory."""


class TlsSettings(BaseModel):
    """`tls:`, where no proxy ends it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: LocalFile = Field(description="PEM file: this server's certificate, with its chain")
    key: LocalFile = Field(description="PEM file: its private key, not encrypted")

    @model_validator(mode="after")
    def _files_are_good(self) -> Self:
        try:
            tls_context(self.certificate, self.key)
        except OSError as error:
            raise ValueError(str(error)) from error
        return self
