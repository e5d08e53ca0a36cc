"""NKeys: the Ed25519 keys by which NATS knows its users, as text with a prefix and a checksum.

The form is that of https://github.com/nats-io/nkeys: base32 of a prefix, the key, and its CRC-16.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openvibe.errors import SetupError

#: What a seed and a user's public key begin with, as numbers: `S` and `U` in base32.
SEED, USER = 18 << 3, 20 << 3
LENGTH = 32


@dataclass(frozen=True)
class User:
    """One user's key. `seed` is the secret, `public` what the server knows."""

    seed: str
    public: str

    def signature(self, nonce: str) -> bytes:
        """Sign what the server asks to be signed, in base64."""
        return base64.b64encode(_key(_raw(self.seed)).sign(nonce.encode()))


def new() -> User:
    """Make a user's key."""
    return _user(secrets.token_bytes(LENGTH))


def read(path: Path) -> User:
    """Read the seed that lies in a file; raises `SetupError` if there is none."""
    try:
        return _user(_raw(path.read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} holds no seed of a NATS user ({error}); manage.py credentials writes some") from error


def _user(raw: bytes) -> User:
    # The prefix of the user's key is split over two bytes, behind that of the seed.
    seed = bytes([SEED | USER >> 5, (USER & 31) << 3]) + raw
    public = bytes([USER]) + _key(raw).public_key().public_bytes_raw()
    return User(_text(seed), _text(public))


def _raw(seed: str) -> bytes:
    data = base64.b32decode(seed + "=" * (-len(seed) % 8))
    body, checksum = data[:-2], data[-2:]
    if _checksum(body) != checksum or len(body) != LENGTH + 2:
        raise ValueError("its checksum or its length is wrong")
    if body[0] & 248 != SEED or (body[0] & 7) << 5 | body[1] >> 3 != USER:
        raise ValueError("it is no user's")
    return body[2:]


def _key(raw: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(raw)


def _text(data: bytes) -> str:
    return base64.b32encode(data + _checksum(data)).decode().rstrip("=")


def _checksum(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
