"""The parts that every command shares: errors of one line, and the check of seeds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def input_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turns an error in what the user gave into one line and exit status 2.

    It wraps the reading of input; an error in the work itself keeps its traceback. Around work that
    writes files, give ``OSError`` as the only kind.
    """
    refused = kinds or (OSError, ValueError, TypeError, ImportError)
    try:
        yield
    except refused as error:
        where = f"{error.filename}: " if getattr(error, "filename", None) else ""
        _refuse(f"{where}{getattr(error, 'strerror', None) or error}")


def _refuse(message: str) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    raise SystemExit(2)


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that NumPy's generators refuse."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
