"""Subjects of the canonical dialect: `cg.{ver}.{project}.{channel}.{category}.{component}.{target}.{suffix}`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

VERSION = "v1"
PUBLIC = "public"
#: How the name of a user's channel begins.
PERSONAL = "u_"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Subject:
    """A canonical subject, taken apart. `suffix` may hold dots."""

    project: str
    channel: str
    category: str
    component: str
    target: str
    suffix: str

    def __str__(self) -> str:
        return (
            f"cg.{VERSION}.{token(self.project)}.{token(self.channel)}."
            f"{self.category}.{self.component}.{token(self.target)}.{self.suffix}"
        )


def parse(text: str) -> Subject | None:
    """Take a canonical subject apart; None if it is none of this version."""
    parts = text.split(".", 7)
    if len(parts) < 8 or parts[0] != "cg" or parts[1] != VERSION:
        return None
    return Subject(*parts[2:])


def token(text: str) -> str:
    """Return `text` if it may stand as one subject token, else a hash that may."""
    return text if _TOKEN.fullmatch(text) else _hashed(text)


def _hashed(text: str) -> str:
    return f"h_{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def thread(run_id: str) -> str:
    """Return the channel of one run."""
    return f"t_{token(run_id)}"


def is_thread(channel: str) -> bool:
    """Tell whether a channel is that of one run."""
    return channel.startswith("t_")


def personal(user: str) -> str:
    """Return the channel of one user."""
    name = f"{PERSONAL}{user}"
    return name if _TOKEN.fullmatch(name) else f"{PERSONAL}{_hashed(user)}"


def recorded(project: str, channel: str) -> str:
    """Where the events that the database holds are announced; only OpenVibe's own account may publish here."""
    return str(Subject(project, channel, "evt", "sys", "timeline", "recorded"))


def recorded_everywhere(channel: str) -> str:
    """The pattern that hears what is announced on this channel of every project."""
    return f"cg.{VERSION}.*.{token(channel)}.evt.sys.timeline.recorded"


def chunk(project: str, channel: str, operator: str) -> str:
    """Where a model's words pass by, lossily."""
    return str(Subject(project, channel, "str", "agent", operator, "chunk"))


def stirred(project: str) -> str:
    """Where it passes by, lossily, that runs of a project have fallen asleep or gone on."""
    return str(Subject(project, PUBLIC, "str", "sys", "runs", "stirred"))


def words(project: str, channel: str) -> str:
    """The pattern that hears all passing words of a channel."""
    return f"cg.{VERSION}.{token(project)}.{token(channel)}.str.>"


def operator_event(name: str) -> str:
    """Where an operator's event goes; `name` is its canonical name, `<operator>.<type>`."""
    operator, _, kind = name.partition(".")
    return f"operators.{token(operator)}.events.{token(kind)}"


def tool(project: str, run_id: str, tool: str, act: str) -> str:
    """Return where a tool that somebody elsewhere performs hears of a `call`, or that it is to `cancel` one."""
    return str(Subject(project, thread(run_id), "cmd", "tool", tool, act))


def inbox(project: str, channel: str, agent: str, kind: str) -> str:
    """Return where something is put into an agent's inbox."""
    return str(Subject(project, channel, "cmd", "agent", agent, kind))
