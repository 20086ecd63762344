"""Processes that were forked after JAX had started, which lack its threads."""

from __future__ import annotations

import os

from jax._src import xla_bridge

_forked = False


def _note() -> None:
    global _forked
    _forked = xla_bridge.backends_are_initialized()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_note)


def refuse_fork() -> None:
    """Raises RuntimeError in a process that was forked after JAX had started."""
    if _forked:
        raise RuntimeError(
            "this process was forked after JAX had started, so that JAX would wait forever: start "
            "workers by spawning, as joblib's backend 'loky' and multiprocessing's 'spawn' do"
        )
