"""Norms of groups of features: value, subgradient, proximal map, conjugate, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import group_norms, make_batch, make_objective, minimize, penalties, solve
from jaxclf.losses import bernoulli_nll
from jaxclf.models import linear
from jaxclf.models.linear import LinearParams

GROUPS = [[0, 2, 5], [1], [3, 4]]
SPARSE = penalties.group_lasso(0.4, GROUPS, weights=[1.0, 2.0, 0.5], l1=0.1, l2=0.3)


def value(penalty, w):
    """The penalty of weights ``(K, d)``, from its formula."""
    strengths = np.asarray(penalty.l1.strength * np.asarray(penalty.l1.weights))
    norms = [np.linalg.norm(w[:, group]) for group in GROUPS]
    return strengths @ norms + penalty.l1.l1 * np.abs(w).sum() + penalty.l2 / 2 * (w**2).sum()


def weights(seed=0):
    w = np.random.default_rng(seed).normal(size=(3, 6))
    w[:, [3, 4]] = 0
    w[0, 0] = 0
    return w


def test_the_value_is_that_of_the_formula(x64):
    w = weights()
    params = LinearParams(w, np.full(3, 100.0))
    assert float(penalties.penalty_value(SPARSE, params)) == pytest.approx(value(SPARSE, w))
    assert penalties.total_strength(SPARSE) == pytest.approx(0.8)
    by_size = penalties.group_lasso(0.4, GROUPS).l1
    np.testing.assert_allclose(by_size.weights, np.sqrt([3, 1, 2]))
    norms = penalties.Penalty(l1=by_size)
    gradient = jax.grad(lambda w: penalties.penalty_value(norms, {"w": w}))(jnp.zeros((3, 6)))
    assert not np.asarray(gradient).any()
    narrow = penalties.penalty_value(SPARSE, {"w": jnp.ones(6, jnp.float32)})
    assert narrow.dtype == jnp.float32


@pytest.mark.parametrize("step", [0.3, 2.0])
def test_the_proximal_map_is_a_minimum(step, x64):
    w = 2 * weights(1)
    found = np.asarray(penalties.proximal_map(SPARSE, {"w": jnp.asarray(w)}, step)["w"])

    def cost(u):
        return value(SPARSE, u) + ((u - w) ** 2).sum() / (2 * step)

    best, rng = cost(found), np.random.default_rng(2)
    for size in (1e-1, 1e-3, 1e-5):
        moves = rng.normal(size=(99, *w.shape)) * rng.integers(0, 2, (99, *w.shape))
        assert min(cost(found + size * move) for move in moves) > best
    # The slope of the quadratic is minus a subgradient, so the smallest sum of both is zero.
    slope = (found - w) / step + SPARSE.l2 * found
    left = SPARSE.l1.smallest_subgradient(jnp.asarray(found), jnp.asarray(slope))
    np.testing.assert_allclose(left, 0, atol=1e-12)


def test_the_smallest_subgradient_is_the_slope_of_steepest_descent(x64):
    w, g = weights(), np.random.default_rng(3).normal(size=(3, 6))
    d = -np.asarray(SPARSE.l1.smallest_subgradient(jnp.asarray(w), jnp.asarray(g)))
    bare = SPARSE._replace(l2=0.0)
    slope = ((g * d).sum() * 1e-7 + value(bare, w + 1e-7 * d) - value(bare, w)) / 1e-7
    assert slope == pytest.approx(-(d**2).sum(), rel=1e-5)


def test_the_curvature_is_that_of_the_value(x64):
    w, d = weights(), np.random.default_rng(4).normal(size=(3, 6)) * (weights() != 0)
    norms = penalties.group_lasso(0.4, GROUPS).l1
    smooth = lambda t: jnp.sum(norms.terms(jnp.asarray(w) + t * d))  # noqa: E731
    used = jnp.asarray(w), jnp.asarray(d)
    along = jnp.sum(used[1] * group_norms.curvature_product(norms, *used))
    change = (smooth(1e-4) + smooth(-1e-4) - 2 * smooth(0.0)) / 1e-8
    assert float(along) == pytest.approx(float(change), rel=1e-5)


@pytest.mark.parametrize("l1", [0.0, 0.1])
def test_the_conjugate_is_zero_where_fenchel_says(l1, x64):
    """``⟨u, w⟩ ≤ penalty(w)`` for all w, and for some w nearly an equality."""
    norms = penalties.group_lasso(0.4, GROUPS, l1=l1).l1
    u = np.random.default_rng(5).normal(size=(3, 6))
    c = float(group_norms.dual_scale(norms, jnp.abs(u), 1e-14))
    assert 0 < c < 1

    def shrunk(u):
        return np.asarray(norms.proximal_map(jnp.asarray(u), 1.0))

    w = shrunk(c * u * (1 + 1e-6))
    assert w.any()  # beyond the ball the projection leaves something
    of_w = float(jnp.sum(norms.terms(jnp.asarray(w))))
    assert (c * u * w).sum() <= of_w * (1 + 1e-12)
    assert (c * u * w).sum() == pytest.approx(of_w, rel=1e-5)
    assert not shrunk(c * u).any()
    assert float(group_norms.dual_scale(norms, jnp.abs(u) * c / 2, 1e-14)) == 1
    far = group_norms.above(norms, jnp.abs(u), 0.0)
    squares = np.array([(shrunk(u)[:, group] ** 2).sum() for group in GROUPS])
    np.testing.assert_allclose(np.asarray(far) ** 2, squares, atol=1e-12)


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([[0, 1], [1, 2]], {}, "groups must not overlap, but column 1 is in two places"),
        ([[0, 1], [3]], {}, "groups must cover .* column 2 is in none, and column 3 is in one"),
        ([[0, -1]], {}, "column 1 is in none, and column -1 is in one"),
        ([[0, 1], []], {}, "each group must hold numbers of columns"),
        ([], {}, "the columns of at least one group"),
        ([[0], [1]], {"weights": [1.0, -1.0]}, "weights of groups must be finite, above 0, got -1"),
        ([[0], [1]], {"weights": [1.0]}, r"weights must have shape \(2,\)"),
        ([[0], [1]], {"l1": -1.0}, "l1 must be finite, at least 0"),
    ],
)
def test_bad_groups_are_refused(groups, options, message):
    with pytest.raises(ValueError, match=message):
        penalties.group_lasso(0.1, groups, **options)


def test_what_takes_no_groups_says_so():
    with pytest.raises(ValueError, match="strength must be finite, above 0, got 0"):
        penalties.group_lasso(0.0, GROUPS)
    objective = make_objective(linear.logits, bernoulli_nll, SPARSE)
    batch = make_batch(np.eye(4), [0, 1, 0, 1])
    start = LinearParams(np.zeros(4, np.float32), np.float32(0))
    with pytest.raises(ValueError, match="they hold 6 columns, and features have 4"):
        minimize(objective, start, batch)
    with pytest.raises(ValueError, match="they hold 6 columns, and features have 4"):
        objective(start, batch)
    with pytest.raises(ValueError, match="solve takes no group penalty"):
        solve(objective, start, batch)
    fitting = make_objective(
        linear.logits, bernoulli_nll, penalties.group_lasso(0.1, [[0, 1, 2, 3]])
    )
    with pytest.raises(ValueError, match="takes no L1 penalty"):
        minimize(fitting, start, batch, solver="newton_cg")
    network = make_objective(lambda w, x: w @ x, bernoulli_nll, SPARSE)
    with pytest.raises(ValueError, match=r"only solved for the logits of models\.linear\.logits"):
        minimize(network, np.zeros(4, np.float32), batch)
