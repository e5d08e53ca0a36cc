"""What can go wrong, sorted by who must act: the author (`SetupError`) or whoever looks after this run (`RunError`)."""

from __future__ import annotations


class OpenVibeError(Exception):
    """The root of every error that OpenVibe raises on purpose."""


class SetupError(OpenVibeError):
    """A definition or a setting is wrong; the author must change code or configuration."""


class RunError(OpenVibeError):
    """This run cannot go on; the definition may still be right."""


class InputError(RunError):
    """Input does not fit the fields that it names.

    `problems` lists one `{"field", "message", "type"}` object for each misfit.
    """

    def __init__(self, message: str, problems: list[dict[str, str]]) -> None:
        super().__init__(message, problems)
        self.message = message
        self.problems = problems

    def __str__(self) -> str:
        return self.message


class WrongUpdate(RunError):
    """A node returned something that does not fit the operator's state fields."""


class ModelError(RunError):
    """A model could not be asked, or kept answering in a form that does not fit."""


class TransientModelError(ModelError):
    """A call that may succeed when tried again.

    `retry_after` is the pause in seconds that the provider asked for, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class StepTimeout(RunError):
    """One try of a step took longer than its node allows."""


class WorkflowTimeout(RunError):
    """The steps of a run took longer than its workflow allows."""


class ToolError(RunError):
    """A tool could not do what it was asked; the model is told so and goes on."""


class Backoff(RunError):
    """A step is to be tried again, after a pause in seconds that is too long to hold a thread for."""

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(seconds, reason)
        self.seconds, self.reason = seconds, reason

    def __str__(self) -> str:
        return f"Another try follows in {self.seconds:g} s, after: {self.reason}"


class EffectUnknown(RunError):
    """An act on the outside world was begun and not finished, and nothing can tell whether it happened."""

    def __init__(self, node: str, key: str, step_id: str, attempt: int) -> None:
        super().__init__(node, key, step_id, attempt)
        self.node, self.key, self.step_id, self.attempt = node, key, step_id, attempt

    def __str__(self) -> str:
        return f"Nobody can tell whether effect {self.key!r} of node {self.node!r} happened before the run broke off"


class GateRejected(RunError):
    """A person said no at a gate that has no other way to go."""


class BudgetRefused(RunError):
    """A person refused a run more money."""


class OutsideServiceError(RunError):
    """A service outside, such as a CRM or a mail server, refused a call and will refuse it again."""


class TransientServiceError(OutsideServiceError):
    """A service's call that may succeed when tried again.

    `retry_after` is the pause in seconds that the service asked for, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class UncertainServiceError(TransientServiceError):
    """A call went out and no clear answer came back: it may have been obeyed, so a repeat may do it twice."""


class BusError(OpenVibeError):
    """The message bus did not take or did not keep a message."""


class NoResponders(BusError):
    """Nobody serves the subject that a request was sent to."""


class RequestTimeout(BusError):
    """Somebody heard the request, and nobody answered in time."""


class RevisionConflict(BusError):
    """A kept value has another revision than the one that a write was made for."""


class ServiceError(BusError):
    """A request was answered with an error; a handler raises it to say which. `code` is a text such as `404`."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(code, description)
        self.code = code
        self.description = description

    def __str__(self) -> str:
        return f"{self.code}: {self.description}"
