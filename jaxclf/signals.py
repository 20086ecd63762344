"""Signals that ask a program to end, so that it keeps what it has done before it does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 143
"""The status of a program that SIGTERM ends, as shells have it."""
_asked = False
"""Whether SIGTERM came. Python loses an exception that is raised inside a callback of its collector
of garbage, so loops that run for long look here too."""


def terminate(number: int, frame) -> None:
    """The handler of SIGTERM: it says so in a line and raises SystemExit."""
    global _asked
    if not _asked:
        os.write(2, b"terminated\n")  # a print could be inside another print
    _asked = True
    raise SystemExit(TERMINATED)


@contextmanager
def ends_in_order() -> Iterator[None]:
    """A context in which SIGTERM ends the program as Ctrl-C does, with a line and status 143.

    SLURM, Kubernetes and ``timeout`` send that signal some seconds before they kill. A handler that
    the program has set stays, and nothing changes outside the main thread.
    """
    global _asked
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _asked = False
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_terminated() -> None:
    """Raises SystemExit if SIGTERM came in a context of :func:`ends_in_order`."""
    if _asked and signal.getsignal(signal.SIGTERM) is terminate:
        raise SystemExit(TERMINATED)


@contextmanager
def signals_held() -> Iterator[None]:
    """A context that SIGINT and SIGTERM do not cut short: they are heard at its end."""
    heard: list[int] = []
    before = {}
    if _in_main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) is not None:  # else it is not Python's
                before[number] = handler
                signal.signal(number, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in heard[:1]:
            signal.raise_signal(number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
