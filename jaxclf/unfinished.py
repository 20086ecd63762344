"""Files and folders that are not whole yet: their names, a lock, and what a kill leaves."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.partial")
_BUSY = "another run writes its results there: wait for its end, or use another folder"
_locks: set[Path] = set()
"""The folders that this process has locked."""


def name_of(name: str) -> str:
    """The name of what becomes the file ``name``, with the number of this process."""
    return f".{name}.{os.getpid()}.partial"


def sweep(folder: Path, name: str | None = None) -> None:
    """Removes what killed processes have left of a file; without a name, all that they left."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = _PARTIAL.fullmatch(entry.name)
            if found and name in (None, found["name"]) and _is_gone(int(found["process"])):
                with suppress(OSError):
                    shutil.rmtree(entry) if entry.is_dir() else os.unlink(entry)


def _is_gone(process: int) -> bool:
    """Whether no other process has a number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return process == os.getpid()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context in which no other process writes its results to a folder, and nothing is left there
    of killed ones.

    Raises:
      OSError: another process is in such a context.
    """
    place = folder.resolve()
    if place in _locks:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sweep(folder)
            except BlockingIOError:
                raise OSError(errno.EBUSY, _BUSY, str(folder)) from None
            except OSError:
                pass  # the file system has no locks
        _locks.add(place)
        yield
    finally:
        _locks.discard(place)
        os.close(descriptor)
