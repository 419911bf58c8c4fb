"""Settings that listeners for HTTP share."""

from typing import Annotated, Final, Self

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    model_validator,
)

from gateway.config.local_file import LocalFile
from gateway.config.settings import Settings
from gateway.http.tls import tls_context


def _not_this_machine(name: str) -> str:
    if name.lower() == "localhost":
        raise ValueError("localhost is known already, and named here every page of this machine would be let in")
    return name


HostName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*)*$", max_length=253),
    AfterValidator(_not_this_machine),
]
"""A name without a port. An address needs none: it can't be made to lead elsewhere."""
HOSTS_HELP: Final = "names by which it is reached, besides this machine's own, its certificate's and addresses"


class TlsSettings(Settings):
    """`tls:`, where no proxy ends it."""

    certificate: LocalFile = Field(description="PEM file: this server's certificate, with its chain")
    key: LocalFile = Field(description="PEM file: its private key, not encrypted")

    @model_validator(mode="after")
    def _files_are_good(self) -> Self:
        try:
            tls_context(self.certificate, self.key)
        except OSError as error:
            raise ValueError(str(error)) from error
        return self
