"""Claude, through Anthropic's own SDK: streaming, structured output, and errors in OpenVibe's words."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import anthropic
import httpx2

from openvibe.errors import ModelError, SetupError, TransientModelError
from openvibe.llm import LLMResponse, prices

#: Status codes that Anthropic documents as worth another try: overload, rate limits and its own faults.
_TRANSIENT = {408, 409, 429}


class AnthropicProvider:
    """Asks Claude. One client, hence one connection pool, for all threads of the process.

    The SDK's own retries are off: the engine tries again where the timeline can show it.
    """

    name = "anthropic"

    def __init__(self, *, api_key: str | None = None, base_url: str | None = None, timeout: float = 600.0) -> None:
        key = api_key or os.environ.get("ANTHROPIC_API_KEY")
        if not key:
            raise SetupError(
                "OPENVIBE_LLM=anthropic needs a key: "
                "set ANTHROPIC_API_KEY, or use OPENVIBE_LLM=simulated to work offline"
            )
        self._client = anthropic.Anthropic(api_key=key, base_url=base_url, timeout=timeout, max_retries=0)

    def complete(
        self,
        system: str,
        user: str,
        *,
        model: str,
        max_tokens: int = 4096,
        temperature: float | None = None,
        schema: Mapping[str, Any] | None = None,
        on_words: Callable[[str], None] | None = None,
    ) -> LLMResponse:
        """Ask Claude once, streaming."""
        options: dict[str, Any] = {}
        if temperature is not None:
            # The SDK types one float for all models; newer ones refuse the parameter and say so themselves.
            options["temperature"] = temperature
        if schema is not None:
            options["output_config"] = {"format": {"type": "json_schema", "schema": _enforceable(schema)}}
        try:
            message = self._stream(system, user, model=model, max_tokens=max_tokens, options=options, on_words=on_words)
        except anthropic.APIError as error:
            raise _translated(error) from error
        except httpx2.TransportError as error:
            # The SDK translates what fails before the answer begins, not what breaks inside its stream.
            raise TransientModelError(f"Anthropic broke off: {error}") from error
        if message.stop_reason is None:
            raise TransientModelError("Anthropic broke off: the stream ended before its message did")
        return LLMResponse(
            content="".join(block.text for block in message.content if block.type == "text"),
            tokens_in=message.usage.input_tokens,
            tokens_out=message.usage.output_tokens,
            model=message.model,
            cost_usd=prices.cost(
                message.model,
                provider=self.name,
                tokens_in=message.usage.input_tokens,
                tokens_out=message.usage.output_tokens,
            ),
        )

    def _stream(
        self,
        system: str,
        user: str,
        *,
        model: str,
        max_tokens: int,
        options: dict[str, Any],
        on_words: Callable[[str], None] | None,
    ) -> anthropic.types.Message:
        extra = {"extra_body": options} if options else {}
        with self._client.messages.stream(
            model=model,
            max_tokens=max_tokens,
            system=system,
            messages=[{"role": "user", "content": user}],
            **extra,  # type: ignore[arg-type]  # one optional keyword of a long overload
        ) as stream:
            for words in stream.text_stream:
                if on_words:
                    on_words(words)
            return stream.get_final_message()


def provider(**options: Any) -> AnthropicProvider:
    """Make the provider (called by `openvibe.llm.provider`)."""
    return AnthropicProvider(**options)


def _enforceable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema in the subset that structured output takes: closed objects, bounds told in descriptions."""
    try:
        return anthropic.transform_schema(dict(schema))
    except ValueError as error:
        raise ModelError(f"Anthropic cannot enforce this answer's types: {error}") from error


def _translated(error: anthropic.APIError) -> ModelError:
    if isinstance(error, anthropic.APIConnectionError):
        return TransientModelError(f"Anthropic cannot be reached: {error}")
    if isinstance(error, anthropic.APIStatusError) and error.status_code >= 400:
        text = f"Anthropic answered {error.status_code}: {error.message}"
        if error.status_code in _TRANSIENT or error.status_code >= 500:
            return TransientModelError(text, retry_after=_seconds(error.response.headers.get("retry-after")))
        return ModelError(text)
    # An error event inside a stream that began well bears the stream's status, 200; mostly it is `overloaded_error`.
    return TransientModelError(f"Anthropic broke off: {error.message}")


def _seconds(value: str | None) -> float | None:
    try:
        return float(value) if value else None
    except ValueError:
        return None
