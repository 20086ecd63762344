"""Numbers as people read them."""

from __future__ import annotations


def shown(value: float) -> str:
    """A number for people: a whole one as it is, any other with three digits."""
    return str(value) if isinstance(value, int) else f"{value:.3g}"
