"""Seeds: the client's, or a random one that the response names."""

import secrets

MAX_SEED = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly."""


def seed_or_random(seed: int | None) -> int:
    """The seed that was asked for; any at all if none was."""
    return secrets.randbelow(MAX_SEED + 1) if seed is None else seed
