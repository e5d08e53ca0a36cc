"""Who may say and hear what on NATS: one account for OpenVibe, and for each project one of agents and one of approvers.

Streams and buckets lie in OpenVibe's account. An account outside it holds nothing; it reaches what this table names,
and what `readers` names of durable readers and buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openvibe.protocol import actions, readers, tenancy
from openvibe.protocol.readers import Passage
from openvibe.protocol.sessions import HEALTH
from openvibe.protocol.streams import consumers
from openvibe.protocol.subjects import VERSION, token
from openvibe.protocol.workflow import PREFIX

OPENVIBE, SYSTEM = "OPENVIBE", "SYSTEM"
#: What is said in the name of a person whom the message itself names: an agent could approve its own work by it, or
#: recommend it in the words of whoever is believed.
PERSONAL = (
    "sessions.*.approvals",
    "sessions.*.approvals.*",
    actions.PATTERN,
    f"cg.{VERSION}.*.*.evt.user.*.>",
)


@dataclass(frozen=True)
class Account:
    """An account outside OpenVibe's: the subjects on which it publishes and hears, and what it uses there besides."""

    name: str
    said: tuple[str, ...]
    heard: tuple[str, ...]
    passages: tuple[Passage, ...]


def outside(project: str, prefixes: Sequence[str] = (PREFIX,)) -> tuple[Account, ...]:
    """Return a project's accounts, where the dialect `workflow` goes by these prefixes."""
    return (
        Account(account(project), said(project, prefixes), heard(project), readers.passages(project)),
        Account(approvers(project), decided(project), asked(project), readers.reading(project, "sessions")),
    )


def account(project: str) -> str:
    """Return the name of the account of a project's agents."""
    return f"agents-{token(project)}"


def approvers(project: str) -> str:
    """Return the name of the account of those who speak in people's names: approvers, and user interfaces."""
    return f"approvers-{token(project)}"


def said(project: str, prefixes: Sequence[str] = (PREFIX,)) -> tuple[str, ...]:
    """Return the subjects on which a project's agents may publish: what the bridge reads of it, words, requests."""
    read = {pattern for consumer in consumers(prefixes) for pattern in consumer.patterns}
    own = {pattern for pattern in read if tenancy.inward(pattern)[0] == tenancy.DEFAULT}.difference(PERSONAL)
    passing = {f"cg.{VERSION}.*.*.str.agent.>", "operators.*.request.*", HEALTH}
    return tuple(sorted(_of(project, pattern) for pattern in own | passing))


def decided(project: str) -> tuple[str, ...]:
    """Return the subjects on which a project's approvers may publish."""
    return tuple(_of(project, pattern) for pattern in PERSONAL)


def heard(project: str) -> tuple[str, ...]:
    """Return the subjects on which a project's agents hear what OpenVibe publishes."""
    canonical = ("evt.sys.>", "evt.agent.>", "cmd.agent.>", "cmd.tool.>", "str.>")
    dialects = (
        "operators.*.events.>",
        "sessions.*.work",
        "sessions.*.work.*",
        "sessions.*.approvals",
        "sessions.*.events",
        "operators.*.heartbeat",
        HEALTH,
    )
    return (
        *(f"cg.{VERSION}.{token(project)}.*.{suffix}" for suffix in canonical),
        *(tenancy.outward(project, pattern) for pattern in dialects),
        *readers.followed(project),
    )


def asked(project: str) -> tuple[str, ...]:
    """Return the subjects on which a project's approvers hear what OpenVibe asks, and what came of what they decide."""
    told = (f"cg.{VERSION}.*.*.evt.sys.>", "sessions.*.approvals", "sessions.*.events")
    return tuple(_of(project, pattern) for pattern in told)


def _of(project: str, pattern: str) -> str:
    """Return a pattern for one project: a canonical one names it in place of all."""
    if not pattern.startswith("cg."):
        return tenancy.outward(project, pattern)
    head, version, _, rest = pattern.split(".", 3)
    return f"{head}.{version}.{token(project)}.{rest}"
