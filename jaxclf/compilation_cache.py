"""Compiled programs kept on disk between runs, for processes that the project owns.

The `jaxclf` command, the experiments and the tests call :func:`use_compilation_cache` first. The
library never does: a process that only imports it keeps JAX's own settings.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jaxlib

VARIABLE = "JAXCLF_COMPILATION_CACHE"
"""The environment variable that turns the cache off when it is ``off``, or names its folder."""
MOST_BYTES = 2**30
"""The cache is cut back to this size when a process starts to use it. The programs of all tests
together take an eighth of it."""
_SETTINGS = {
    "jax_compilation_cache_dir": None,
    # A small program is read in 2 ms and compiled in 10 or more, so every one is kept.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_VERDICT = ".reloads"
"""The file in the folder that says whether programs can be read back on this machine."""
_PROBE = """
import jax
from jax.experimental.serialize_executable import deserialize_and_load, serialize

x = jax.numpy.arange(64.0)
compiled = jax.jit(lambda x: jax.numpy.cumsum(x[::2] @ x[:32])).lower(x).compile()
deserialize_and_load(*serialize(compiled))(x)
"""
_PROBE_SECONDS = 60


def use_compilation_cache() -> Path | None:
    """Keeps what this process and its children compile in the user's cache folder.

    The call changes nothing where the user has chosen a folder for JAX, or has turned JAX's cache
    or this one off, where the folder cannot be written or platformdirs is missing, or where JAX
    cannot read its programs back. Settings that the user gave by JAX's environment variables stay.
    Programs are machine code, so each kind of processor and each version of jaxlib has a folder of
    its own.

    Returns:
      The folder, or ``None`` where nothing was changed.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off" or not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir is not None:
        return None
    try:
        folder = (Path(chosen) if chosen else _user_folder()) / _machine()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK) or not _reloads(folder):
            return None
        cut_back(folder, MOST_BYTES)
    except (OSError, ModuleNotFoundError):
        return None
    # A full disk, or an entry that another process is about to write, only costs a compilation.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    for name, value in (_SETTINGS | {"jax_compilation_cache_dir": str(folder)}).items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
            os.environ[name.upper()] = str(value)
    return folder


def _user_folder() -> Path:
    from platformdirs import user_cache_path  # the core has to import where it is missing

    return user_cache_path("jaxclf") / "compiled"


def cut_back(folder: Path, most_bytes: int) -> None:
    """Deletes the files that were read or written longest ago until the rest is small enough.

    Nothing is deleted up to ``most_bytes``. Above it, a tenth more is deleted than is needed, so
    that not every process deletes some.
    """
    found = []
    for entry in os.scandir(folder):
        if entry.name != _VERDICT:
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


def _machine() -> str:
    """A name for the processor's instructions and for jaxlib, on which compiled code depends."""
    facts = [platform.system(), platform.machine(), platform.processor(), jaxlib.__version__]
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        facts += sorted({x for x in lines if x.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _reloads(folder: Path) -> bool:
    """Whether a program that was written is read back, without a message and without a crash.

    This is tried once for each folder, in a process of its own: on some processors JAX refuses its
    own programs with a message for each (https://github.com/jax-ml/jax/issues/38445).
    """
    verdict = folder / _VERDICT
    if not verdict.exists():
        try:
            tried = subprocess.run(
                [sys.executable, "-c", _PROBE], env=os.environ | {"JAX_PLATFORMS": "cpu"},
                capture_output=True, text=True, timeout=_PROBE_SECONDS,
            )  # fmt: skip
            works = tried.returncode == 0 and "doesn't match" not in tried.stderr
        except subprocess.TimeoutExpired:
            works = False
        verdict.write_text("yes" if works else "no")
    return verdict.read_text() == "yes"
