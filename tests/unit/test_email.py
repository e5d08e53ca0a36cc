"""The mailer against a small mail server that speaks SMTP, with and without TLS."""

from __future__ import annotations

import base64
import socketserver
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from openvibe.contrib import email
from openvibe.contrib.email import Mailer
from openvibe.errors import OutsideServiceError, SetupError, TransientServiceError, UncertainServiceError
from tests.threads import serving

SENDER = "Operators <ops@example.com>"


class FakeMailServer(socketserver.ThreadingTCPServer):
    """Takes mails. `replies` replaces the answer to a command, by its verb; "" hangs up instead of answering."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, certificate: ssl.SSLContext | None, *, implicit: bool) -> None:
        self.certificate, self.implicit = certificate, implicit
        self.replies: dict[str, str] = {}
        self.mails: list[tuple[str, list[str], EmailMessage]] = []
        self.logins: list[tuple[str, bool]] = []
        self.encrypted: list[bool] = []
        super().__init__(("127.0.0.1", 0), _Session)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Session(socketserver.StreamRequestHandler):
    server: FakeMailServer
    tls = False

    def setup(self) -> None:
        if self.server.implicit:
            assert self.server.certificate is not None
            self.request = self.server.certificate.wrap_socket(self.request, server_side=True)
            self.tls = True
        super().setup()

    def handle(self) -> None:
        sender, receivers = "", list[str]()
        self._say("220 mail.example.com ready")
        while line := self.rfile.readline().decode().strip():
            verb = line.split(":")[0].split()[0].upper()
            if (reply := self.server.replies.get(verb)) is not None:
                if not reply:
                    return
                self._say(reply)
            elif verb == "EHLO":
                self._say(*self._abilities())
            elif verb == "STARTTLS":
                self._say("220 go ahead")
                self._encrypt()
            elif verb == "AUTH":
                self.server.logins.append((base64.b64decode(line.split()[2]).decode(), self.tls))
                self._say("235 welcome")
            elif verb == "DATA":
                self._say("354 go ahead")
                self._take(sender, receivers)
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                sender = line.partition("<")[2].partition(">")[0] if verb == "MAIL" else sender
                receivers += [line.partition("<")[2].partition(">")[0]] if verb == "RCPT" else []
                self._say("250 ok")

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def _abilities(self) -> list[str]:
        starttls = ["250-STARTTLS"] if self.server.certificate and not self.tls else []
        return ["250-mail.example.com", *starttls, "250 AUTH PLAIN"]

    def _encrypt(self) -> None:
        assert self.server.certificate is not None
        self.request = self.server.certificate.wrap_socket(self.request, server_side=True)
        self.tls = True
        super().setup()

    def _take(self, sender: str, receivers: list[str]) -> None:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        if (reply := self.server.replies.get("END", "250 taken")) == "":
            self.request.close()
            return
        if reply.startswith("250"):
            mail: Any = message_from_bytes(b"".join(lines), policy=policy.SMTP)
            self.server.mails.append((sender, receivers, mail))
            self.server.encrypted.append(self.tls)
        self._say(reply)

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody but these tests trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("certificate") / "mail.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@contextmanager
def receiving(certificate: Path | None = None, *, implicit: bool = False) -> Iterator[FakeMailServer]:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with serving(FakeMailServer(context, implicit=implicit)) as server:
        yield server


@pytest.fixture
def server() -> Iterator[FakeMailServer]:
    with receiving() as plain:
        yield plain


@pytest.fixture
def mailer(server: FakeMailServer) -> Mailer:
    return Mailer("localhost", port=server.port, sender=SENDER, tls="none", timeout=5)


def test_a_mail_arrives_as_it_was_written(server: FakeMailServer, mailer: Mailer) -> None:
    identity = mailer.send("ada@example.com", "Grüße", "Hello Ada\n.\nBye", html="<p>Hello Ada</p>")
    [(sender, receivers, mail)] = server.mails
    assert (sender, receivers) == ("ops@example.com", ["ada@example.com"])
    assert (mail["From"], mail["To"], mail["Subject"]) == (SENDER, "ada@example.com", "Grüße")
    assert mail["Message-ID"] == identity
    assert abs(mail["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines() == ["Hello Ada", ".", "Bye"]
    assert html.get_content().strip() == "<p>Hello Ada</p>"


def test_one_key_always_gives_one_message_id(server: FakeMailServer, mailer: Mailer) -> None:
    first = mailer.send("ada@example.com", "Hello", "…", key="openvibe-1")
    again = mailer.send("ada@example.com", "Hello", "…", key="openvibe-1")
    others = {
        mailer.send("ada@example.com", "Hello", "…", key="openvibe-2"),
        mailer.send("bob@example.com", "Hello", "…", key="openvibe-1"),
        mailer.send("ada@example.com", "Hello", "…"),
        mailer.send("ada@example.com", "Hello", "…"),
    }
    assert first == again
    assert len(others | {first}) == 5
    assert first.endswith("@example.com>")
    assert [mail["Message-ID"] for _, _, mail in server.mails[:2]] == [first, first]


def test_a_subject_cannot_add_a_header(server: FakeMailServer, mailer: Mailer) -> None:
    mailer.send("ada@example.com", "Hello\r\nBcc: eve@example.com\n", "…")
    [(_, receivers, mail)] = server.mails
    assert receivers == ["ada@example.com"]
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Hello Bcc: eve@example.com"


@pytest.mark.parametrize(
    "to", ["", "ada", "ada@", "ada@example.com, bob@example.com", "ada@example.com\nBcc: eve@example.com", "<>"]
)
def test_what_is_not_one_address_is_refused(server: FakeMailServer, mailer: Mailer, to: str) -> None:
    with pytest.raises(OutsideServiceError, match="mail address"):
        mailer.send(to, "Hello", "…")
    assert server.mails == []


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "END"])
@pytest.mark.parametrize(("code", "transient"), [("451 try later", True), ("550 no such user", False)])
def test_the_servers_code_tells_whether_another_try_may_help(
    server: FakeMailServer, mailer: Mailer, verb: str, code: str, transient: bool
) -> None:
    server.replies[verb] = code
    with pytest.raises(OutsideServiceError, match=code.split(maxsplit=1)[1]) as told:
        mailer.send("ada@example.com", "Hello", "…")
    assert isinstance(told.value, TransientServiceError) is transient
    assert not isinstance(told.value, UncertainServiceError)
    assert server.mails == []


def test_a_server_that_hangs_up_over_the_mail_leaves_it_uncertain(server: FakeMailServer, mailer: Mailer) -> None:
    server.replies["END"] = ""
    with pytest.raises(UncertainServiceError, match="broke off"):
        mailer.send("ada@example.com", "Hello", "…")


def test_a_quarrel_over_the_good_bye_does_not_undo_the_mail(server: FakeMailServer, mailer: Mailer) -> None:
    server.replies["QUIT"] = "500 what?"
    mailer.send("ada@example.com", "Hello", "…")
    server.replies["QUIT"] = ""
    mailer.send("ada@example.com", "Hello", "…")
    assert len(server.mails) == 2


def test_a_server_that_cannot_be_reached_has_certainly_sent_nothing() -> None:
    with pytest.raises(TransientServiceError) as told:
        Mailer("127.0.0.1", port=9, sender=SENDER, tls="none", timeout=1).send("ada@example.com", "Hello", "…")
    assert not isinstance(told.value, UncertainServiceError)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_mail_and_password_travel_encrypted(certificate: Path, tls: email.Encryption) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    with receiving(certificate, implicit=tls == "implicit") as server:
        mailer = Mailer(
            "localhost", port=server.port, user="ops", password="s3cret", sender=SENDER, tls=tls, context=trusting
        )
        mailer.send("ada@example.com", "Hello", "…")
        assert server.logins == [("\0ops\0s3cret", True)]
        assert server.encrypted == [True]


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(certificate: Path) -> None:
    with receiving(certificate) as server:
        mailer = Mailer("localhost", port=server.port, user="ops", password="s3cret", sender=SENDER)
        with pytest.raises(OutsideServiceError, match="cannot be trusted") as told:
            mailer.send("ada@example.com", "Hello", "…")
        assert not isinstance(told.value, TransientServiceError)
        assert server.logins == []
        assert server.mails == []


def test_a_server_without_encryption_gets_no_mail_that_asked_for_it(server: FakeMailServer) -> None:
    with pytest.raises(OutsideServiceError, match="STARTTLS"):
        Mailer("localhost", port=server.port, sender=SENDER).send("ada@example.com", "Hello", "…")
    assert server.mails == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mailer("localhost", sender=SENDER, tls="ssl"),  # type: ignore[arg-type]
        lambda: Mailer("localhost", sender=SENDER, user="ops", password="s3cret", tls="none"),
        lambda: Mailer("localhost", sender="nobody"),
    ],
    ids=["an encryption that nobody knows", "a password in clear", "a sender that is no address"],
)
def test_settings_that_do_not_fit_are_refused(make: Callable[[], Mailer]) -> None:
    with pytest.raises(SetupError):
        make()


def test_the_environment_names_the_server(server: FakeMailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMTP_HOST", raising=False)
    assert email.from_environment() is None
    settings = {"SMTP_HOST": "localhost", "SMTP_PORT": str(server.port), "SMTP_SENDER": SENDER, "SMTP_TLS": "none"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    mailer = email.from_environment()
    assert mailer is not None
    mailer.send("ada@example.com", "Hello", "…")
    assert len(server.mails) == 1
    monkeypatch.setenv("SMTP_PORT", "smtp")
    with pytest.raises(SetupError, match="SMTP_PORT"):
        email.from_environment()
