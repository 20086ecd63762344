"""Convex losses, however they are spelt, are proven for every label of a range."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.special import log_ndtr, logsumexp
from jax.scipy.stats import norm

from jaxclf import losses
from jaxclf.analysis.proofs import prove_convex
from tests.analysis.label_ranges import (
    BINARY,
    CLASS,
    MINUS,
    PLUS,
    REAL,
    REALS,
    SCALAR,
    SIMPLEX,
    UNIT,
    VECTOR,
)

A = np.array([[2.0, 1.0, 0.5], [1.0, 2.0, 1.0], [0.5, 1.0, 2.0]])
B = np.array([[1.0, 2.0, -1.0], [0.5, -1.5, 3.0]])
LIBRARY = {
    "bernoulli_nll": (losses.bernoulli_nll, SCALAR, UNIT),
    "bernoulli_nll of integers": (losses.bernoulli_nll, SCALAR, BINARY),
    "bernoulli_nll, smooth": (partial(losses.bernoulli_nll, smoothing=0.1), SCALAR, UNIT),
    "categorical_nll": (losses.categorical_nll, VECTOR, CLASS),
    "categorical_nll, smooth": (partial(losses.categorical_nll, smoothing=0.1), VECTOR, CLASS),
    "categorical_nll of bytes": (losses.categorical_nll, VECTOR, (np.uint8(0), np.uint8(2))),
    "soft_categorical_nll": (losses.soft_categorical_nll, VECTOR, SIMPLEX),
    "multilabel_nll": (losses.multilabel_nll, VECTOR, SIMPLEX),
    "gaussian_nll": (losses.gaussian_nll, SCALAR, REAL),
    "squared_error": (losses.squared_error, SCALAR, REAL),
    "squared_error of a vector": (losses.squared_error, VECTOR, REALS),
    "onehot_squared_error": (losses.onehot_squared_error, VECTOR, CLASS),
    "hinge": (losses.hinge, SCALAR, PLUS),
    "hinge of -1": (losses.hinge, SCALAR, MINUS),
    "squared_hinge": (losses.squared_hinge, SCALAR, MINUS),
    "logistic_margin": (losses.logistic_margin, SCALAR, PLUS),
    "multiclass_hinge": (losses.multiclass_hinge, VECTOR, CLASS),
}


def shifted(z, y, stopped=False):
    m = jnp.max(z)
    m = jax.lax.stop_gradient(m) if stopped else m
    return m + jnp.log(jnp.sum(jnp.exp(z - m))) - z[y]


def huber(z, y):
    r = jnp.abs(z - y)
    return jnp.where(r <= 1, 0.5 * r**2, r - 0.5)


def huber_of_differences(z, y):
    r = z - y
    return jnp.where(jnp.abs(r) < 2.0, r * r / 2, 2.0 * (jnp.abs(r) - 1.0))


def smooth_hinge(z, y):
    m = y * z
    return jnp.where(m >= 1, 0.0, jnp.where(m <= 0, 0.5 - m, (1 - m) ** 2 / 2))


def modified_huber(z, y):
    m = y * z
    return jnp.where(m >= -1, jnp.maximum(0, 1 - m) ** 2, -4 * m)


def stable_bce(z, y):
    return jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))


def two_sided_bce(z, y):
    s = jax.nn.sigmoid(z)
    return -jnp.log(s) * y - jnp.log(1 - s) * (1 - y)


def by_condition(z, y):
    return jnp.where(z > 0, jnp.log1p(jnp.exp(-z)), jnp.log1p(jnp.exp(z)) - z)


def by_python(z, y):
    return jax.nn.softplus(-z) if y == 1 else jax.nn.softplus(z)


SPELLINGS = {
    "logsumexp": (lambda z, y: jax.nn.logsumexp(z) - z[y], VECTOR, CLASS),
    "scipy logsumexp": (lambda z, y: logsumexp(z) - z[y], VECTOR, CLASS),
    "logsumexp, dot": (lambda z, y: logsumexp(z) - jnp.dot(z, y), VECTOR, SIMPLEX),
    "logsumexp, one_hot": (
        lambda z, y: logsumexp(z) - z @ jax.nn.one_hot(y, 3), VECTOR, CLASS),
    "logsumexp, sum of products": (lambda z, y: logsumexp(z) - jnp.sum(z * y), VECTOR, SIMPLEX),
    "logsumexp with weights": (lambda z, y: logsumexp(z, b=jnp.arange(1.0, 4)), VECTOR, CLASS),
    "row of the identity": (lambda z, y: logsumexp(z) - z @ jnp.eye(3)[y], VECTOR, CLASS),
    "take_along_axis": (
        lambda z, y: logsumexp(z) - jnp.take_along_axis(z, y[None], 0)[0], VECTOR, CLASS),
    "inlined log sum exp": (lambda z, y: jnp.log(jnp.sum(jnp.exp(z))) - z[y], VECTOR, CLASS),
    "shifted by the maximum": (shifted, VECTOR, CLASS),
    "shifted by the stopped maximum": (partial(shifted, stopped=True), VECTOR, CLASS),
    "log_softmax": (lambda z, y: -jax.nn.log_softmax(z)[y], VECTOR, CLASS),
    "log_softmax, one_hot": (
        lambda z, y: -jnp.sum(jax.nn.one_hot(y, 3) * jax.nn.log_softmax(z)), VECTOR, CLASS),
    "log of softmax": (lambda z, y: -jnp.log(jax.nn.softmax(z)[y]), VECTOR, CLASS),
    "optax softmax": (optax.softmax_cross_entropy, VECTOR, SIMPLEX),
    "optax softmax, integers": (
        optax.softmax_cross_entropy_with_integer_labels, VECTOR, CLASS),
    "optax sigmoid": (optax.sigmoid_binary_cross_entropy, SCALAR, UNIT),
    "optax sigmoid, summed": (
        lambda z, y: jnp.sum(optax.sigmoid_binary_cross_entropy(z, y)), VECTOR, SIMPLEX),
    "optax huber": (optax.huber_loss, SCALAR, REAL),
    "optax huber, delta": (partial(optax.huber_loss, delta=0.5), SCALAR, REAL),
    "optax log cosh": (optax.log_cosh, SCALAR, REAL),
    "optax hinge": (optax.hinge_loss, SCALAR, PLUS),
    "optax squared": (optax.l2_loss, SCALAR, REAL),
    "optax logistic by margin": (lambda z, y: jax.nn.softplus(-y * z), SCALAR, REAL),
    "stable binary cross-entropy": (stable_bce, SCALAR, UNIT),
    "log(1 + exp)": (lambda z, y: jnp.log(1 + jnp.exp(-y * z)), SCALAR, REAL),
    "log1p(exp)": (lambda z, y: jnp.log1p(jnp.exp(z)) - y * z, SCALAR, UNIT),
    "log1p(exp) by condition": (by_condition, SCALAR, UNIT),
    "a branch in Python": (by_python, SCALAR, BINARY),
    "log of sigmoid": (lambda z, y: -jnp.log(jax.nn.sigmoid(z)), SCALAR, UNIT),
    "log of both sigmoids": (two_sided_bce, SCALAR, UNIT),
    "log of 1/(1+exp)": (lambda z, y: -jnp.log(1 / (1 + jnp.exp(-z))), SCALAR, UNIT),
    "log_sigmoid": (lambda z, y: -jax.nn.log_sigmoid(y * z), SCALAR, REAL),
    "logaddexp": (lambda z, y: jnp.logaddexp(0, -y * z), SCALAR, REAL),
    "softplus with a temperature": (lambda z, y: jax.nn.softplus(3 * (z - y)) / 3, SCALAR, REAL),
    "huber": (huber, SCALAR, REAL),
    "huber of differences": (huber_of_differences, SCALAR, REAL),
    "huber, summed": (lambda z, y: jnp.sum(huber(z, y)), VECTOR, REALS),
    "huber by the excess": (
        lambda z, y: (z - y) ** 2 / 2 - jnp.maximum(jnp.abs(z - y) - 1, 0) ** 2 / 2, SCALAR, REAL),
    "huber by the excess, summed": (
        lambda z, y: jnp.sum((z - y) ** 2 - jnp.maximum(jnp.abs(z - y) - 1, 0) ** 2),
        VECTOR,
        REALS,
    ),
    "huber of one and a square of two": (
        lambda z, y: huber(z[0], y) + (z[0] + z[1]) ** 2,
        VECTOR,
        REAL,
    ),
    "pinball": (
        lambda z, y: jnp.where(y - z > 0, 0.3 * (y - z), -0.7 * (y - z)), SCALAR, REAL),
    "pinball by a maximum": (
        lambda z, y: jnp.maximum(0.3 * (y - z), -0.7 * (y - z)), SCALAR, REAL),
    "pinball by its sign": (
        lambda z, y: (y - z) * jnp.where(y > z, 0.3, -0.7), SCALAR, REAL),
    "smooth hinge": (smooth_hinge, SCALAR, PLUS),
    "modified huber": (modified_huber, SCALAR, PLUS),
    "epsilon insensitive": (
        lambda z, y: jnp.maximum(jnp.abs(z - y) - 0.1, 0), SCALAR, REAL),
    "squared epsilon insensitive": (
        lambda z, y: jnp.maximum(jnp.abs(z - y) - 0.1, 0) ** 2, SCALAR, REAL),
    "power 1.5": (lambda z, y: jnp.abs(z - y) ** 1.5, SCALAR, REAL),
    "power 3": (lambda z, y: jnp.abs(z - y) ** 3, SCALAR, REAL),
    "power 1.0": (lambda z, y: jnp.power(jnp.abs(z - y), 1.0), SCALAR, REAL),
    "power 4": (lambda z, y: (z - y) ** 4, SCALAR, REAL),
    "powers 4 and 6": (lambda z, y: z**4 + 3 * z**6 - 5 * z, SCALAR, REAL),
    "a product by itself": (lambda z, y: (z - y) * (z - y), SCALAR, REAL),
    "cosh": (lambda z, y: jnp.cosh(z - y), SCALAR, REAL),
    "exponential loss": (lambda z, y: jnp.exp(-y * z), SCALAR, REAL),
    "a power of two": (lambda z, y: 2.0**z - z * y, SCALAR, REAL),
    "poisson": (lambda z, y: jnp.exp(z) - y * z, SCALAR, (np.float64(0), np.float64(9))),
    "linex": (lambda z, y: jnp.exp(z - y) - (z - y) - 1, SCALAR, REAL),
    "hypot": (lambda z, y: jnp.hypot(z, 1.0), SCALAR, REAL),
    "pseudo-huber": (lambda z, y: jnp.sqrt(1 + (z - y) ** 2) - 1, SCALAR, REAL),
    "pseudo-huber, delta": (
        lambda z, y: 4.0 * (jnp.sqrt(1 + jnp.square((z - y) / 2)) - 1), SCALAR, REAL),
    "log(cosh)": (lambda z, y: jnp.log(jnp.cosh(z - y)), SCALAR, REAL),
    "logaddexp(z, -z)": (lambda z, y: jnp.logaddexp(z, -z) - jnp.log(2.0), SCALAR, REAL),
    "stable log cosh": (
        lambda z, y: jnp.abs(z) + jnp.log1p(jnp.exp(-2 * jnp.abs(z))) - jnp.log(2.0),
        SCALAR, REAL),
    "probit": (lambda z, y: -norm.logcdf(y * z), SCALAR, REAL),
    "log_ndtr": (lambda z, y: -log_ndtr(y * z), SCALAR, REAL),
    "norm": (lambda z, y: jnp.linalg.norm(z - y), VECTOR, REALS),
    "norm to one-hot": (lambda z, y: jnp.linalg.norm(z - jax.nn.one_hot(y, 3)), VECTOR, CLASS),
    "squared norm": (lambda z, y: jnp.linalg.norm(z - y) ** 2, VECTOR, REALS),
    "l1": (lambda z, y: jnp.sum(jnp.abs(z - y)), VECTOR, REALS),
    "mean": (lambda z, y: jnp.mean(jnp.abs(z - y)), VECTOR, REALS),
    "max norm": (lambda z, y: jnp.max(jnp.abs(z - y)), VECTOR, REALS),
    "norm inf": (lambda z, y: jnp.linalg.norm(z - y, ord=jnp.inf), VECTOR, REALS),
    "norm 1": (lambda z, y: jnp.linalg.norm(z - y, ord=1), VECTOR, REALS),
    "quadratic form": (lambda z, y: z @ A @ z, VECTOR, REALS),
    "quadratic form by vdot": (lambda z, y: jnp.vdot(z - y, A @ (z - y)), VECTOR, REALS),
    "least squares": (lambda z, y: jnp.sum((B @ z - y[:2]) ** 2), VECTOR, REALS),
    "variance": (lambda z, y: jnp.var(z), VECTOR, REALS),
    "crammer and singer": (
        lambda z, y: jnp.max(z + 1 - jax.nn.one_hot(y, 3)) - z[y], VECTOR, CLASS),
    "max minus label": (lambda z, y: jnp.max(z) - z[y], VECTOR, CLASS),
    "relu": (lambda z, y: jax.nn.relu(1 - y * z), SCALAR, REAL),
    "squared relu": (lambda z, y: jnp.square(jax.nn.relu(1 - y * z)), SCALAR, REAL),
    "elastic": (lambda z, y: z**2 + jnp.abs(z) - jnp.minimum(z, 2 * z), SCALAR, REAL),
    "remat": (lambda z, y: jax.checkpoint(jax.nn.softplus)(z) - y * z, SCALAR, UNIT),
    "jit": (jax.jit(stable_bce), SCALAR, UNIT),
    "vmap": (lambda z, y: jnp.sum(jax.vmap(stable_bce)(z, y)), VECTOR, SIMPLEX),
    "negative log of ratios": (
        lambda z, y: -jnp.log(jnp.exp(z[y]) / jnp.sum(jnp.exp(z))), VECTOR, CLASS),
    "focal of gamma 0": (
        lambda z, y: (1 - jax.nn.sigmoid(z)) ** 0 * jax.nn.softplus(-z), SCALAR, UNIT),
    "one against the rest": (
        lambda z, y: jnp.sum(jax.nn.softplus(z)) - z[y], VECTOR, CLASS),
    "log of tanh": (lambda z, y: -jnp.log((1 + jnp.tanh(z)) / 2), SCALAR, UNIT),
    "linear": (lambda z, y: 3 * z - y, SCALAR, REAL),
}  # fmt: skip


def sampled(low, high, rng):
    if np.issubdtype(low.dtype, np.integer):
        return rng.integers(low, high, endpoint=True).astype(low.dtype)
    return low + (high - low) * rng.random(low.shape)


@pytest.mark.parametrize("name", [*LIBRARY, *SPELLINGS])
def test_convex_losses_are_proven_and_keep_the_midpoint_inequality(name):
    loss, shape, (low, high) = (LIBRARY | SPELLINGS)[name]
    found = prove_convex(loss, logits_shape=shape, low=low, high=high)
    assert found
    assert all("convex" in reason for reason in found)
    rng = np.random.default_rng(0)
    a, b = 3 * rng.normal(size=(2, 40, *shape))
    with jax.enable_x64(True):
        for label in [sampled(low, high, rng) for _ in range(2)]:
            points = jnp.asarray(np.concatenate([a, b, (a + b) / 2]))
            values = (
                [np.asarray(jax.vmap(lambda z, y=label: loss(z, jnp.asarray(y)))(points))]
                if name != "a branch in Python"
                else [np.array([float(loss(z, int(label))) for z in points])]
            )
            left, right, middle = np.split(values[0], 3)
            assert np.all(middle <= (left + right) / 2 + 1e-9 * (1 + np.abs(left) + np.abs(right)))


def test_bounds_that_make_no_range_are_refused():
    for low, high in ((1.0, 0.0), (np.nan, 1.0), (0.0, np.inf), (0, 1.0), (np.zeros(2), 1.0)):
        with pytest.raises(ValueError, match="low and high must be"):
            prove_convex(losses.bernoulli_nll, logits_shape=(), low=low, high=high)
