"""Modbus/TCP Security (protocol specification of 2018): who connects shows a certificate that says its role."""

import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from cryptography import x509

ROLE: Final = "1.3.6.1.4.1.50316.802.1"
"""The X.509v3 extension with the role, an ASN.1 UTF8String (specification, §8.3 and annex A)."""
UTF8_STRING: Final = 0x0C
LONGEST_ROLE: Final = 64
"""Characters. A role ends up in logs, metrics and the origin of commands."""
SOON: Final = timedelta(days=30)


class TlsFiles(NamedTuple):
    """What a TLS listener is made of: PEM files."""

    certificate: Path
    """The server's own, with what leads to its root."""
    key: Path
    """The certificate's private key."""
    client_ca: Path
    """Who signs the clients' certificates."""


class TlsError(OSError):
    """The files can't be used. The message says which, and what to do."""


def context(files: TlsFiles) -> ssl.SSLContext:
    """Return what a listener needs: TLS 1.2 at least, and no client without a certificate. Raises TlsError."""
    for setting in ("certificate", "key", "client_ca"):
        _read(files, setting)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    made.verify_mode = ssl.CERT_REQUIRED
    try:
        made.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as error:
        raise TlsError(_key_trouble(files, error)) from error
    try:
        made.load_verify_locations(files.client_ca)
    except ssl.SSLError as error:
        raise TlsError(
            f"tls.client_ca: {files.client_ca} holds no certificate in PEM form; name the one that signs the clients'"
        ) from error
    return made


def warnings(files: TlsFiles, now: datetime) -> Iterator[str]:
    """Yield what is wrong with the server's own certificate, short of making it useless to us."""
    own = _certificates(files)[0]
    begins, ends = own.not_valid_before_utc, own.not_valid_after_utc
    if ends < now:
        yield f"tls.certificate: {files.certificate} expired on {ends:%Y-%m-%d}, so clients will refuse it; renew it"
    elif ends < now + SOON:
        yield f"tls.certificate: {files.certificate} expires on {ends:%Y-%m-%d}; renew it"
    if begins > now:
        yield f"tls.certificate: {files.certificate} is not valid before {begins:%Y-%m-%d}; check the clock"


def role(certificate: bytes) -> str:
    """Return the role that a client's certificate (DER) gives it; "" where it gives none, or not in good form."""
    from cryptography import x509  # noqa: PLC0415 - large, and only needed where there is TLS; `warnings` has loaded it

    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        found = extensions.get_extension_for_oid(x509.ObjectIdentifier(ROLE))
        value = found.value
        text = _utf8_string(value.value) if isinstance(value, x509.UnrecognizedExtension) else ""
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ""
    return text if text.isprintable() and len(text) <= LONGEST_ROLE else ""


def in_words(error: OSError) -> str:
    """Return why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return f"no TLS connection: {reason}"
    return f"no TLS connection: {str(error) or type(error).__name__}"


def _utf8_string(der: bytes) -> str:
    """Return the text of an ASN.1 UTF8String (X.690 §8.1, §8.23). Raises ValueError."""
    if len(der) < 2 or der[0] != UTF8_STRING:
        raise ValueError("no UTF8String")
    size, start = der[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[2:start], "big")
    if len(der) != start + size:
        raise ValueError("its length is wrong")
    return der[start:].decode()


def _read(files: TlsFiles, setting: str) -> bytes:
    path: Path = getattr(files, setting)
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(
            f"tls.{setting}: {path} can't be read ({error.strerror}); name a PEM file that this user may read"
        ) from error


def _certificates(files: TlsFiles) -> "list[x509.Certificate]":
    from cryptography import x509  # noqa: PLC0415 - as above

    return x509.load_pem_x509_certificates(_read(files, "certificate"))


def _no_password() -> str:
    # Without this, OpenSSL would ask on the terminal, and wait.
    raise TlsError("tls.key: the key is encrypted; store it without a password, readable by this user alone")


def _key_trouble(files: TlsFiles, error: ssl.SSLError) -> str:
    try:
        _certificates(files)
    except ValueError:
        return f"tls.certificate: {files.certificate} holds no certificate in PEM form"
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"tls.key: {files.key} does not belong to {files.certificate}; name the key it was made with"
    return f"tls.key: {files.key} holds no private key in PEM form that can be used ({error.reason or error})"
