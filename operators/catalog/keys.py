"""Keys of the shared context, spelled alike by whoever writes and whoever reads."""


def of(owner: str, what: str) -> str:
    """Return the key of what is known about a company, lead, account or segment, such as `stripe/intel`."""
    return f"{' '.join(owner.split()).casefold()}/{what}"
