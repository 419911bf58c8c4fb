"""TLS of the HTTP listeners."""

import ssl
from datetime import datetime
from pathlib import Path
from typing import Final

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secret and authenticated. Those of TLS 1.3 all are."""


def tls_context(certificate: Path, key: Path, now: datetime | None = None) -> ssl.SSLContext:
    """Return what a listener with TLS 1.2 or newer needs, without renegotiation and old ciphers.

    Raises OSError, which says which file is wrong.

    With `now`, a certificate whose time is over is wrong too: the listener stays closed, and says why. The
    configuration is judged without: a whole gateway must not stand still because one certificate was forgotten.
    """
    for setting, path in (("certificate", certificate), ("key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise OSError(
                error.errno,
                f"tls.{setting}: {path} can't be read ({error.strerror}); name a PEM file we may read",
            ) from error
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    made.set_ciphers(CIPHERS)
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise OSError(
            f"tls: {certificate} and {key} can't be used ({error.reason or error}); name a certificate with its chain, "
            "and the key it was made with, both in PEM form"
        ) from error
    if now is not None:
        _refuse_expired(certificate, now)
    return made


def _refuse_expired(certificate: Path, now: datetime) -> None:
    from cryptography import x509  # noqa: PLC0415 - large, and only needed where there is TLS

    ends = x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc
    if ends < now:
        raise OSError(f"tls.certificate: {certificate} expired on {ends:%Y-%m-%d}; renew it")


def _no_password() -> str:
    # Without this, OpenSSL would ask on the terminal, and wait.
    raise OSError("tls.key: the key is encrypted; store it without a password, readable by this user alone")
