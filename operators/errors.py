"""Rules of the domain that refused something. One place turns each into an HTTP answer (`status`) or a reply."""

from __future__ import annotations

from typing import Any

from openvibe.errors import OpenVibeError


class DomainError(OpenVibeError):
    """A rule refused. `code` is for programs, the text for people, `detail` for both."""

    status = 409
    code = "conflict"

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt, (type(self), self.message, self.detail))


def _rebuilt(kind: type[DomainError], message: str, detail: dict[str, Any]) -> DomainError:
    return kind(message, **detail)


class Unknown(DomainError):
    """There is no such thing, or not for you."""

    status = 404
    code = "not_found"


class Misfit(DomainError):
    """The request is well formed, but its values do not fit. `errors` in the detail names field and type."""

    status = 422
    code = "invalid"


class KeyReused(DomainError):
    """The key of an earlier request came with another body."""

    status = 422
    code = "key_reused"


class RecursionTooDeep(DomainError):
    """Runs that start runs have gone round too often; the detail says how deep."""

    code = "recursion_depth_exceeded"


class RevisionMoved(DomainError):
    """A writer quoted a revision of a shared value that is not the latest."""

    code = "revision_moved"


class OperatorDisabled(DomainError):
    """An administrator has switched the operator off."""

    code = "operator_disabled"


class AgentBusy(DomainError):
    """The operator, or its project, plays as many runs as it may, and the request wanted to begin at once."""

    code = "agent_busy"


class OperatorExists(DomainError):
    """The id of a new operator is taken."""

    code = "operator_exists"


class OperatorInUse(DomainError):
    """The operator has runs that have not ended."""

    code = "operator_in_use"


class DefinedInCode(DomainError):
    """The operator comes from code or a file of the server, and only there can it be changed."""

    code = "defined_in_code"


class RunAlreadyEnded(DomainError):
    """The run has ended; nothing can change it."""

    code = "run_ended"


class NotRetryable(DomainError):
    """The run has not failed, or trying again would come to the same."""

    code = "not_retryable"


class NotForkable(DomainError):
    """The run has no state of that step to begin with."""

    code = "not_forkable"


class NotEntitled(DomainError):
    """It takes a right that nobody has by a role, and that this person was not granted."""

    status = 403
    code = "not_entitled"


class NotOverridable(DomainError):
    """The state at this gate cannot be changed; the run is to be cancelled, and forked before the gate."""

    code = "not_overridable"


class NotWaiting(DomainError):
    """The run waits for nobody."""

    code = "not_waiting"


class AlreadyDecided(DomainError):
    """Somebody else decided first; the detail says who, what and when."""

    code = "already_decided"


class NotAsked(DomainError):
    """The gate is asked of somebody else; the detail says of whom."""

    status = 403
    code = "not_asked"


class CountedAlready(DomainError):
    """The same person has answered in this group of gates; everybody counts once."""

    code = "counted_already"


class QuoteMismatch(DomainError):
    """The decision is about something else than what is open now."""

    code = "quote_mismatch"
