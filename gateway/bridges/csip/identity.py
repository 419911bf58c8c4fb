"""Who the gateway is to a 2030.5 server: LFDI and SFDI, both made of the client certificate (2030.5-2018, 6.3.3 f.)."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.core.model import iso

LFDI_DIGITS: Final = 40
"""Hexadecimal ones: the first 20 bytes of the certificate's SHA-256."""


def lfdi_of(certificate: Path) -> str:
    """Return the LFDI of the first certificate of a PEM file, as the standard has it: 40 upper-case digits. Blocks.

    Raises OSError, or ValueError where there is no certificate.
    """
    found = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    return hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()[:LFDI_DIGITS].upper()


def out_of_date(certificate: Path, now: datetime) -> str:
    """Return in words that the first certificate of a PEM file is not valid now; "" where it is. Blocks.

    Raises what `lfdi_of` does.
    """
    found = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    if now >= found.not_valid_after_utc:
        return f"our certificate has expired at {iso(found.not_valid_after_utc)}; have the utility sign a new one"
    if now < found.not_valid_before_utc:
        return f"our certificate is valid from {iso(found.not_valid_before_utc)} on, and it is {iso(now)} here"
    return ""


def sfdi_of(lfdi: str) -> int:
    """Return the SFDI of an LFDI: its first 36 bits as a number, and a digit that makes the sum of digits end in 0."""
    number = int(lfdi[:9], 16)
    return number * 10 + -sum(map(int, str(number))) % 10


def made_mrid(lfdi: str, what: str, enterprise: int) -> str:
    """Return an mRID for a thing of ours, the same each time: 96 bits of our own, then the IANA enterprise number."""
    own = hashlib.sha256(f"{lfdi}/{what}".encode()).hexdigest()[:24]
    return f"{own}{enterprise:08x}".upper()


def draws_of(lfdi: str, mrid: str) -> tuple[float, float]:
    """Return two numbers of [0, 1) for an event, to randomise its start and its duration by.

    The same for the same event, so that a restart changes nothing, and another for every device.
    """
    digest = hashlib.sha256(f"{lfdi}/{mrid}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48, int.from_bytes(digest[6:12]) / 2**48
