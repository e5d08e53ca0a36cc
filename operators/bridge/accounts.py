"""The accounts of a NATS server as its configuration: users known by keys, and what crosses between accounts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from openvibe.protocol import accounts, readers

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


def text(projects: Sequence[str], keys: Mapping[str, str]) -> str:
    """Return the accounts; `keys` are the public keys of their users, by account."""
    return HEADER + "\n".join(
        [
            f"system_account: {accounts.SYSTEM}",
            "accounts {",
            f"  {accounts.SYSTEM} {{ users: [{{ nkey: {keys[accounts.SYSTEM]} }}] }}",
            *_openvibe(projects, keys[accounts.OPENVIBE]),
            *[line for project in projects for line in _agents(project, keys[accounts.account(project)])],
            "}",
            "",
        ]
    )


def _openvibe(projects: Sequence[str], key: str) -> Iterator[str]:
    yield f"  {accounts.OPENVIBE} {{"
    yield "    jetstream: enabled"
    yield f"    users: [{{ nkey: {key} }}]"
    yield "    exports: ["
    for project in projects:
        only = f"accounts: [{accounts.account(project)}]"
        for subject in accounts.said(project):
            yield f"      {{ service: {_quoted(subject)}, {only} }}"
        for subject, many in {item.subject: item.many for item in readers.passages(project)}.items():
            answers = "response_type: stream, " if many else ""
            yield f"      {{ service: {_quoted(subject)}, {answers}{only} }}"
        for subject in accounts.heard(project):
            yield f"      {{ stream: {_quoted(subject)}, {only} }}"
    yield "    ]"
    yield "  }"


def _agents(project: str, key: str) -> Iterator[str]:
    said, heard, passages = accounts.said(project), accounts.heard(project), readers.passages(project)
    yield f"  {accounts.account(project)} {{"
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
