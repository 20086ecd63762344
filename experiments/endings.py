"""The end of a program that is stopped, or whose output nobody reads any more."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jaxclf.signals import terminate

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a disk that takes no more."""


def end_quietly() -> None:
    """Lets this process end without a traceback after Ctrl-C or SIGTERM, with one line, and after
    its reader went away; the status is then 130, 143 or 141, as shells have it. A full disk ends it
    with one line and status 2."""
    sys.excepthook = _end
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)


@contextmanager
def interrupts_for_parent() -> Iterator[None]:
    """Lets processes that start inside pass over Ctrl-C, for which this one answers alone."""
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def _end(kind: type[BaseException], error: BaseException, traceback) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        raise SystemExit(130)
    if issubclass(kind, BrokenPipeError):
        # What is left to print goes nowhere, or Python would say so when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141)
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        raise SystemExit(2)
    sys.__excepthook__(kind, error, traceback)
