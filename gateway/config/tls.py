"""TLS towards a server: a client's side of it."""

import ssl
from pathlib import Path

from gateway.config.secret import Secret


def client_context(
    ca: Path | None, certificate: Path | None = None, key: Path | None = None, password: Secret | None = None
) -> ssl.SSLContext:
    """Return what a connection needs: TLS 1.2 at least, a server whose certificate is good and has its name. Blocks.

    `ca`: whom to trust in place of the machine's CAs. Raises ssl.SSLError or OSError where the files are not good.
    """
    made = ssl.create_default_context(cafile=ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        # Without a password of some kind, OpenSSL asks for one at the terminal.
        made.load_cert_chain(certificate, key, password.get_secret_value() if password else lambda: b"")
    return made
