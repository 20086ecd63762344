"""Verdicts on the risk of given rows, with a penalty, of linear and other models."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxclf import load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.analysis import closed_forms
from jaxclf.analysis.certify import Convex, NonConvex, Unknown, certify_convexity
from jaxclf.analysis.negative_curvature import risk_hessian
from jaxclf.data import transforms
from jaxclf.models import linear


def rows(name="breast_cancer"):
    data = load_dataset(name, dtype=np.float64)
    features = transforms.standardise(transforms.fit_standardiser(data.features), data.features)
    return make_batch(linear.append_one(features)[::4], data.labels[::4])


def enclosed_risk(loss, batch, ridge, weights):
    """In float64, with the penalty."""
    z = np.asarray(batch.features) @ weights.T
    values = np.asarray(jax.vmap(loss)(jnp.asarray(z), jnp.asarray(batch.labels)))
    return values.mean() + ridge / 2 * np.sum(weights**2)


@pytest.mark.parametrize(("loss", "classes", "name"), [
    (losses.sigmoid_squared_error, None, "breast_cancer"),
    (losses.softmax_squared_error, 3, "wine"),
])  # fmt: skip
def test_a_risk_is_refuted_below_the_ridge_that_is_proven_above(loss, classes, name, x64):
    batch, ridge = rows(name), 0.05
    verdict = certify_convexity(loss, num_logits=classes, data=batch, penalty=penalties.l2(ridge))
    assert isinstance(verdict, NonConvex)
    a, b, excess = verdict.witness
    at = [enclosed_risk(loss, batch, ridge, w) for w in (a, b, (a + b) / 2)]
    assert 0 < excess <= at[2] - (at[0] + at[1]) / 2 + 1e-12
    assert verdict.smallest_eigenvalue < 0
    # What is needed lies between what the witness shows and what is proven.
    assert ridge - verdict.smallest_eigenvalue < verdict.ridge
    features = np.asarray(batch.features)
    largest = np.linalg.eigvalsh(features.T @ features / len(features))[-1]
    lower = closed_forms.curvature(loss, classes).lower
    assert verdict.ridge <= -lower * largest * (1 + 1e-9)
    proven = certify_convexity(
        loss, num_logits=classes, data=batch, penalty=penalties.l2(1.1 * verdict.ridge)
    )
    assert isinstance(proven, Convex)
    assert proven.strong_convexity == pytest.approx(0.1 * verdict.ridge)
    weights = np.random.default_rng(0).normal(size=a.shape)
    hessian = risk_hessian(loss, jnp.asarray(weights), *batch[:2])
    assert np.linalg.eigvalsh(hessian)[0] + 1.1 * verdict.ridge >= proven.strong_convexity


def test_strong_convexity_of_what_is_convex_is_that_of_the_ridge_and_of_the_loss(x64):
    batch = rows()
    log = certify_convexity(losses.bernoulli_nll, data=batch, penalty=penalties.l2(0.3))
    assert (log.strong_convexity, log.ridge) == (0.3, 0.0)
    squared = certify_convexity(losses.squared_error, data=batch, penalty=penalties.l2(0.3))
    features = np.asarray(batch.features)
    smallest = np.linalg.eigvalsh(2 * features.T @ features / len(features))[0]
    assert squared.strong_convexity == pytest.approx(0.3 + smallest, rel=1e-6)
    assert squared.strong_convexity <= 0.3 + smallest
    assert certify_convexity(losses.bernoulli_nll, data=batch).strong_convexity == 0


def test_only_the_labels_that_the_rows_have_count(x64):
    # The curvature of (σ - 1/2)² is -1/8 at the lowest, that of (σ - 1)² about -0.12.
    batch = rows()
    ones = batch._replace(labels=np.ones(len(batch.labels), int))
    soft = batch._replace(labels=np.full(len(batch.labels), 0.5))
    both = certify_convexity(losses.sigmoid_squared_error, data=ones, penalty=penalties.l2(0.0))
    half = certify_convexity(losses.sigmoid_squared_error, data=soft, penalty=penalties.l2(0.0))
    assert half.ridge < both.ridge


def test_a_hidden_layer_gets_a_witness_or_nothing(x64):
    batch = rows("wine")
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"in": jax.random.normal(keys[0], (6, 14)), "out": jax.random.normal(keys[1], (3, 6))}

    def logits(params, x):
        return params["out"] @ jnp.tanh(params["in"] @ x)

    verdict = certify_convexity(
        losses.categorical_nll, model=logits, params=params, data=batch, penalty=penalties.l2(1e-3)
    )
    assert isinstance(verdict, NonConvex)
    _, restore = ravel_pytree(params)
    objective = make_objective(logits, losses.categorical_nll, penalties.l2(1e-3))
    a, b, excess = verdict.witness
    at = [float(objective(restore(jnp.asarray(v)), batch)) for v in (a, b, (a + b) / 2)]
    assert at[2] - (at[0] + at[1]) / 2 >= excess > 0
    plain = certify_convexity(
        losses.categorical_nll, model=lambda p, x: p @ x, params=jnp.ones((3, 14)), data=batch
    )
    assert isinstance(plain, Unknown)  # convex, but no rule says so here


def test_bad_questions_about_data_are_one_sentence(x64):
    with pytest.raises(ValueError, match="together with data"):
        certify_convexity(losses.bernoulli_nll, penalty=penalties.l2(1.0))
    with pytest.raises(ValueError, match="together with data and params"):
        certify_convexity(losses.bernoulli_nll, model=lambda p, x: p @ x)
    nan = rows()._replace(features=np.full((3, 2), np.nan), labels=np.zeros(3, int))
    with pytest.raises(ValueError, match="features"):
        certify_convexity(losses.bernoulli_nll, data=nan)


@pytest.mark.parametrize(("loss", "classes", "labels"), [
    (losses.categorical_nll, 2, [0, 1, 2]),
    (losses.categorical_nll, 3, [-1, 0, 1]),
    (losses.bernoulli_nll, None, [-1, 1, 1]),
])  # fmt: skip
def test_labels_that_the_loss_does_not_take_are_refused(loss, classes, labels, x64):
    batch = make_batch(np.eye(3), np.array(labels))
    with pytest.raises(ValueError, match="the loss of label"):
        certify_convexity(loss, num_logits=classes, data=batch)


def test_rows_of_weight_zero_are_not_asked(x64):
    batch = make_batch(np.eye(3), np.array([-1, 0, 1]))._replace(weights=np.array([0.0, 1, 1]))
    assert isinstance(certify_convexity(losses.bernoulli_nll, data=batch), Convex)


@pytest.mark.parametrize("penalty", [penalties.Penalty(l2=-1.0), penalties.Penalty(l1=-1.0),
                                     penalties.Penalty(l2=float("nan"))])  # fmt: skip
def test_what_is_no_penalty_is_refused(penalty, x64):
    with pytest.raises(ValueError, match="must be"):
        certify_convexity(losses.bernoulli_nll, data=rows(), penalty=penalty)


def test_rounding_in_a_narrow_dtype_refutes_nothing(x64):
    rng = np.random.default_rng(0)
    batch = make_batch(rng.normal(size=(20, 24)), rng.integers(0, 2, 20))

    def logit(p, x):
        return jnp.dot(p.astype(jnp.bfloat16), x.astype(jnp.bfloat16)).astype(jnp.float64)

    for seed in range(3):
        verdict = certify_convexity(
            losses.bernoulli_nll, model=logit, params=jnp.ones(24), data=batch,
            penalty=penalties.l2(1e-9), seed=seed,
        )  # fmt: skip
        assert isinstance(verdict, Unknown)


def test_a_proven_ridge_bounds_sums_of_many_terms(x64):
    # All terms alike: the moment is x², and a sum of a million is off by its roundings.
    x = 0.41063548932741
    batch = make_batch(np.full((10**6, 1), x), np.ones(10**6, int))
    verdict = certify_convexity(losses.sigmoid_squared_error, data=batch, penalty=penalties.l2(1.0))
    lowest = Fraction(certify_convexity(losses.sigmoid_squared_error, labels=[1]).curvature.lowest)
    assert Fraction(verdict.ridge) >= -lowest * Fraction(x) ** 2


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_witnesses_do_not_depend_on_the_scale_of_the_features(scale, x64):
    batch = rows()
    batch = batch._replace(features=np.asarray(batch.features)[::4, :5] * scale,
                           labels=np.asarray(batch.labels)[::4])  # fmt: skip
    verdict = certify_convexity(losses.sigmoid_squared_error, data=batch)
    assert isinstance(verdict, NonConvex)
    middle = (verdict.witness.a + verdict.witness.b) / 2
    np.testing.assert_array_equal(2 * middle - verdict.witness.a, verdict.witness.b)
