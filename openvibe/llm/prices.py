"""What a model call costs, from the public price list of `genai-prices`."""

from __future__ import annotations

from decimal import Decimal

from genai_prices import Usage, calc_price


def cost(model: str, *, provider: str, tokens_in: int, tokens_out: int) -> Decimal | None:
    """Return the price of a call in US dollars, or None if the list does not know the model."""
    usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
    try:
        return calc_price(usage, model, provider_id=provider).total_price
    except LookupError:
        return None
