"""Lanes in a batch: each is the optimum of its own problem, and none depends on another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses, make_batch, make_objective, minimize, penalties, sweep
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine
from jaxclf.linear_algebra.whitened import inside, outside, penalties_of, whiten
from jaxclf.models import linear
from jaxclf.solvers.batched import batched_newton, most_lanes


def problem(num_rows=150, num_features=12, num_classes=5):
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(num_features, num_features))
    features = rng.normal(size=(num_rows, num_features)) @ mixed + 3
    labels = (features[:, :num_classes] + 2 * rng.normal(size=(num_rows, num_classes))).argmax(1)
    return features, labels


def lanes(count, num_rows=150):
    weights = np.random.default_rng(1).integers(0, 3, size=(count, num_rows)).astype(float)
    return weights / weights.sum(1, keepdims=True), np.geomspace(1e-1, 1e-3, count)


def zeros(count, num_logits, num_features=12):
    return Affine(np.zeros((count, num_logits, num_features)), np.zeros((count, num_logits)))


@pytest.mark.parametrize("loss", [losses.categorical_nll, losses.onehot_squared_error])
def test_lanes_are_the_optima_of_their_problems(loss, x64):
    features, labels = problem()
    weights, l2 = lanes(4)
    rows = whiten(features, labels, np.float64)
    solved = batched_newton(loss, rows, weights, l2, zeros(4, 5), tol=1e-13, max_steps=50)
    assert solved.converged.all()
    for i in range(4):
        objective = make_objective(linear.logits, loss, penalties.l2(l2[i]))
        batch = make_batch(features, labels, weights[i])
        single = minimize(objective, linear.LinearParams(*(x[0] for x in zeros(1, 5))), batch,
                          tol=1e-14)  # fmt: skip
        params = linear.LinearParams(*(x[i] for x in solved.params))
        assert float(objective(params, batch)) == pytest.approx(single.value, abs=1e-11)
        np.testing.assert_allclose(params.weights, single.params.weights, atol=1e-5)


def test_a_poisoned_lane_leaves_the_others_as_they_are():
    features, labels = problem()
    weights, l2 = lanes(5)
    rows = whiten(features, labels, np.float32)
    options = {"tol": 1e-5, "max_steps": 50}
    healthy = batched_newton(losses.categorical_nll, rows, weights, l2, zeros(5, 5), **options)
    weights[2] = np.nan
    poisoned = batched_newton(losses.categorical_nll, rows, weights, l2, zeros(5, 5), **options)
    assert poisoned.converged.tolist() == [True, True, False, True, True]
    others = [0, 1, 3, 4]
    for mine, theirs in zip(poisoned.params, healthy.params, strict=True):
        np.testing.assert_array_equal(mine[others], theirs[others])
    np.testing.assert_array_equal(poisoned.passes[others], healthy.passes[others])


def test_lanes_that_are_cut_short_are_not_converged():
    features, labels = problem()
    weights, l2 = lanes(3)
    rows = whiten(features, labels, np.float32)
    solved = batched_newton(
        losses.categorical_nll, rows, weights, l2, zeros(3, 5), tol=1e-9, max_steps=2
    )
    assert not solved.converged.any()
    assert solved.steps.tolist() == [2, 2, 2]


def test_coordinates_have_mean_zero_and_second_moment_one_and_keep_logits_and_penalty(x64):
    features, labels = problem()
    # A constant column, and one that is the sum of two others: they span nothing new.
    features = np.c_[features, np.full(len(features), 7.0), features[:, 0] + features[:, 1]]
    rows = whiten(features, labels, np.float64)
    assert rows.features.shape == (150, 12)
    white = np.asarray(rows.features)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(white.T @ white / 150, np.eye(12), atol=1e-9)
    rng = np.random.default_rng(2)
    params = Affine(jnp.asarray(rng.normal(size=(2, 3, 12))), jnp.asarray(rng.normal(size=(2, 3))))
    weights, intercept = outside(rows, params)
    own = np.einsum("lkr,nr->lkn", params.weights, white) + np.asarray(params.intercept)[..., None]
    np.testing.assert_allclose(
        np.einsum("lkd,nd->lkn", weights, features) + intercept[..., None], own, atol=1e-9
    )
    square = np.sum(np.asarray(penalties_of(rows, [0.1, 2.0])) * params.weights**2, (1, 2))
    np.testing.assert_allclose(square, [0.1, 2.0] * np.sum(weights**2, (1, 2)), rtol=1e-9)
    back = inside(rows, Affine(weights, intercept))
    np.testing.assert_allclose(back.weights, params.weights, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(back.intercept, params.intercept, rtol=1e-6, atol=1e-9)


def test_only_sizes_at_which_it_pays_are_solved_together():
    assert most_lanes(1797, 64, 10) == 29
    assert most_lanes(100, 64, 10) == 32
    assert most_lanes(150, 4, 3) == 1  # exact Newton is cheap
    assert most_lanes(60_000, 784, 10) == 1


@pytest.mark.parametrize("loss", [losses.categorical_nll, losses.softmax_squared_error])
def test_the_curvature_of_a_row_is_that_of_jax_hessian(loss, x64):
    rng = np.random.default_rng(3)
    z, u = (jnp.asarray(3 * rng.normal(size=(40, 10))) for _ in range(2))
    labels = jnp.asarray(rng.integers(0, 10, 40))
    hessians = jax.vmap(jax.hessian(loss))(z, labels)

    @jax.jit
    def found(z, labels, u):
        maps = lp.curvature(loss, z, labels)
        product, diagonal = lp.curvature_product(maps, u), lp.curvature_diagonal(maps, 10, z.dtype)
        rows = lp.Rows(u, labels, jnp.ones(40))
        return product, diagonal, lp.ignores_shifts(maps, z), lp.logit_hessian(loss, z, *rows[1:])

    product, diagonal, ignores, total = found(z, labels, u)
    np.testing.assert_allclose(product, np.einsum("nij,nj->ni", hessians, u), atol=1e-12)
    np.testing.assert_allclose(diagonal, np.einsum("nii->ni", hessians), atol=1e-12)
    np.testing.assert_allclose(total, hessians.sum(0), atol=1e-12)
    assert ignores


def test_lanes_are_solved_one_by_one_where_lapack_finds_no_coordinates(monkeypatch):
    """LAPACK's divide and conquer fails on rare matrices."""

    def fails(*args, **options):
        raise np.linalg.LinAlgError("SVD did not converge")

    features, labels = problem()
    monkeypatch.setattr(np.linalg, "svd", fails)
    assert whiten(features, labels, np.float32) is None
    grid = {"l2": [0.1, 0.2, 0.3, 0.4]}
    found = sweep(grid, make_batch(features.astype(np.float32), labels), tol=1e-4)
    assert {row["status"] for row in found.table} == {"converged"}
