"""The metric of conjugate gradients: the factor that is chosen, and what it is the inverse of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.linear_algebra import preconditioner
from jaxclf.linear_algebra import problem as lp


def test_the_factor_is_chosen_by_what_it_costs():
    kind = preconditioner.kind
    assert kind(3000, 60_000, 784, 10) == "columns"
    assert kind(500, 500, 20_000, 5) == "rows"
    assert kind(2000, 2000, 20_000, 5) == "diagonal"  # as much as 200 products
    assert kind(50_000, 50_000, 20_000, 1000) == "diagonal"
    assert kind(10_000, 10_000, 4000, 1) == "diagonal"


@pytest.mark.parametrize("kind", ["columns", "rows", "diagonal"])
@pytest.mark.parametrize("intercept", [True, False])
def test_the_preconditioner_is_the_inverse_it_claims(kind, intercept, x64):
    rng = np.random.default_rng(0)
    x, w, l2 = rng.normal(size=(40, 60)), rng.uniform(size=40) / 40, 0.1
    curvatures = rng.uniform(size=(40, 3))
    made = preconditioner.make_preconditioner(
        jnp.asarray(x),
        jnp.asarray(w * curvatures.mean(1)),
        jnp.asarray(w @ curvatures),
        l2,
        False,
        intercept=intercept,
        chosen=kind,
    )
    g = lp.Affine(rng.normal(size=(3, 60)), rng.normal(size=3) if intercept else None)
    found = preconditioner.apply(made, jax.tree.map(jnp.asarray, g))

    extended = np.c_[x, np.ones(40)] if intercept else x
    matrix = extended.T @ (extended * (w * curvatures.mean(1))[:, None])
    # Through the rows the ridge is on the intercept too.
    penalised = np.arange(len(matrix)) < (60 if kind == "columns" else 61)
    matrix += np.diag(l2 * penalised)
    matrix = np.diag(np.diag(matrix)) if kind == "diagonal" else matrix
    scale = w @ curvatures / np.mean(w @ curvatures)
    stacked = np.c_[g.weights, g.intercept] if intercept else g.weights
    expected = np.linalg.solve(matrix, (stacked / scale[:, None]).T).T
    np.testing.assert_allclose(found.weights, expected[:, :60], rtol=1e-2, atol=1e-3)
    if intercept and kind != "columns":
        np.testing.assert_allclose(found.intercept, expected[:, 60], rtol=1e-2, atol=1e-3)


def test_the_factors_of_the_logits_are_the_inverses_of_the_diagonal_blocks(x64):
    rng = np.random.default_rng(0)
    x, places, l2 = rng.normal(size=(60, 5)), np.arange(10, 50), 0.1
    curvatures = rng.uniform(size=(3, 40)) / 40
    factors = jnp.stack(
        [preconditioner.block_factor(x, c, places, l2, intercept=True) for c in curvatures]
    )
    made = preconditioner.Preconditioner(jnp.ones(3), False, factors)
    g = lp.Affine(jnp.asarray(rng.normal(size=(3, 5))), jnp.asarray(rng.normal(size=3)))
    found = preconditioner.apply(made, g)
    extended = np.c_[x[places], np.ones(40)]
    for k in range(3):
        block = extended.T @ (extended * curvatures[k][:, None])
        block += np.diag([l2] * 5 + [0])
        expected = np.linalg.solve(block, np.r_[g.weights[k], g.intercept[k]])
        np.testing.assert_allclose(
            np.r_[found.weights[k], found.intercept[k]], expected, rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("kind", ["columns", "rows"])
def test_a_singular_gram_matrix_is_factored(kind):
    """More columns than rows, all of them nearly the same, in float32, by columns and by rows."""
    rng = np.random.default_rng(0)
    x = (1 + 1e-6 * rng.normal(size=(60, 400))).astype(np.float32)
    made = preconditioner.make_preconditioner(
        jnp.asarray(x),
        jnp.full(60, 1 / 60),
        jnp.ones(2),
        0.0,
        True,
        intercept=True,
        chosen=kind,
    )
    g = lp.Affine(jnp.asarray(rng.normal(size=(2, 400)), jnp.float32), jnp.zeros(2))
    applied = preconditioner.apply(made, g)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(applied))
    assert lp.dot(g, applied) > 0
