"""What a model call costs, from the public price list of `genai-prices`."""

from __future__ import annotations

from decimal import Decimal

from genai_prices import Usage, calc_price


def cost(
    model: str, *, provider: str, tokens_in: int, tokens_out: int, cached: int = 0, cache_writes: int = 0
) -> Decimal | None:
    """Return the price of a call in US dollars, or None if nobody can tell.

    `tokens_in` counts all that was read; `cached` of them came from the vendor's cache and `cache_writes` went into it,
    each at a price of its own.
    """
    usage = Usage(
        input_tokens=tokens_in, output_tokens=tokens_out, cache_read_tokens=cached, cache_write_tokens=cache_writes
    )
    try:
        return calc_price(usage, model, provider_id=provider).total_price
    except (LookupError, ValueError):
        # The list does not know the model, or the vendor counts more tokens cached than read.
        return None
