"""Signals that ask a program to end, so that it keeps what it has done before it does."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 143
"""The status of a program that SIGTERM ends, as shells have it."""
_AGAIN = 0.05
"""Seconds until a signal that could not end the program is sent again."""


def terminate(number: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM: it raises SystemExit, which the end of the program's blocks sees.

    A module that is interrupted while it is imported raises another error, or is left half made, so
    a signal that comes then waits until the import is over.
    """
    if _imports(frame):
        _send_again(number)
    else:
        raise SystemExit(TERMINATED)


@contextmanager
def ends_in_order() -> Iterator[None]:
    """A context in which SIGTERM ends the program as Ctrl-C does, with a line and status 143.

    SLURM, Kubernetes and ``timeout`` send that signal some seconds before they kill. A handler that
    the program has set stays, and nothing changes outside the main thread.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    unraisable = sys.unraisablehook

    def raise_again(lost: sys.UnraisableHookArgs) -> None:
        # Python loses what is raised in a callback of its collector of garbage, as JAX has one.
        if lost.exc_type is SystemExit and lost.exc_value.code == TERMINATED:
            _send_again(signal.SIGTERM)
        else:
            unraisable(lost)

    signal.signal(signal.SIGTERM, terminate)
    sys.unraisablehook = raise_again
    try:
        yield
    except SystemExit as end:
        if end.code == TERMINATED:
            print("terminated", file=sys.stderr)
        raise
    finally:
        sys.unraisablehook = unraisable
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported where a signal came."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _send_again(number: int) -> None:
    # A Thread of `threading` takes a lock, which the interrupted code may hold.
    _thread.start_new_thread(lambda: (time.sleep(_AGAIN), os.kill(os.getpid(), number)), ())


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
