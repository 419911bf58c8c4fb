"""How one enters."""

import hashlib
from pathlib import Path

import msgspec


class Credentials(msgspec.Struct, frozen=True):
    """How one enters: account and password, or client id and secret."""

    account: str
    password: str

    @property
    def password_md5(self) -> str:
        """MD5 hex of the password, as GetToken wants it (SEMS.md, seen)."""
        return hashlib.md5(self.password.encode(), usedforsecurity=False).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Identifies these credentials without giving them away."""
        return hashlib.sha256(f"{self.account}\0{self.password}".encode()).hexdigest()[:16]

    def file(self, data_dir: Path, api: str, what: str) -> Path:
        """Return where something of the account is kept: the same for all bridges that use it, and for any password."""
        account = hashlib.sha256(self.account.encode()).hexdigest()[:16]
        return data_dir / f"{api}-{account}-{what}.json"
