import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxclf import load_dataset, make_batch, make_objective, penalties
from jaxclf.losses import categorical_nll
from jaxclf.models import linear
from jaxclf.models.linear import LinearParams

PARAMS = LinearParams(jnp.array([[1.0, -2.0], [0.0, 0.5]]), jnp.array([100.0, -100.0]))


def test_values_leave_the_intercept_out():
    assert penalties.penalty_value(penalties.l1(2.0), PARAMS) == 2 * 3.5
    assert penalties.penalty_value(penalties.l2(2.0), PARAMS) == 1 + 4 + 0.25
    both = penalties.elastic_net(l1=2.0, l2=2.0)
    assert penalties.penalty_value(both, PARAMS) == 7 + 5.25
    flax_like = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    assert penalties.penalty_value(penalties.l1(1.0), flax_like) == 4


@pytest.mark.parametrize("step", [0.1, 1.0, 3.0])
@pytest.mark.parametrize(
    "penalty", [penalties.l1(0.4), penalties.l2(0.4), penalties.elastic_net(l1=0.3, l2=2.0)]
)
def test_proximal_map_minimises_what_it_says(penalty, step):
    w = jnp.linspace(-2, 2, 9)
    prox = penalties.proximal_map(penalty, {"w": w}, step)["w"]
    candidates = jnp.linspace(-3, 3, 60001)
    value = penalty.l1 * jnp.abs(candidates) + penalty.l2 / 2 * candidates**2
    cost = value[None] + (candidates[None] - w[:, None]) ** 2 / (2 * step)
    np.testing.assert_allclose(prox, candidates[jnp.argmin(cost, 1)], atol=2e-3)


def test_proximal_map_is_firmly_nonexpansive_and_sparse():
    a, b = jax.random.normal(jax.random.key(0), (2, 50))
    prox = lambda w: penalties.proximal_map(penalties.elastic_net(l1=0.5, l2=0.1), w, 1.0)  # noqa: E731
    difference = prox(a) - prox(b)
    assert jnp.vdot(difference, difference) <= jnp.vdot(difference, a - b) + 1e-6
    assert (prox(a) == 0).sum() == (jnp.abs(a) <= 0.5).sum()
    moved = penalties.proximal_map(penalties.l1(1.0), PARAMS, 1.0)
    np.testing.assert_array_equal(moved.intercept, PARAMS.intercept)


def test_strengths_are_data_and_do_not_retrace():
    traces = []

    @jax.jit
    def value(penalty, params):
        traces.append(1)
        return penalties.penalty_value(penalty, params)

    values = [value(penalties.l2(s), PARAMS) for s in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(values, [0, 1.3125, 2.625])
    assert len(traces) == 1
    lanes = (penalties.Penalty(l1=None, l2=0), None)
    stacked = jax.vmap(penalties.penalty_value, lanes)(penalties.l2(jnp.arange(3.0)), PARAMS)
    np.testing.assert_allclose(stacked, [0, 2.625, 5.25])


def test_bad_strengths():
    with pytest.raises(ValueError, match="l2 must be finite, at least 0, got -1"):
        penalties.l2(-1)
    with pytest.raises(ValueError, match="l1 must be finite, at least 0, got nan"):
        penalties.elastic_net(l1=float("nan"), l2=0.0)
    with pytest.raises(ValueError, match="C must be finite, above 0, got 0"):
        penalties.strength_from_sklearn(0, 10)


def test_strength_from_sklearn_gives_its_optimum():
    with jax.enable_x64(True):
        data = load_dataset("iris", dtype=np.float64)
        fitted = LogisticRegression(C=0.3, tol=1e-10, max_iter=1000).fit(data.features, data.labels)
        penalty = penalties.l2(penalties.strength_from_sklearn(0.3, 150))
        objective = make_objective(linear.logits, categorical_nll, penalty)
        params = LinearParams(jnp.asarray(fitted.coef_), jnp.asarray(fitted.intercept_))
        batch = make_batch(data.features, data.labels, num_classes=3)
        gradient = jax.grad(objective)(params, batch)
        assert max(jnp.abs(g).max() for g in gradient) < 1e-6


def test_the_penalty_keeps_the_precision_of_its_parameters(x64):
    value = penalties.penalty_value(penalties.l2(0.5), {"w": jnp.ones(3, jnp.float32)})
    assert value.dtype == jnp.float32


def test_the_mask_says_what_is_penalised():
    params = {"layer": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "intercept": jnp.ones(())}
    mask = penalties.penalised(params)
    assert mask == {"layer": {"kernel": True, "bias": False}, "intercept": False}
