"""What goes to a model and what comes back, whichever vendor answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol

Role = Literal["user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Tool:
    """Something a model may call. `schema` is the JSON Schema of its arguments, an object.

    Vendors take letters, digits, `_` and `-` in `name`, 64 at most.
    """

    name: str
    description: str
    schema: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"name": self.name, "description": self.description, "schema": dict(self.schema)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tool:
        """Return the tool that `as_json` wrote."""
        return cls(data["name"], data["description"], data["schema"])


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to have a tool called. `id` ties the result to it; the arguments may misfit the tool's schema."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"id": self.id, "name": self.name, "arguments": dict(self.arguments)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolCall:
        """Return the call that `as_json` wrote."""
        return cls(data["id"], data["name"], data.get("arguments") or {})


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation after its first question.

    An assistant's turn may carry `calls`; each is answered by a `tool` turn that bears its `call_id`, and `error` when
    the tool failed and `content` tells how.
    """

    role: Role
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    error: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, as checkpoints keep it."""
        return {
            "role": self.role,
            "content": self.content,
            "calls": [call.as_json() for call in self.calls],
            "call_id": self.call_id,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Turn:
        """Return the turn that `as_json` wrote."""
        calls = tuple(ToolCall.from_json(call) for call in data.get("calls") or ())
        return cls(data["role"], data.get("content", ""), calls, data.get("call_id", ""), data.get("error", False))


@dataclass(frozen=True, slots=True)
class LLMResponse:
    """A model's whole answer. `cost_usd` is None when the price of `model` is not known, never zero then.

    `tokens_in` counts everything the model read; `tokens_cached` of those came from the vendor's cache, at its lower
    price. `simulated` says that no model was asked.
    """

    content: str
    tokens_in: int
    tokens_out: int
    model: str
    cost_usd: Decimal | None
    simulated: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    tokens_cached: int = 0


class LLMProvider(Protocol):
    """What a model vendor must offer. Implementations are thread-safe and keep their own pooled client.

    A provider may have `aliases`, a mapping of short names to its exact ids, which go before OpenVibe's own. Write your
    own with `complete` plain or `async`; one that takes only `system`, `user`, `model` and `max_tokens` will do where
    no tools are used (`openvibe.llm.adapted` says what it lacks).
    """

    name: str

    def complete(
        self,
        *,
        system: str,
        user: str,
        model: str,
        max_tokens: int = 4096,
        temperature: float | None = None,
        schema: Mapping[str, Any] | None = None,
        on_words: Callable[[str], None] | None = None,
        history: Sequence[Turn] = (),
        tools: Sequence[Tool] = (),
    ) -> LLMResponse:
        """Ask once and return the whole answer, handing out its words as they arrive.

        `schema` is a JSON Schema that the answer must obey, enforced where the vendor can, else told to the model.
        `history` holds the turns after the first question, which is `user`. `temperature` is left out for models that
        have none. An error that `on_words` raises ends the call at the vendor too, and passes through as it is.

        Raises:
            TransientModelError: the same call may succeed later.
            ModelError: it will not.
        """
        ...
