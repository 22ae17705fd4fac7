"""The address under which a proxy shows the pages to the world: `--public-url https://host/sub/path`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from stackgan_dist.errors import UserError

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_OWN = frozenset({"about", "assets", "jobs", "r", "raters", "try"})
"""What our paths begin with. Below one of them nobody could tell whether the proxy has taken its path off."""
_PATH = re.compile(r"(/[A-Za-z0-9~_-][A-Za-z0-9._~-]*)*")


@dataclass(frozen=True)
class PublicUrl:
    """Scheme, host and path, as browsers write them."""

    scheme: str
    host: str
    """With the port, where it is not the scheme's own."""
    path: str
    """Without a slash at its end: "" at the top of the host."""

    @classmethod
    def parse(cls, text: str) -> PublicUrl:
        """The parts of `text`; UserError when it is no such address."""
        try:
            parts = urlsplit(text)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise _unusable(text, str(error)) from None
        if parts.scheme not in _PORTS:
            raise _unusable(text, "it does not begin with https:// or http://")
        host = f"[{host}]" if ":" in host else host
        if not _HOST.fullmatch(host):
            raise _unusable(text, f"{host!r} is no name of a host (letters beyond ASCII are written as xn--...)")
        if parts.username is not None or parts.query or parts.fragment:
            raise _unusable(text, "it has more than a host, a port and a path")
        path = parts.path.rstrip("/")
        if not _PATH.fullmatch(path):
            raise _unusable(text, f"its path {parts.path!r} has more than letters, digits and - . _ ~ between slashes")
        if path.partition("/")[2].partition("/")[0] in _OWN:
            raise _unusable(text, f"a path that begins with one of the server's own ({path}) is ambiguous")
        return cls(parts.scheme, host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}", path)

    @property
    def origin(self) -> str:
        """What browsers send as Origin from these pages."""
        return f"{self.scheme}://{self.host}"

    @property
    def host_headers(self) -> tuple[str, ...]:
        """What may stand in Host: the scheme's own port may be said."""
        port = _PORTS[self.scheme]
        return (self.host,) if urlsplit(str(self)).port else (self.host, f"{self.host}:{port}")

    def __str__(self) -> str:
        return f"{self.origin}{self.path}/"


def check_proxies(addresses: tuple[str, ...]) -> None:
    """UserError unless all are addresses or networks; nothing stands for every address."""
    for address in addresses:
        try:
            network = ipaddress.ip_network(address)
        except ValueError as error:
            raise UserError(
                f"--trusted-proxy {address}: {error}; give an address, as 127.0.0.1, or a network"
            ) from None
        if network.prefixlen == 0:
            raise UserError(f"--trusted-proxy {address} is every address; give those of the proxy alone")


def _unusable(text: str, reason: str) -> UserError:
    return UserError(f"--public-url {text!r} cannot be used: {reason}; give one as https://example.org/birds")
