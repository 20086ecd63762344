"""Every test runs with rank promotion refused and warnings as errors; x64 only where asked for."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
