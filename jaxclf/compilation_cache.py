"""Compiled programs kept on disk between runs, for processes that the project owns.

The `jaxclf` command, the experiments and the tests call :func:`use_compilation_cache` first. The
library never does: a process that only imports it keeps JAX's own settings.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import jax
from platformdirs import user_cache_path

VARIABLE = "JAXCLF_COMPILATION_CACHE"
"""The environment variable that turns the cache off when it is ``off``, or names its folder."""
MOST_BYTES = 2**30
"""The cache is cut back to this size when a process starts to use it. The programs of all tests
together take a third of it."""
_SETTINGS = {
    "jax_compilation_cache_dir": None,
    # A small program is read in 2 ms and compiled in 10 or more, so every one is kept.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def use_compilation_cache() -> Path | None:
    """Keeps what this process and its children compile in the user's cache folder.

    It changes nothing where the user has chosen a folder for JAX, or has turned JAX's cache or this
    one off, or where the folder cannot be written. Settings that the user gave by JAX's environment
    variables stay.

    Returns:
      The folder, or ``None`` where nothing was changed.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off" or not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir is not None:
        return None
    folder = Path(chosen) if chosen else user_cache_path("jaxclf") / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return None
        cut_back(folder, MOST_BYTES)
    except OSError:
        return None
    # A full disk, or an entry that another process is about to write, only costs a compilation.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    for name, value in (_SETTINGS | {"jax_compilation_cache_dir": str(folder)}).items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
            os.environ[name.upper()] = str(value)
    return folder


def cut_back(folder: Path, most_bytes: int) -> None:
    """Deletes the files that were read or written longest ago until the rest takes few bytes.

    Once the folder is too large, a tenth more is deleted, so that not every process deletes some.
    """
    found = []
    for entry in os.scandir(folder):
        facts = entry.stat()
        found.append((max(facts.st_atime, facts.st_mtime), facts.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    if total <= most_bytes:
        return
    for _, size, path in sorted(found):
        if total <= 0.9 * most_bytes:
            break
        Path(path).unlink(missing_ok=True)  # another process may have deleted it
        total -= size
