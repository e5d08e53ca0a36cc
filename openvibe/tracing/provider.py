"""A model provider whose calls are told to a step's trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openvibe.llm.protocol import LLMProvider, LLMResponse
from openvibe.tracing import StepTrace


class TracedProvider:
    """Asks another provider, and tells the trace what was asked and what came back."""

    def __init__(self, asked: LLMProvider, trace: StepTrace) -> None:
        self.asked, self.trace = asked, trace
        self.name = asked.name
        self.aliases: Mapping[str, str] | None = getattr(asked, "aliases", None)

    def complete(self, *, system: str, user: str, model: str, **options: Any) -> LLMResponse:
        """Ask once (see `LLMProvider.complete`)."""
        told = {"model": model, "provider": self.name, "system": system, "user": user}
        with self.trace.call(**told, history=options.get("history", ())) as call:
            response = self.asked.complete(system=system, user=user, model=model, **options)
            call.answered(
                response.content,
                tokens_in=response.tokens_in,
                tokens_out=response.tokens_out,
                cost_usd=response.cost_usd,
                model=response.model,
                tool_calls=response.tool_calls,
            )
        return response
