"""Lets each of several processes keep its programs: what tests start imports this first.

Of several processes JAX lets only the first one write to the cache on disk, for all to read. On
CPUs, though, no process looks for what another one wrote (the key holds which devices are its own),
so that the others would compile everything in every run, while the first one waits for them.
"""

from unittest import mock

from jax._src import compiler, distributed

_write = compiler._cache_write


def _write_as_first(*entry) -> None:
    with mock.patch.object(distributed.global_state, "process_id", 0):
        _write(*entry)


compiler._cache_write = _write_as_first
