"""One-click sign-in: a signed link that works once, for a short time, for one user."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, User
from django.core import signing

_SALT = "openvibe.signin"
#: How long a link works, in seconds.
LIFETIME = 7 * 24 * 3600


def token(user: AbstractUser) -> str:
    """Return a token that signs this user in once: signing in changes the stamp that it holds."""
    return signing.dumps({"user": user.pk, "stamp": _stamp(user)}, salt=_SALT, compress=True)


def redeem(text: str) -> User | None:
    """Return the user whom a token lets in, or None if it is forged, too old, or used."""
    try:
        claim = signing.loads(text, salt=_SALT, max_age=LIFETIME)
    except signing.BadSignature:
        return None
    user = get_user_model().objects.filter(pk=claim["user"], is_active=True).first()
    return user if user is not None and _stamp(user) == claim["stamp"] else None


def _stamp(user: AbstractUser) -> str:
    return user.last_login.isoformat() if user.last_login else ""
