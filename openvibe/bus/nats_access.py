"""How a client gets into a NATS server: its addresses, the key that says who one is, and the CA that one trusts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from openvibe.bus import nkeys
from openvibe.bus.address import servers, without_password
from openvibe.errors import SetupError

#: What a folder of certificates holds: whom to trust and, where the server asks for them, our own.
CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
#: The header by which the server tells how a request went, and how the place for an acknowledgement of what a stream
#: keeps begins.
STATUS, STORED = "Status", b"$JS.ACK."


@dataclass(frozen=True)
class Access:
    """What is needed to connect.

    `url` may name several servers, separated by commas. `credentials` is a file with the seed of an NKey,
    `certificates` a folder with `ca.pem` and, for a server that asks for them, `cert.pem` and `key.pem`.
    """

    url: str
    credentials: str = ""
    certificates: str = ""

    @property
    def shown(self) -> str:
        """The addresses as they may be shown."""
        return without_password(self.url)

    def options(self) -> dict[str, Any]:
        """Return the options of a client's `connect`. Raises `SetupError` if a file is missing or holds nothing."""
        if self.credentials:
            nkeys.read(Path(self.credentials))
        return {
            "servers": servers(self.url),
            **({"nkeys_seed": self.credentials} if self.credentials else {}),
            **({"tls": _context(Path(self.certificates))} if self.certificates else {}),
        }

    def explained(self, error: BaseException) -> str:
        """Return why the server could not be reached, and what may be done about it."""
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = f"does {Path(self.certificates) / CA} belong to it?" if self.certificates else "set NATS_CERT_DIR"
            return f"its certificate is not trusted ({error.verify_message}); {remedy}"
        if isinstance(error, ssl.SSLError):
            return f"TLS fails ({error.reason or error})"
        told = str(error) or "no answer"
        if "uthorization" in told:
            remedy = f"does it know the key in {self.credentials}?" if self.credentials else "set NATS_CREDENTIALS"
            return f"it does not let us in ({told}); {remedy}"
        return told


class NatsClient(Client):
    """The library's client, which signs with our own reader of keys, and is deaf to nobody."""

    def _setup_nkeys_seed_connect(self) -> None:
        # The library's way needs a package more, for what the certificates' package does as well.
        user = nkeys.read(Path(str(self._nkeys_seed)))
        self._public_nkey = user.public
        self._signature_cb = user.signature

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except Exception:
            # The library's own stops reading at headers that are none, and again whenever their message comes again.
            return None
        return found

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        if not (subject.isascii() and reply.isascii()):
            # The library's own stops reading at a subject that is no UTF-8.
            subject, reply = (text.decode(errors="replace").encode() for text in (subject, reply))
        if headers and STATUS in headers and reply.startswith(STORED):
            # The library takes it for a word of the server, and the message for none.
            headers = {name: text for name, text in headers.items() if name != STATUS}
        message: Msg = super()._build_message(sid, subject, reply, data, headers)
        return message


def _context(folder: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=folder / CA)
        if (folder / CERTIFICATE).exists():
            context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"{folder} cannot be used as a folder of certificates ({error}); it needs {CA}") from error
    return context
