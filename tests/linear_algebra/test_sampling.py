"""Samples of rows: unbiased, without rows of weight zero, in memory that is used again."""

import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.sampling import draw, gather


def test_the_sample_is_unbiased_and_holds_the_rows_that_matter():
    rng = np.random.default_rng(0)
    n, size = 500, 100
    weights = np.full(n, 1 / n, np.float32)
    rows = lp.Rows(jnp.ones((n, 2)), jnp.zeros(n), jnp.asarray(weights))
    traces = weights * rng.exponential(size=n) ** 4
    numbers = rng.normal(size=n)
    sums = []
    for _ in range(400):
        sample = draw(rows.weights, traces, size, rng)
        sums.append(np.asarray(sample.weights) @ numbers[np.asarray(sample.places)])
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - weights @ numbers) < 4 * error
    heaviest = np.argsort(traces)[-10:]
    assert set(heaviest) <= set(np.asarray(sample.places).tolist())


def test_rows_without_weight_are_never_drawn():
    weights = np.zeros(50, np.float32)
    weights[[3, 8, 9]] = 1 / 3
    rows = lp.Rows(jnp.ones((50, 2)), jnp.zeros(50), jnp.asarray(weights))
    sample = draw(rows.weights, weights, 10, np.random.default_rng(0))
    drawn = np.asarray(sample.places)[np.asarray(sample.weights) > 0]
    assert drawn.tolist() == [3, 8, 9]
    np.testing.assert_allclose(np.asarray(sample.weights).sum(), 1)


def test_a_new_sample_takes_the_memory_of_the_old():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(50, 3)), jnp.float32)
    rows = lp.Rows(x, jnp.arange(50), jnp.full(50, 0.02))
    first = gather(rows, draw(rows.weights, np.ones(50), 10, rng), None)
    drawn = draw(rows.weights, np.ones(50), 10, rng)
    second = gather(rows, drawn, first.features)
    assert first.features.is_deleted()
    np.testing.assert_array_equal(second.features, x[drawn.places])
    np.testing.assert_array_equal(second.labels, drawn.places)
    larger = gather(rows, draw(rows.weights, np.ones(50), 20, rng), second.features)
    assert larger.features.shape == (20, 3)
    assert not second.features.is_deleted()
