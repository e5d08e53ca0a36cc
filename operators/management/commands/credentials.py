"""`manage.py credentials <folder>`: everything that a NATS server of one's own needs to be closed to strangers."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from openvibe.bus import nkeys
from openvibe.protocol import accounts as table
from openvibe.protocol import tenancy
from openvibe.protocol.workflow import PREFIX
from operators.bridge import accounts, certificates
from operators.bridge.certificates import Signed


class Command(BaseCommand):
    """Writes a CA, a server's certificate and configuration, and a key for each account. Keys that exist are kept."""

    requires_system_checks = []
    help = "Write CA, certificate, configuration and one key per account for a NATS server with TLS and accounts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the folder, the server's names, and the projects whose agents get an account."""
        parser.add_argument("folder", type=Path)
        parser.add_argument("--host", action="append", default=[], help="a name or address of a server (repeat)")
        parser.add_argument("--project", action="append", default=[], help="a project whose agents connect (repeat)")
        route = (
            "host:port at which the other servers of a cluster reach one of them, such as n1.example.com:6222 (repeat)"
        )
        parser.add_argument("--route", action="append", default=[], help=route)

    def handle(
        self, *args: Any, folder: Path, host: list[str], project: list[str], route: list[str], **options: Any
    ) -> None:
        """Do it, and tell where things are."""
        reached = host or ["localhost", "127.0.0.1", *(item.rpartition(":")[0] for item in route)]
        prefixes = settings.OPENVIBE.workflow_prefix
        write(folder, hosts=reached, projects=project or [tenancy.DEFAULT], routes=route, prefixes=prefixes)
        self.stdout.write(f"the server: cd {folder} && nats-server -c server.conf{' -n <its name>' if route else ''}")
        if route and accounts.CLUSTERED not in (folder / "server.conf").read_text("utf-8"):
            self.stderr.write(f"{folder / 'server.conf'} was there and lacks this line: {accounts.CLUSTERED.strip()}")
        self.stdout.write(f"OpenVibe: NATS_CREDENTIALS={folder / 'openvibe-site.nk'} NATS_CERT_DIR={folder}")
        for name in project or [tenancy.DEFAULT]:
            self.stdout.write(f"agents of {name}: {folder / key_file(table.account(name))}, with {folder / 'ca.pem'}")
            approvers = folder / key_file(table.approvers(name))
            self.stdout.write(f"approvers of {name}, no agent of theirs: {approvers}, with {folder / 'ca.pem'}")


def write(
    folder: Path,
    *,
    hosts: Sequence[str],
    projects: Sequence[str],
    routes: Sequence[str] = (),
    prefixes: Sequence[str] = (PREFIX,),
) -> None:
    """Write the files. What may be known to others lies beside what may not, which its owner alone can read.

    `routes` are those of a cluster, each of whose servers gets a copy of the folder. External workflow runtimes may
    speak by these prefixes.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = _authority(folder)
    server = certificates.server(authority, hosts)
    _private(folder / "server.pem", server.certificate)
    _private(folder / "server.key", server.key)
    outside = [row for project in projects for row in table.outside(project, prefixes)]
    names = [table.SYSTEM, table.OPENVIBE, *(row.name for row in outside)]
    keys = {name: _user(folder / key_file(name)).public for name in names}
    _private(folder / "accounts.conf", accounts.text(outside, keys).encode())
    if not (folder / "server.conf").exists():
        _private(folder / "server.conf", accounts.server(clustered=bool(routes)).encode())
    if routes:
        _private(folder / "cluster.conf", accounts.cluster(routes).encode())


def example() -> dict[str, str]:
    """Return the configuration of a cluster with one project, as `deploy/nats/` shows it: with the names of keys."""
    outside = table.outside(tenancy.DEFAULT)
    names = [table.SYSTEM, table.OPENVIBE, *(row.name for row in outside)]
    keys = {name: f"<the public key of {key_file(name)}>" for name in names}
    return {
        "accounts.conf": accounts.text(outside, keys),
        "cluster.conf": accounts.cluster([f"n{number}.example.com:6222" for number in (1, 2, 3)]),
        "server.conf": accounts.server(clustered=True),
    }


def key_file(account: str) -> str:
    """Return the name of the file with the seed of an account's user."""
    return {table.SYSTEM: "system.nk", table.OPENVIBE: "openvibe-site.nk"}.get(account, f"{account}.nk")


def _authority(folder: Path) -> Signed:
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not (certificate.exists() and key.exists()):
        made = certificates.authority()
        _private(certificate, made.certificate)
        _private(key, made.key)
    return Signed(certificate.read_bytes(), key.read_bytes())


def _user(path: Path) -> nkeys.User:
    if not path.exists():
        _private(path, f"{nkeys.new().seed}\n".encode())
    return nkeys.read(path)


def _private(path: Path, content: bytes) -> None:
    # Made private before anything is written; a file that is there keeps its name, for a server that watches it.
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)
