"""Every test runs with rank promotion refused and warnings as errors; x64 only where asked for.

Programs are compiled as users compile them. All workers, the commands that tests start, and later
runs share one cache of compiled programs on disk.
"""

import gc
import os
import signal
from pathlib import Path

# The threads of two workers' BLAS get in each other's way: one eigendecomposition takes 40 times as
# long as alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell that runs the tests behind other work makes them deaf to Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest

from jaxclf.compilation_cache import use_compilation_cache
from jaxclf.programs import give_back

jax.config.update("jax_numpy_rank_promotion", "raise")
use_compilation_cache()


_MAPS = Path("/proc/self/maps")
_MOST_MAPS = 20_000
"""A third of what Linux gives a process. The tests of one file take some thousand."""


@pytest.fixture(autouse=True, scope="module")
def _programs_are_freed():
    """Every program takes maps of memory, of which Linux gives a process 65530: without this, a
    worker that has compiled some thousands of programs crashes in the next."""
    yield
    if not _MAPS.exists() or len(_MAPS.read_bytes().splitlines()) > _MOST_MAPS:
        jax.clear_caches()
        give_back()
    _what_is_left_stays()


def pytest_collection_modifyitems(items):
    """Tests of several processes come first: one of them at the end would keep one worker busy
    while the others have nothing left."""
    first = {"test_mesh.py", "test_processes.py", "test_checkpoints.py"}
    items.sort(key=lambda item: item.path.name not in first)


def pytest_collection_finish():
    """Tracing makes many objects that last: fewer collections took a tenth less time."""
    gc.set_threshold(50_000, 20, 20)
    _what_is_left_stays()


def _what_is_left_stays():
    """What is imported by now is kept out of later collections, which would take a third of the
    time of some tests: those of gradients ask for one in each."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compiled():
    """The names of the programs that are compiled in the test."""
    names = []

    def listen(event, seconds, **facts):
        if "backend_compile" in event:
            names.append(facts.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)
