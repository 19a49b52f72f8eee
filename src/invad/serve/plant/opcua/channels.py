"""Which clients may speak with an OPC UA server that has a certificate.

asyncua opens a channel without encryption whatever policies it was given, since clients ask there which ones
there are, and takes sessions on it; of the certificate of a client it looks at a copy, which the client may
leave out. So both are decided where channels are opened.
"""

import logging
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.crypto.permission_rules import PermissionRuleset
from asyncua.crypto.security_policies import (
    SecurityPolicyBasic256Sha256,
    SecurityPolicyFactory,
    SecurityPolicyNone,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from invad.errors import ConfigError
from invad.serve.plant.opcua.certificates import Identity, expiry_problem, read_certificate

LOG = logging.getLogger("invad.serve")


def guard(server: Server, identity: Identity, trusted: Path | None, *, insecure: bool) -> None:
    """Before it starts. trusted: folder of the certificates of clients that may come, None for all of them.
    insecure: others may come without encryption."""
    # The first that fits is taken, so these come before those that it makes itself.
    server._policies.append(Known(identity, trusted))
    if not insecure:
        nothing = SecurityPolicyFactory(
            SecurityPolicyNone, ua.MessageSecurityMode.None_, permission_ruleset=Nothing()
        )
        server._policies.append(nothing)


class Nothing(PermissionRuleset):  # type: ignore[misc]
    """A session may begin and do nothing."""

    def check_validity(self, user: Any, action_type: Any, body: Any) -> bool:
        return False


class Known(SecurityPolicyFactory):  # type: ignore[misc]
    """Makes encrypted channels for clients that are known."""

    def __init__(self, identity: Identity, trusted: Path | None):
        mode = ua.MessageSecurityMode.SignAndEncrypt
        super().__init__(SecurityPolicyBasic256Sha256, mode, identity.certificate, identity.key)
        self.trusted = trusted

    def create(self, peer_certificate: bytes | None) -> Any:
        """Raises BadUserAccessDenied, upon which the connection is closed, for others."""
        if self.trusted is not None and (problem := stranger(peer_certificate or b"", self.trusted)):
            LOG.warning("an OPC UA client was refused: %s", problem)
            raise ua.uaerrors.BadUserAccessDenied
        return super().create(peer_certificate)


def stranger(sent: bytes, trusted: Path) -> str | None:
    """Why a client is not let in, of one line, or None. sent: its certificate in DER, perhaps with others
    behind it. trusted: is read each time, so that a certificate counts as soon as it lies there."""
    for path in sorted(trusted.iterdir()):
        try:
            known = read_certificate(str(path))
        except ConfigError:  # something else that lies there
            continue
        if sent.startswith(known.public_bytes(Encoding.DER)):
            return expiry_problem(known, str(path))
    try:
        name = x509.load_der_x509_certificate(sent).subject.rfc4514_string()
    except ValueError:
        name = "a client"
    return f"the certificate of {name} does not lie in {trusted}; put it there if it may come"
