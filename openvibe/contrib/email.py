"""Email over SMTP, encrypted, with a Message-ID by which receivers recognise a repeat."""

from __future__ import annotations

import hashlib
import os
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parseaddr
from typing import Literal, get_args

from openvibe.errors import OutsideServiceError, SetupError, TransientServiceError, UncertainServiceError

#: What to do when no mail server is connected.
REMEDY = "Set SMTP_HOST and SMTP_SENDER, and SMTP_USER and SMTP_PASSWORD where the server asks for them."

#: How a connection is encrypted: `starttls` (port 587), `implicit` from its first byte (port 465), or not at all.
Encryption = Literal["starttls", "implicit", "none"]
_PORTS: dict[str, int] = {"starttls": 587, "implicit": 465, "none": 25}


class Mailer:
    """Sends mail through one server. A connection is opened for each mail, so threads may share a mailer.

    `port` is by default the usual one for `tls`; `timeout` is in seconds; `context` is for servers whose certificate
    the system does not trust.

    Raises:
        SetupError: the settings do not fit together.
    """

    def __init__(
        self,
        host: str,
        *,
        port: int = 0,
        user: str = "",
        password: str = "",
        sender: str,
        tls: Encryption = "starttls",
        timeout: float = 30.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        if tls not in get_args(Encryption):
            raise SetupError(f"SMTP_TLS={tls!r} is unknown; use one of: {', '.join(get_args(Encryption))}")
        if password and tls == "none":
            raise SetupError("With tls='none' the password would travel in clear; use 'starttls' or 'implicit'")
        if "@" not in parseaddr(sender)[1]:
            raise SetupError(f"The sender {sender!r} is no mail address; use one like 'Operators <ops@example.com>'")
        self._host, self._port, self._tls = host, port or _PORTS[tls], tls
        self._user, self._password, self._sender = user, password, sender
        self._timeout, self._context = timeout, context or ssl.create_default_context()

    def send(self, to: str, subject: str, text: str, *, html: str = "", key: str = "") -> str:
        """Send one mail and return its Message-ID.

        `to` is one address. The same idempotency `key` and receiver always give the same Message-ID, by which mail
        servers and mailboxes can tell a repeat.

        Raises:
            UncertainServiceError: the mail went out and the server did not say whether it took it.
            TransientServiceError: the same mail may be taken later.
            OutsideServiceError: it will not.
        """
        mail = self._composed(to, subject, text, html=html, key=key)
        handed_over = False
        try:
            with self._connection() as server:
                handed_over = True
                server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            raise _refusal(*next(iter(error.recipients.values()))) from error
        except smtplib.SMTPResponseException as error:
            raise _refusal(error.smtp_code, error.smtp_error) from error
        except smtplib.SMTPNotSupportedError as error:
            raise OutsideServiceError(f"The mail server {self._host} cannot do that: {error}") from error
        except ssl.SSLCertVerificationError as error:
            raise OutsideServiceError(f"The mail server {self._host} cannot be trusted: {error}") from error
        except (OSError, smtplib.SMTPException) as error:
            kind = UncertainServiceError if handed_over else TransientServiceError
            raise kind(f"The mail server {self._host} broke off: {error or type(error).__name__}") from error
        return str(mail["Message-ID"])

    @contextmanager
    def _connection(self) -> Iterator[smtplib.SMTP]:
        place = (self._host, self._port)
        if self._tls == "implicit":
            server: smtplib.SMTP = smtplib.SMTP_SSL(*place, timeout=self._timeout, context=self._context)
        else:
            server = smtplib.SMTP(*place, timeout=self._timeout)
        try:
            if self._tls == "starttls":
                server.starttls(context=self._context)
            if self._user:
                server.login(self._user, self._password)
            yield server
        finally:
            # The mail is taken or refused by now; a quarrel over the good-bye changes nothing about that.
            with suppress(OSError, smtplib.SMTPException):
                server.quit()
            server.close()

    def _composed(self, to: str, subject: str, text: str, *, html: str, key: str) -> EmailMessage:
        mail = EmailMessage(policy=SMTP)
        try:
            mail["From"], mail["To"] = self._sender, to
        except (ValueError, IndexError) as error:
            raise OutsideServiceError(f"{to!r} is no mail address: {error}") from error
        if [bool(found.username and found.domain) for found in mail["To"].addresses] != [True]:
            # Of several receivers a server may take some and refuse others, and then the mail is neither sent nor not.
            raise OutsideServiceError(f"{to!r} is not one mail address; send to several one by one")
        # A model may have written the subject; a line break in a header would begin another header.
        mail["Subject"] = " ".join(subject.split())
        mail["Date"] = format_datetime(datetime.now(UTC))
        mail["Message-ID"] = self._message_id(to, key)
        mail.set_content(text)
        if html:
            mail.add_alternative(html, subtype="html")
        return mail

    def _message_id(self, to: str, key: str) -> str:
        domain = parseaddr(self._sender)[1].rpartition("@")[2]
        if not key:
            return make_msgid(domain=domain)
        digest = hashlib.sha256("\n".join((key, to)).encode()).hexdigest()
        return f"<{digest[:40]}@{domain}>"


def from_environment() -> Mailer | None:
    """Return a mailer for `SMTP_HOST`, `SMTP_PORT`, `SMTP_USER`, `SMTP_PASSWORD`, `SMTP_SENDER` and `SMTP_TLS`.

    Returns None where `SMTP_HOST` is not set.
    """
    setting = os.environ.get
    if not (host := setting("SMTP_HOST", "")):
        return None
    try:
        port = int(setting("SMTP_PORT") or 0)
    except ValueError as error:
        raise SetupError(f"SMTP_PORT={setting('SMTP_PORT')!r} is no number") from error
    return Mailer(
        host, port=port, user=setting("SMTP_USER", ""), password=setting("SMTP_PASSWORD", ""),
        sender=setting("SMTP_SENDER", ""), tls=setting("SMTP_TLS") or "starttls",  # type: ignore[arg-type]
    )  # fmt: skip


def _refusal(code: int, told: bytes | str) -> OutsideServiceError:
    reason = told.decode(errors="replace") if isinstance(told, bytes) else told
    text = f"The mail server answered {code}: {reason}"
    # RFC 5321 §4.2.1: 4yz may succeed later, 5yz will not.
    return OutsideServiceError(text) if 500 <= code < 600 else TransientServiceError(text)
