"""Texts that the database keeps and that nobody can read there: sealed with a key derived from `SECRET_KEY`."""

from __future__ import annotations

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

#: What the key is for; another use has another key.
PURPOSE = b"openvibe: secrets of subscriptions"


class SealBroken(Exception):
    """The text was sealed with another key, or changed since."""


def sealed(text: str) -> str:
    """Return the text as the database keeps it."""
    return _box(_secrets()).encrypt(text.encode()).decode()


def opened(kept: str) -> str:
    """Return the text again; raises `SealBroken` if it was sealed with another key."""
    try:
        return _box(_secrets()).decrypt(kept.encode()).decode()
    except InvalidToken:
        raise SealBroken("OPENVIBE_SECRET_KEY is not the one with which this was sealed") from None


def _secrets() -> tuple[str, ...]:
    return tuple(map(str, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)))


@lru_cache(maxsize=4)
def _box(secrets: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(_key(secret)) for secret in secrets])


def _key(secret: str) -> bytes:
    derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=PURPOSE).derive(secret.encode())
    return base64.urlsafe_b64encode(derived)
