"""Seeds: given by the client, or random and returned in the response."""

import secrets

MAX_SEED = 2**53 - 1
"""Largest seed: the largest integer up to which every JSON parser is exact."""


def seed_or_random(seed: int | None) -> int:
    """Return `seed`, or a random one in 0..`MAX_SEED` if it is None."""
    return secrets.randbelow(MAX_SEED + 1) if seed is None else seed
