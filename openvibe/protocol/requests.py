"""Requests between operators: where they go, what their headers say, and where their answers are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping

from openvibe.protocol import tenancy
from openvibe.protocol.subjects import VERSION, Subject, parse, thread, token

#: How long whoever asks waits for the answer, in seconds.
TIMEOUT = "OpenVibe-Timeout"
#: The `cmd` subject on which the answer is kept, because an inbox dies with its process.
ANSWER_TO = "OpenVibe-Answer-To"
#: The server of ours that sent a message.
SERVER = "OpenVibe-Server"
#: Where answers are kept.
ANSWERS = f"cg.{VERSION}.*.*.cmd.sys.reply.*"

DEFAULT_SECONDS = 60.0
MOST_SECONDS = 3600.0


def subject(project: str, operator: str, capability: str) -> str:
    """Return where an operator of a project is asked for a capability."""
    return tenancy.outward(project, f"operators.{token(operator)}.request.{token(capability)}")


def every(project: str, operator: str) -> str:
    """Return the pattern of all requests to an operator."""
    return tenancy.outward(project, f"operators.{token(operator)}.request.>")


def heartbeat(project: str, operator: str) -> str:
    """Return where an operator's server says that it lives."""
    return tenancy.outward(project, f"operators.{token(operator)}.heartbeat")


def answerable(answer_to: str, project: str) -> bool:
    """Tell whether an answer may be kept on this subject: we may publish everywhere, and lend that to nobody."""
    found = parse(answer_to)
    if found is None or found.project != token(project):
        return False
    # What is no token the bus would refuse, however often one tries; or it would be a pattern.
    if any(token(part) != part for part in (found.channel, found.suffix)):
        return False
    return (found.category, found.component, found.target) == ("cmd", "sys", "reply")


def answer(project: str, run_id: str, wait_id: str) -> str:
    """Return where the answer that a run waits for is kept."""
    return str(Subject(project, thread(run_id), "cmd", "sys", "reply", token(wait_id)))


def seconds(headers: Mapping[str, str], *, default: float) -> float:
    """Return how long whoever asks waits; `default` where nobody said, or said it wrongly."""
    try:
        found = float(headers.get(TIMEOUT, ""))
    except ValueError:
        return default
    return min(max(found, 0.0), MOST_SECONDS) if math.isfinite(found) else default
