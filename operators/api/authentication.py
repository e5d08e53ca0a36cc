"""Who calls: a program with a bearer token. (A page's own script comes with its session; see the settings.)"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from operators.models import ApiToken


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`. The token's project is the only one that the call can see."""

    def authenticate(self, request: Request) -> tuple[AbstractUser, ApiToken] | None:
        """Return the token's user and the token itself; None if the call shows none."""
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != b"bearer":
            return None
        if len(words) != 2:
            raise AuthenticationFailed("The header must read: Authorization: Bearer <token>")
        key = words[1].decode(errors="replace")
        token = ApiToken.objects.select_related("user").filter(key_sha256=ApiToken.fingerprint(key)).first()
        if token is None or not token.user.is_active:
            raise AuthenticationFailed("This token is not known; `make run` writes a valid one to $OPENVIBE_HOME/token")
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        """Say how to come back after a 401."""
        return 'Bearer realm="openvibe"'


class TokenScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document describes the token."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return OpenAPI's words for a bearer token."""
        return {"type": "http", "scheme": "bearer"}
