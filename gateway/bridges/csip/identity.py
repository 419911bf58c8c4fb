"""Who the gateway is to a 2030.5 server: LFDI and SFDI, both made of the client certificate (2030.5-2018, 6.3.3 f.)."""

import hashlib
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

LFDI_DIGITS: Final = 40
"""Hexadecimal ones: the first 20 bytes of the certificate's SHA-256."""


def lfdi_of(certificate: Path) -> str:
    """Return the LFDI of the first certificate of a PEM file, as the standard has it: 40 upper-case digits. Blocks.

    Raises OSError, or ValueError where there is no certificate.
    """
    found = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    return hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()[:LFDI_DIGITS].upper()


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
