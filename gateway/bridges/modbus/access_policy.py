"""Who may do what on one listener."""

import ssl

import msgspec

from gateway.http.addresses import Network, address_of, within


class AccessPolicy(msgspec.Struct, frozen=True):
    """What a listener's settings say, with certificates read."""

    max_connections: int
    max_connections_per_host: int | None = None
    read_only: bool = False
    allow: tuple[Network, ...] | None = None
    tls: ssl.SSLContext | None = None
    write_roles: frozenset[str] = frozenset()
    role: str = ""
    """Of every client, where no certificate says it."""

    def lets_in(self, host: str) -> bool:
        """Return whether a client of that address may connect."""
        return self.allow is None or within(address_of(host), self.allow)

    def why_read_only(self, role: str) -> str:
        """Return why a client of that role may not write; "" where it may."""
        if self.read_only:
            return "this listener is read-only (read_only: true)"
        if self.tls is None or role in self.write_roles:
            return ""
        return f"the role {role!r} is not among tls.write_roles" if role else "the client's certificate has no role"
