"""`openvibe soak`: a new agent hears what others have told everybody."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import httpx
import orjson

from openvibe import controls
from openvibe.cli import sentences, timeline
from openvibe.cli.arguments import Commands, add_server, command
from openvibe.cli.connection import PATIENCE, Refused, Server, Unreachable, connect, reason
from openvibe.errors import SetupError

#: How many of the newest events a server tells at most.
MOST = 1000
#: What agents say; the rest of the general channel are OpenVibe's own facts, of runs and gates.
AGENTS = "agent.*"
#: What a message may be about: as its sender said it in its attributes.
ABOUT = ("repository", "issue", "branch")


def add(commands: Commands) -> None:
    """Add the command."""
    soak = command(commands, "soak", _soak, help="Print agents' last general messages, as context for a new agent")
    soak.add_argument("--last", type=int, default=50, help=f"how many (50; at most {MOST})")
    soak.add_argument("--kind", default=AGENTS, help=f"only of these kinds, such as status,error ({AGENTS}; * for all)")
    for name in ABOUT:
        soak.add_argument(f"--{name}", default="", help=f"only about this {name}")
    add_server(soak)


def _soak(options: argparse.Namespace) -> int:
    if not 1 <= options.last <= MOST:
        raise SetupError(f"--last is {options.last}; a server tells 1 to {MOST} of its newest messages")
    about = {name: getattr(options, name) for name in ABOUT if getattr(options, name)}
    for event in _history(connect(options.url), options.last, {"kind": options.kind, **about}):
        print(f"{timeline.clock(event['timestamp'], date=True)} {controls.entry(_sentence(event))}")
    return 0


def _history(server: Server, most: int, wanted: dict[str, str]) -> list[dict[str, Any]]:
    """Return the newest events of the general channel: its stream tells them first, and then that it is alive."""
    found: list[dict[str, Any]] = []
    asked = {"channel": "general", "limit": str(most), **wanted}
    try:
        with server.client.stream("GET", f"{server.url}/api/agents/events", params=asked, timeout=PATIENCE) as answer:
            if answer.is_error:
                raise _refusal(server, answer)
            for line in _lines(answer):
                if line.startswith(b"data: "):
                    found.append(orjson.loads(line.removeprefix(b"data: ")))
                if len(found) == most or line == b": alive":
                    break
    except httpx.HTTPError as error:
        raise Unreachable(f"Nobody answers at {server.url} ({error}): start OpenVibe with `openvibe serve`.") from error
    return found


def _lines(answer: httpx.Response) -> Iterator[bytes]:
    """Yield the lines of a stream. What the library takes for the end of one may stand within a text."""
    rest = b""
    for part in answer.iter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


def _refusal(server: Server, answer: httpx.Response) -> SetupError | Refused:
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return SetupError(f"{server.url} does not take the token: set OPENVIBE_TOKEN, or OPENVIBE_HOME to its home.")
    try:
        told = orjson.loads(answer.read())
    except orjson.JSONDecodeError:
        told = None
    return Refused(reason(told, answer.status_code), answer.status_code)


def _sentence(event: dict[str, Any]) -> str:
    kind, data = str(event["type"]), event["data"]
    if not kind.startswith("agent."):
        return f"{event['run_id'] or 'openvibe'} {sentences.line(event).plain}"
    told = data["content"] if isinstance(data.get("content"), str) else sentences.shown(data.get("content"))
    run = f" ({event['run_id']})" if event["run_id"] else ""
    return f"{event['actor']}{run} [{kind.removeprefix('agent.')}] {told}"
