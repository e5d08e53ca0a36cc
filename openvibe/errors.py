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


class GateRejected(RunError):
    """A person said no at a gate that has no other way to go."""


class BusError(OpenVibeError):
    """The message bus did not take or did not keep a message."""
