"""Every test runs with rank promotion refused and warnings as errors; x64 only where asked for."""

import os

# Most of the tests' time is compiling; what runs is small. Commands that tests start inherit it.
# Not also --xla_cpu_use_fusion_emitters=false, with which it takes half of the time again: the two
# together give wrong numbers (jaxlib 0.10.2) where a factor of a matrix product is scaled before.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# The threads of two workers' BLAS get in each other's way: one eigendecomposition takes 40 times as
# long as alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def _programs_are_freed():
    """Every program takes maps of memory, of which Linux gives a process 65530: without this, a
    worker that has compiled some thousands of programs crashes in the next."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
