"""The accounts of a NATS server as its configuration: users known by keys, and what crosses between accounts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from openvibe.protocol import accounts
from openvibe.protocol.accounts import Account

HEADER = "# Made by `manage.py credentials` from openvibe/protocol/accounts.py; a change belongs there.\n"

SERVER = """\
# Made by `manage.py credentials` once; change what you like, such as ports, disk and a cluster's routes.
port: 4222
max_payload: 1MB

tls {
  cert_file: "server.pem"
  key_file: "server.key"
  ca_file: "ca.pem"
  timeout: 5
}

jetstream {
  store_dir: "jetstream"
}

include "accounts.conf"
"""

#: What a server of a cluster has besides. Whoever has no certificate of the same CA is no other server of it.
CLUSTER = """\
# Made by `manage.py credentials`. Each server needs a name of its own: nats-server -c server.conf -n n1
cluster {
  name: "openvibe"
  port: 6222
  tls {
    cert_file: "server.pem"
    key_file: "server.key"
    ca_file: "ca.pem"
    verify: true
    timeout: 5
  }
  routes: [%s]
}
"""
CLUSTERED = 'include "cluster.conf"\n'


def server(*, clustered: bool) -> str:
    """Return the configuration of a server, alone or of a cluster."""
    return SERVER + CLUSTERED if clustered else SERVER


def cluster(routes: Sequence[str]) -> str:
    """Return what makes a server one of a cluster; `routes` are host and port of each of its servers."""
    return CLUSTER % ", ".join(_quoted(f"tls://{route}") for route in routes)


def text(found: Sequence[Account], keys: Mapping[str, str]) -> str:
    """Return the accounts, those outside OpenVibe's as they are told; `keys` are the users' public keys, by account."""
    return HEADER + "\n".join(
        [
            f"system_account: {accounts.SYSTEM}",
            "accounts {",
            f"  {accounts.SYSTEM} {{ users: [{{ nkey: {keys[accounts.SYSTEM]} }}] }}",
            *_openvibe(found, keys[accounts.OPENVIBE]),
            *[line for account in found for line in _outside(account, keys[account.name])],
            "}",
            "",
        ]
    )


def _openvibe(found: Sequence[Account], key: str) -> Iterator[str]:
    yield f"  {accounts.OPENVIBE} {{"
    yield "    jetstream: enabled"
    yield f"    users: [{{ nkey: {key} }}]"
    yield "    exports: ["
    for subject, names in _shared((row.name, row.said) for row in found):
        yield f"      {{ service: {_quoted(subject)}, accounts: [{names}] }}"
    many = {item.subject for row in found for item in row.passages if item.many}
    for subject, names in _shared((row.name, [item.subject for item in row.passages]) for row in found):
        answers = "response_type: stream, " if subject in many else ""
        yield f"      {{ service: {_quoted(subject)}, {answers}accounts: [{names}] }}"
    for subject, names in _shared((row.name, row.heard) for row in found):
        yield f"      {{ stream: {_quoted(subject)}, accounts: [{names}] }}"
    yield "    ]"
    yield "  }"


def _shared(rows: Iterable[tuple[str, Iterable[str]]]) -> Iterator[tuple[str, str]]:
    """Return each subject once, with the names of all accounts to which it is exported."""
    found: dict[str, list[str]] = {}
    for name, subjects in rows:
        for subject in dict.fromkeys(subjects):
            found.setdefault(subject, []).append(name)
    return ((subject, ", ".join(names)) for subject, names in found.items())


def _outside(account: Account, key: str) -> Iterator[str]:
    said, heard, passages = account.said, account.heard, account.passages
    yield f"  {account.name} {{"
    yield "    users: [{"
    yield f"      nkey: {key}"
    yield "      permissions: {"
    # Refused by name, and not only heard by nobody.
    yield f"        publish: {{ allow: [{_listed((*said, *(item.name for item in passages)))}] }}"
    yield f"        subscribe: {{ allow: [{_listed((*heard, *said, '_INBOX.>'))}] }}"
    yield "        allow_responses: true"
    yield "      }"
    yield "    }]"
    yield "    imports: ["
    for subject in said:
        yield f"      {{ service: {{ account: {accounts.OPENVIBE}, subject: {_quoted(subject)} }} }}"
    for item in passages:
        called = f", to: {_quoted(item.name)}" if item.name != item.subject else ""
        yield f"      {{ service: {{ account: {accounts.OPENVIBE}, subject: {_quoted(item.subject)} }}{called} }}"
    for subject in heard:
        yield f"      {{ stream: {{ account: {accounts.OPENVIBE}, subject: {_quoted(subject)} }} }}"
    yield "    ]"
    yield "  }"


def _listed(subjects: Sequence[str]) -> str:
    return ", ".join(map(_quoted, dict.fromkeys(subjects)))


def _quoted(subject: str) -> str:
    return json.dumps(subject)
