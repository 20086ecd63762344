"""Files that are mapped into memory, and their change while they are read.

Where a file is cut, reading what was mapped of it ends the process by a signal. So every pass over
such rows looks first whether the file is still what it was.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

_seen: WeakKeyDictionary[mmap.mmap, tuple[int, int]] = WeakKeyDictionary()
"""The number and the time of change of each mapped file when it was first read."""


def check_unchanged(array: Any) -> None:
    """Raises OSError for rows of a mapped file that was cut or written to since it was first read.

    A file that was replaced by another one of its name, or deleted, is still there for this
    process, so it passes. So does any other array.
    """
    base, about = array, None
    while isinstance(base, np.ndarray):
        about = base if isinstance(base, np.memmap) else about
        base = base.base
    if about is None or not isinstance(base, mmap.mmap) or about.filename is None:
        return
    start = about.offset - about.offset % mmap.ALLOCATIONGRANULARITY
    if base.size() < start + len(base):
        raise _changed(about.filename, f"was cut to {base.size()} bytes")
    if about.mode != "r":  # this process may write to it
        return
    try:
        facts = os.stat(about.filename)
    except OSError:
        return
    inode, changed = _seen.setdefault(base, (facts.st_ino, facts.st_mtime_ns))
    if facts.st_ino == inode and facts.st_mtime_ns != changed:
        raise _changed(about.filename, "was written to")


def _changed(path: Any, how: str) -> OSError:
    return OSError(errno.EIO, f"the file {how} while it was read: start again", str(path))
