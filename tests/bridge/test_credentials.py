"""What `manage.py credentials` writes: keys that stay, certificates with all names, and the example in `deploy/`."""

from __future__ import annotations

import dataclasses
import io
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from django.core.management import call_command

from openvibe.bus import nkeys
from operators.management.commands import credentials

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "nats"


def test_credentials_are_private_and_kept_when_a_project_is_added(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    call_command("credentials", str(folder), host=["nats.example.com"], project=["default"])
    kept = {name: (folder / name).read_bytes() for name in ("openvibe-site.nk", "system.nk", "ca.pem", "ca.key")}
    (folder / "server.conf").write_text("# mine\n")
    call_command("credentials", str(folder), host=["nats.example.com"], project=["default", "acme"])
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert (folder / "server.conf").read_text() == "# mine\n"
    text = (folder / "accounts.conf").read_text()
    for account in ("agents-default", "approvers-default", "agents-acme", "approvers-acme"):
        assert nkeys.read(folder / f"{account}.nk").public in text
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "SU" not in {line.strip()[:2] for line in text.splitlines()}


def test_a_cluster_is_written_with_the_names_of_all_its_servers(tmp_path: Path) -> None:
    told, folder = io.StringIO(), tmp_path / "nats"
    routes = ["n1.example.com:6222", "n2.example.com:6222"]
    call_command("credentials", str(folder), route=routes, stdout=told, stderr=told)
    assert 'routes: ["tls://n1.example.com:6222", "tls://n2.example.com:6222"]' in (folder / "cluster.conf").read_text()
    assert 'include "cluster.conf"' in (folder / "server.conf").read_text()
    certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"n1.example.com", "n2.example.com"} < set(names.get_values_for_type(x509.DNSName))
    assert "lacks this line" not in told.getvalue()
    (folder / "server.conf").write_text("# mine\n")
    call_command("credentials", str(folder), route=routes, stdout=told, stderr=told)
    assert 'lacks this line: include "cluster.conf"' in told.getvalue()


@pytest.mark.parametrize("name", ["accounts.conf", "cluster.conf", "server.conf"])
def test_the_configuration_in_deploy_is_current(name: str) -> None:
    assert (DEPLOY / name).read_text("utf-8") == credentials.example()[name]


def test_keys_have_the_form_that_nats_gives_them() -> None:
    # A pair from NATS's own documents.
    seed = "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
    known = nkeys._user(nkeys._raw(seed))
    assert (known.seed, known.public) == (seed, "UAT6BWCSCWLUKJT6K6MBJJOEOTXZ5AJDOYKNEVRFC7VNO6OA43N4TRNO")
    with pytest.raises(ValueError, match="checksum"):
        nkeys._raw(seed[:-1] + "A")


def test_agents_may_speak_by_the_prefixes_that_are_set(tmp_path: Path, settings: Any) -> None:
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, workflow_prefix=("argo.workflow",))
    call_command("credentials", str(tmp_path), project=["acme"])
    text = (tmp_path / "accounts.conf").read_text()
    assert '{ service: "tenant.acme.argo.workflow.>", accounts: [agents-acme] }' in text
    assert '"tenant.acme.workflow.>"' not in text
