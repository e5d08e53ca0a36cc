"""Who calls: a program with a bearer token, or HubSpot with a signature at the webhook door.

(A page's own script comes with its session; see the settings.)
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractUser, AnonymousUser
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from openvibe.contrib import hubspot
from operators.models import ApiToken
from operators.models.lookup import look_up


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
        token = look_up(ApiToken, "user", key_sha256=ApiToken.fingerprint(key))
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


class Signed:
    """What stands in a token's place when a signature says who calls."""


class HubSpotAuthentication(BaseAuthentication):
    """HubSpot's signature of a webhook, version 3, made with the secret that `OPENVIBE_HUBSPOT_SECRET` names."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Signed] | None:
        """Return nobody, with the mark that the request is signed; None if the call shows no signature."""
        signature = request.headers.get("X-HubSpot-Signature-v3")
        if signature is None:
            return None
        secret = settings.OPENVIBE.hubspot_secret
        if not secret:
            raise AuthenticationFailed(
                "Signatures cannot be checked: OPENVIBE_HUBSPOT_SECRET is not set on this server"
            )
        if not any(self._fits(request, secret, signature, uri) for uri in _addresses(request)):
            raise AuthenticationFailed(
                "The signature does not fit, or is older than five minutes; compare OPENVIBE_HUBSPOT_SECRET with the "
                f"app's client secret, and the address in HubSpot with {next(iter(_addresses(request)))}"
            )
        return AnonymousUser(), Signed()

    def _fits(self, request: Request, secret: str, signature: str, uri: str) -> bool:
        return hubspot.signed_v3(
            secret,
            method=request.method or "",
            uri=uri,
            body=request.body,
            timestamp=request.headers.get("X-HubSpot-Request-Timestamp", ""),
            signature=signature,
        )


def _addresses(request: Request) -> dict[str, None]:
    """The address that HubSpot may have signed: a proxy that ends TLS hands the request on without it."""
    address = request.build_absolute_uri()
    return dict.fromkeys((address, "https://" + address.partition("://")[2]))


class HubSpotScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document describes the signature."""

    target_class = HubSpotAuthentication
    name = "hubspot"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return OpenAPI's words for a header."""
        return {"type": "apiKey", "in": "header", "name": "X-HubSpot-Signature-v3"}
