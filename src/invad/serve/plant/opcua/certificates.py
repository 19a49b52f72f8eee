"""Our certificate as an OPC UA server or a client, and whether it can be used."""

import socket
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from invad.errors import ConfigError, reason

PEM = b"-----BEGIN"
RENEW = "make a new one"


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and the key that belongs to it. uri: of the application, as the certificate says it."""

    certificate: x509.Certificate
    key: RSAPrivateKey
    uri: str

    def problem(self, where: str) -> str | None:
        """Why it cannot be used now, of one line, or None. where: its file."""
        return expiry_problem(self.certificate, where)


def expiry_problem(certificate: x509.Certificate, where: str) -> str | None:
    """Why it is not valid now, of one line, or None. where: its file."""
    now = datetime.now(timezone.utc)
    if certificate.not_valid_after_utc < now:
        return f"{where}: the certificate expired at {_day(certificate.not_valid_after_utc)}; {RENEW}"
    if certificate.not_valid_before_utc > now:
        first = _day(certificate.not_valid_before_utc)
        return f"{where}: the certificate is valid from {first} on; set the clock, or {RENEW}"
    return None


def read_certificate(path: str) -> x509.Certificate:
    """PEM or DER. Raises ConfigError of one line."""
    body = _content(path)
    load = x509.load_pem_x509_certificate if PEM in body else x509.load_der_x509_certificate
    try:
        return load(body)
    except ValueError:
        raise ConfigError(f"{path}: is no certificate in PEM or DER") from None


def read_identity(certificate: str, private_key: str) -> Identity:
    """Raises ConfigError of one line for files that are not there, cannot be read, or do not fit."""
    found, secret = read_certificate(certificate), _content(private_key)
    load_key: Any = load_pem_private_key if PEM in secret else load_der_private_key
    try:
        key = load_key(secret, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{private_key}: is no private key in PEM or DER without a password") from None
    if not isinstance(key, RSAPrivateKey) or key.public_key() != found.public_key():
        raise ConfigError(
            f"{private_key}: is not the RSA key of {certificate}; give the two that belong together"
        )
    return Identity(found, key, _uri(found))


def usable_identity(certificate: str | None, private_key: str | None) -> Identity | None:
    """None where nothing is encrypted. Raises ConfigError for a certificate that cannot be used now."""
    if certificate is None or private_key is None:
        return None
    identity = read_identity(certificate, private_key)
    if (problem := identity.problem(certificate)) is not None:
        raise ConfigError(problem)
    return identity


def default_uri() -> str:
    """Of an application without a certificate."""
    return f"urn:{socket.gethostname()}:invad"


def _uri(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return default_uri()
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), default_uri())


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error, writing=False)}") from None


def _day(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")
