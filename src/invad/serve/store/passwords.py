"""Passwords of people, kept as scrypt digests that say their own parameters."""

import base64
import hashlib
import hmac
import secrets
import threading

from invad.errors import ConfigError

SHORTEST, LONGEST = 10, 1024
LOG_N, R, P = 15, 8, 3
"""32 MiB and about a third of a second on a desk computer, for each try."""

_ONE_AT_A_TIME = threading.Lock()
"""So that many who log in at a time do not fill the memory."""


def digest(password: str) -> str:
    """`scrypt$LOG_N$R$P$SALT$DIGEST`, the last two in base 64. Raises ConfigError for a password that is too
    short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError(f"the password has {len(password)} characters; give {SHORTEST} to {LONGEST}")
    salt = secrets.token_bytes(16)
    parts = (_text(salt), _text(_scrypt(password, salt, LOG_N, R, P)))
    return "$".join(("scrypt", str(LOG_N), str(R), str(P), *parts))


def is_right(password: str, kept: str) -> bool:
    """Whether it is the password of a digest."""
    _, log_n, r, p, salt, expected = kept.split("$")
    found = _scrypt(password[:LONGEST], base64.b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(expected))


def waste_time(password: str) -> None:
    """As long as `is_right` takes, so that an answer does not tell which names exist."""
    _scrypt(password[:LONGEST], b"nobody's", LOG_N, R, P)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    with _ONE_AT_A_TIME:
        return hashlib.scrypt(
            password.encode("utf-8", "replace"),
            salt=salt,
            n=1 << log_n,
            r=r,
            p=p,
            maxmem=(256 << log_n) * r,
            dklen=32,
        )


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
