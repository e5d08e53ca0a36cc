"""A model provider whose calls are told to a step's trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openvibe.llm.protocol import LLMProvider, LLMResponse
from openvibe.tracing import StepTrace


@dataclass(frozen=True)
class TracedProvider:
    """Asks another provider, and tells the trace what was asked and what came back."""

    asked: LLMProvider
    trace: StepTrace

    @property
    def name(self) -> str:
        """The other provider's name."""
        return self.asked.name

    @property
    def aliases(self) -> Mapping[str, str] | None:
        """The other provider's own aliases, if it has any."""
        return getattr(self.asked, "aliases", None)

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
