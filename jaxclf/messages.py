"""Texts for messages, which stay bounded whatever a user's names are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_LONGEST = 60


def shortened(text: Any) -> str:
    """A text for a message, which is not longer than a line."""
    text = repr(text) if isinstance(text, str) else str(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def listed(names: Sequence[str], *, quoted: bool = True) -> str:
    """Some names for a message: the first few where there are many."""
    shown = ", ".join(shortened(name) if quoted else name[:_LONGEST] for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
