import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import sweep as benchmark
from jaxclf import load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.models import linear


def test_the_benchmark_judges_by_the_objective(x64):
    data = load_dataset("iris", dtype=np.float64)
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(3, 5))
    params = linear.LinearParams(*map(jnp.asarray, (coefficients[:, :-1], coefficients[:, -1])))
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.1))
    expected = float(jax.jit(objective)(params, make_batch(data.features, data.labels)))
    found = benchmark.value_of(coefficients, data.features, data.labels, 0.1)
    assert found == pytest.approx(expected, rel=1e-12)
