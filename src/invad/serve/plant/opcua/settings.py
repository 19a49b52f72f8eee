"""What a `line.toml` says of OPC UA."""

from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from invad.errors import ConfigError
from invad.serve.options import is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcUa:
    """The server that all stations share. certificate, private_key: files, PEM or DER; without them nothing
    is encrypted. trusted: folder of the certificates of clients that may come; None lets all come.
    password_variable: of the environment, holds the password of `user`. insecure: other
    machines may come without encryption or without a name."""

    endpoint: str = "opc.tcp://127.0.0.1:4840/invad"
    certificate: str | None = None
    private_key: str | None = None
    trusted: str | None = None
    user: str | None = None
    password_variable: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        try:
            address, port = urlsplit(self.endpoint), urlsplit(self.endpoint).port
        except ValueError:
            address, port = SplitResult("", "", "", "", ""), None
        if address.scheme != "opc.tcp" or not address.hostname or port is None:
            raise ConfigError(
                f"endpoint = {self.endpoint!r}: give one such as 'opc.tcp://127.0.0.1:4840/invad'"
            )
        for one, other in (("certificate", "private_key"), ("user", "password_variable")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ConfigError(f"opcua: give both {one} and {other}, or neither")
        if self.trusted is not None and (self.certificate is None or self.insecure):
            raise ConfigError("opcua: trusted needs certificate and private_key, and insecure = false")
        is_safe = self.certificate is not None and self.user is not None
        if not (is_loopback(self.host) or is_safe or self.insecure):
            raise ConfigError(
                f"endpoint = {self.endpoint!r} can be reached from other machines: give certificate, "
                "private_key, user and password_variable, or insecure = true"
            )

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).hostname or ""

    @property
    def port(self) -> int:
        """0 lets the system choose."""
        return urlsplit(self.endpoint).port or 0

    def require_trusted(self) -> Path | None:
        """The folder of the clients that may come, if one is named. Raises ConfigError where it is none."""
        if self.trusted is None:
            return None
        if not Path(self.trusted).is_dir():
            raise ConfigError(f"{self.trusted}: is no folder; make it, and put certificates of clients there")
        return Path(self.trusted)

    def below(self, base: Path) -> "OpcUa":
        """With paths that do not depend on where the program was started."""
        files = (self.certificate, self.private_key, self.trusted)
        certificate, private_key, trusted = (None if one is None else str(base / one) for one in files)
        return replace(self, certificate=certificate, private_key=private_key, trusted=trusted)
