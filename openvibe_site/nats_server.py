"""The embedded nats-server: where its binary, port, password and configuration come from."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from openvibe.protocol import streams
from openvibe_site import ports
from openvibe_site.errors import CannotStart
from openvibe_site.home import Home, kept_secret, write_private

# Only OpenVibe's own account says what was recorded, and nobody else may take a stream or its reader away from it.
# Agents come without credentials and may do everything else.
CONFIG = """\
# Written by OpenVibe at every start; changes are lost.
host: {host}
port: {port}
server_name: "openvibe"
max_payload: 1MB

jetstream {{
  store_dir: {store}
  max_file_store: 1GB
  max_memory_store: 256MB
}}

authorization {{
  users: [
    {{ user: "openvibe", password: {password} }}
    {{
      user: "agent"
      password: {agent_password}
      permissions: {{
        publish: {{
          deny: [
            {denied}
          ]
        }}
      }}
    }}
  ]
}}
no_auth_user: "agent"
"""

DENIED = (
    "cg.*.*.*.evt.sys.>",
    *(f"$JS.API.STREAM.{act}.>" for act in ("DELETE", "PURGE", "UPDATE", "MSG.DELETE")),
)
#: What would take messages from the bridge: its reader's place in JetStream's API, and its acknowledgements.
DENIED_OF_READERS = (
    *(f"$JS.API.CONSUMER.{act}.*.{{reader}}" for act in ("DELETE", "MSG.NEXT", "CREATE", "DURABLE.CREATE", "PAUSE")),
    "$JS.API.CONSUMER.CREATE.*.{reader}.>",
    "$JS.ACK.*.{reader}.>",
    "$JS.ACK.*.*.*.{reader}.>",
)


@dataclass(frozen=True)
class NatsServer:
    """A configuration on disk that is ready to be started."""

    command: tuple[str, ...]
    port: int
    public_url: str
    private_url: str


def configure(home: Home, *, server: str = streams.DEFAULT_SERVER) -> NatsServer:
    """Writes the configuration; port and password stay the same as long as the home does, where that is possible.

    `server` is the name of this server of ours.
    """
    reader = streams.durable(streams.CONSUMERS[0], server)
    denied = [*DENIED, *(subject.format(reader=reader) for subject in DENIED_OF_READERS)]
    binary = find_binary()
    port = ports.free(preferred=_earlier_port(home))
    password = kept_secret(home.nats / "password")
    config = home.nats / "server.conf"
    write_private(home.nats / "port", str(port))
    write_private(
        config,
        CONFIG.format(
            host=ports.LOOPBACK,
            port=port,
            store=_quoted(str(home.nats / "store")),
            password=_quoted(password),
            agent_password=_quoted(kept_secret(home.nats / "agent_password")),
            denied="\n            ".join(map(_quoted, denied)),
        ),
    )
    return NatsServer(
        command=(binary, "-c", str(config)),
        port=port,
        public_url=f"nats://{ports.LOOPBACK}:{port}",
        private_url=f"nats://openvibe:{password}@{ports.LOOPBACK}:{port}",
    )


def find_binary() -> str:
    """The one that came with this environment's packages first, else any on PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = shutil.which(str(beside)) or shutil.which("nats-server")
    if found is None:
        raise CannotStart(
            "nats-server is missing: run `make run`, which installs it, put it on PATH, "
            "or set NATS_URL to a server that runs already."
        )
    return found


def _earlier_port(home: Home) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((home.nats / "port").read_text(encoding="ascii"))
    return 0


def _quoted(words: str) -> str:
    return json.dumps(words, ensure_ascii=False)
