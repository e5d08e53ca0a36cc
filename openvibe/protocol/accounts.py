"""Who may say and hear what on NATS: one account for OpenVibe, and one for the agents of each project.

Streams and buckets lie in OpenVibe's account. An agents' account holds nothing; it reaches what this table names, and
what `readers` names of durable readers and buckets.
"""

from __future__ import annotations

from openvibe.protocol import readers, tenancy
from openvibe.protocol.sessions import HEALTH
from openvibe.protocol.streams import consumers
from openvibe.protocol.subjects import VERSION, token

OPENVIBE, SYSTEM = "OPENVIBE", "SYSTEM"


def account(project: str) -> str:
    """Return the name of the account of a project's agents."""
    return f"agents-{token(project)}"


def said(project: str) -> tuple[str, ...]:
    """Return the subjects on which a project's agents may publish: what the bridge reads of it, words, requests."""
    read = {pattern for consumer in consumers() for pattern in consumer.patterns}
    canonical = {_of(project, pattern) for pattern in read if pattern.startswith("cg.")}
    others = {pattern for pattern in read if not pattern.startswith("cg.")}
    own = {pattern for pattern in others if tenancy.inward(pattern)[0] == tenancy.DEFAULT}
    passing = {f"cg.{VERSION}.{token(project)}.*.str.agent.>"}
    own |= {"operators.*.request.*", HEALTH}
    return tuple(sorted(canonical | passing | {tenancy.outward(project, pattern) for pattern in own}))


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


def _of(project: str, pattern: str) -> str:
    """Return a canonical pattern for one project in place of all."""
    head, version, _, rest = pattern.split(".", 3)
    return f"{head}.{version}.{token(project)}.{rest}"
