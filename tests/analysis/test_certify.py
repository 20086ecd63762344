"""Losses are proven convex, refuted or left open, whatever their labels."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.activations import sigmoid, softplus
from jaxclf.analysis.certify import Convex, NonConvex, certify_convexity
from jaxclf.analysis.sigmoid_polynomials import exact_curvature

CONVEX = {
    "bernoulli_nll": {},
    "squared_error": {},
    "gaussian_nll": {},
    "hinge": {},
    "squared_hinge": {},
    "logistic_margin": {},
    "categorical_nll": {"num_logits": 4},
    "multiclass_hinge": {"num_logits": 4},
    "onehot_squared_error": {"num_logits": 3},
    "soft_categorical_nll": {"num_logits": 3, "labels": [np.array([0.2, 0.3, 0.5])]},
    "multilabel_nll": {"num_logits": 3, "labels": [np.array([1, 0, 1])]},
}
NOT_CONVEX = {
    "sigmoid_squared_error": {},
    "zero_one": {},
    "softmax_squared_error": {"num_logits": 3},
}


@pytest.mark.parametrize("name", CONVEX)
def test_convex_losses_are_proven(name):
    verdict = certify_convexity(getattr(losses, name), **CONVEX[name])
    assert isinstance(verdict, Convex)
    assert all("convex" in reason for reason in verdict.proof)
    # A proof that the Hessian contradicts would be none.
    asked = CONVEX[name].get("labels") or [1]
    size = CONVEX[name].get("num_logits")
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for label in asked:
            points = jnp.asarray(3 * rng.normal(size=(50, *([] if size is None else [size]))))
            hessian = jax.vmap(jax.hessian(lambda z, y=label: getattr(losses, name)(z, y)))
            values = np.linalg.eigvalsh(np.asarray(hessian(points)).reshape(50, size or 1, -1))
        assert values.min() > -1e-12


@pytest.mark.parametrize("name", NOT_CONVEX)
def test_losses_that_are_not_convex_are_refuted(name):
    loss = getattr(losses, name)
    verdict = certify_convexity(loss, **NOT_CONVEX[name])
    assert isinstance(verdict, NonConvex)
    a, b, excess = verdict.witness
    with jax.enable_x64(True):
        at = [float(loss(jnp.asarray(z), verdict.label)) for z in (a, b, (a + b) / 2)]
    assert at[2] - (at[0] + at[1]) / 2 == pytest.approx(excess, abs=1e-9)
    assert excess > 1e-4


def test_the_library_has_no_loss_without_a_verdict():
    named = {*CONVEX, *NOT_CONVEX}
    public = {
        name
        for name, value in vars(losses).items()
        if callable(value) and getattr(value, "__module__", "") == losses.__name__
        if not name.startswith("_")
    }
    assert public == named


def test_a_loss_of_ones_own_is_proven_refuted_or_left_open():
    def focal(z, y):
        return (1 - jax.nn.sigmoid(z)) ** 2 * jax.nn.softplus(-z)

    def cubic(z, y):
        return jax.nn.softplus(-z) + (1 - jax.nn.sigmoid(z)) ** 3

    def through_the_back_door(z, y):
        return jnp.log(jnp.exp(z) + jnp.exp(-z))

    # Not in the ring's second derivative alone, but curved down far to the left.
    assert isinstance(certify_convexity(focal, labels=[1]), NonConvex)
    verdict = certify_convexity(cubic, labels=[1])
    least = min(float(jax.hessian(lambda z: cubic(z, 1))(z)) for z in np.linspace(-9.0, 9, 200))
    assert isinstance(verdict, Convex if least >= 0 else NonConvex)
    assert isinstance(certify_convexity(through_the_back_door, labels=[1]), Convex)
    smooth = certify_convexity(lambda z, y: jax.nn.softplus(-z) + z**2, labels=[1])
    assert isinstance(smooth, Convex)


def test_the_ridge_makes_the_risk_convex(x64):
    verdict = certify_convexity(losses.sigmoid_squared_error)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3))
    moment = np.linalg.eigvalsh(features.T @ features / 200)[-1]
    ridge = verdict.ridge * moment
    labels = rng.integers(0, 2, 200)

    def risk(w):
        return jnp.mean(jax.vmap(losses.sigmoid_squared_error)(features @ w, labels))

    for scale in (0.1, 1.0, 5.0):
        w = scale * rng.normal(size=3)
        assert np.linalg.eigvalsh(jax.hessian(risk)(w))[0] + ridge >= 0
    assert verdict.ridge == pytest.approx(2 * 0.0601022, abs=1e-6)


def test_what_cannot_be_asked():
    with pytest.raises(ValueError, match="labels must not be empty"):
        certify_convexity(losses.bernoulli_nll, labels=[])
    with pytest.raises(ValueError, match="at least two classes"):
        certify_convexity(losses.categorical_nll, num_logits=1)
    assert exact_curvature(losses.hinge, 1) is None
    assert exact_curvature(losses.squared_error, 0.5).coefficients == (Fraction(2),)


def named_like_the_library(name, body):
    body.__name__ = name
    return jax.jit(body)


def out_of_bounds(z):
    two = jnp.concatenate([jnp.ones(1), z[None]])
    return (two.at[jnp.array([9])].get(mode="fill", fill_value=0)[0] - 0.5) * z**2


def slightly_negative(z):
    s, p = sigmoid(z), softplus(z)
    return (s * s - s + p) - 12 * (3 / 16) * p + 6 * (9 / 256) * z * z / 2 - 2.0**-140 * z * z / 2


NEVER_CONVEX = {
    "the minimum is between two floats": (slightly_negative, None),
    "a root very close to s = 0": (
        lambda z: (softplus(z) - sigmoid(z)) / 2 - 2.0**-70 * softplus(z),
        None,
    ),
    "a softplus in name only": (named_like_the_library("softplus", lambda x: -(x**2)), None),
    "a relu in name only": (named_like_the_library("relu", lambda x: jnp.minimum(x, 0)), None),
    "a kink that points up": (lambda z: jnp.log1p(jnp.exp(-jnp.abs(z))), None),
    "a softmax of some classes": (lambda z: -jax.nn.log_softmax(z, where=z > 0)[1], 3),
    "an index out of bounds": (out_of_bounds, None),
    "an index that gives NaN": (lambda z: jnp.take(z, jnp.array([5]))[0], 3),
    "an index that depends on the logits": (lambda z: -z[jnp.argmax(z)], 3),
    "sums along the vector": (
        lambda z: -(jnp.cumsum(jnp.concatenate([jnp.ones(2), z]))[3] ** 2),
        2,
    ),
    "bits of an integer": (lambda z: -(1.0 * (1 | z.astype(jnp.int32))), None),
    "a difference of maxima": (lambda z: jnp.maximum(z, 0) - jnp.maximum(2 * z, -1), None),
    "a branch by the sign": (lambda z: jnp.where(z > 0, jnp.sqrt(jnp.abs(z)), z), None),
    "a quotient": (lambda z: -1 / (1 + z * z), None),
}


@pytest.mark.parametrize("name", NEVER_CONVEX)
def test_what_is_not_convex_is_never_called_convex(name):
    function, num_logits = NEVER_CONVEX[name]
    verdict = certify_convexity(lambda z, y: function(z), labels=[1], num_logits=num_logits)
    assert not isinstance(verdict, Convex)


def test_a_witness_of_any_label_counts_and_the_ridge_is_for_all():
    def one_of_two(z, y):
        return jax.scipy.special.logsumexp(z) if y == 0 else -jnp.sum(z**2)

    verdict = certify_convexity(one_of_two, num_logits=2)
    assert isinstance(verdict, NonConvex)
    assert verdict.label == 1
    assert verdict.ridge is None
    heavier = certify_convexity(lambda z, y: (1 + 9 * y) * losses.sigmoid_squared_error(z, y))
    assert heavier.ridge == pytest.approx(20 * 0.0601022, abs=1e-5)


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"must return one number \(\), got \(1,\)"):
        certify_convexity(lambda z, y: z[None] ** 2)
