"""Losses that must not be proven convex, for a range of labels or for one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm

from jaxclf import activations, losses
from jaxclf.analysis.certify import Convex, certify_convexity
from jaxclf.analysis.disciplined import disciplined
from jaxclf.analysis.proofs import prove_convex
from tests.analysis.label_ranges import (
    BINARY,
    CLASS,
    MINUS,
    PLUS,
    REAL,
    REALS,
    SCALAR,
    UNIT,
    VECTOR,
)


def rampant(z, y):
    return jnp.clip(1 - y * z, 0, 1)


def focal(z, y):
    return (1 - jax.nn.sigmoid(z)) ** 2 * jax.nn.softplus(-z)


def ring_of_sorted(z, y):
    return jnp.sum(jnp.sort(z) * jnp.array([1.0, 0.0, -1.0]))


def by_cond(z, y):
    return jax.lax.cond(z > 0, lambda x: -x, lambda x: x, z)


def by_while(z, y):
    return jax.lax.while_loop(lambda x: x > 1, lambda x: x / 2, z)


def by_scan(z, y):
    return jax.lax.scan(lambda c, x: (c * x, None), z[0], z)[0]


@jax.custom_jvp
def wrong_rule(z):
    return z**2


@wrong_rule.defjvp
def _wrong_rule(primals, tangents):
    return wrong_rule(primals[0]), 5 * tangents[0]


@jax.custom_vjp
def wrong_pullback(z):
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z)))


wrong_pullback.defvjp(lambda z: (wrong_pullback(z), z), lambda z, t: (t * z,))


@jax.custom_gradient
def wrong_gradient(z):
    return jax.nn.softplus(z), lambda t: -t


def imitation(function, rule):
    """With the name and the jaxpr of another function, and a rule of its own."""
    copy = jax.custom_jvp(function)
    copy.defjvp(rule)
    return copy


false_softplus = imitation(activations._softplus.fun, lambda p, t: (false_softplus(*p), 2 * t[0]))


def small_kink(z, y):
    """The function is |z|, the derivative at zero is 7."""
    return jnp.where(z == 0, 7 * z, jnp.abs(z))


def spike(z, y):
    return jnp.where(z > 0, 1.0, 0.0) - jnp.where(z >= 0, 1.0, 0.0) + z**2


def dip(z, y):
    return jnp.where(z >= 0, 1.0, 0.0) - jnp.where(z > 0, 1.0, 0.0) + z**2


def wrong_shift(z, y):
    m = jnp.max(z)
    return m / 2 + jnp.log(jnp.sum(jnp.exp(z - m))) - z[y]


def other_shift(z, y):
    m = jnp.max(z)
    return jnp.min(z) + jnp.log(jnp.sum(jnp.exp(z - m)))


def tempered(z, y):
    return jnp.log(jnp.sum(jnp.exp(2 * z))) - 3 * jax.nn.logsumexp(z)


NOT_CONVEX = {
    "zero_one": (losses.zero_one, SCALAR, PLUS),
    "zero_one of -1": (losses.zero_one, SCALAR, MINUS),
    "sigmoid_squared_error": (losses.sigmoid_squared_error, SCALAR, UNIT),
    "sigmoid_squared_error of 1": (losses.sigmoid_squared_error, SCALAR, PLUS),
    "softmax_squared_error": (losses.softmax_squared_error, VECTOR, CLASS),
    "of a lambda": (lambda z, y: losses.sigmoid_squared_error(z, y), SCALAR, BINARY),
    "of jit": (jax.jit(losses.sigmoid_squared_error), SCALAR, UNIT),
    "of a partial": (
        partial(lambda scale, z, y: scale * losses.softmax_squared_error(z, y), 2.0),
        VECTOR, CLASS),
    "negative": (lambda z, y: -losses.bernoulli_nll(z, y), SCALAR, UNIT),
    "hinge of any number": (losses.hinge, SCALAR, (np.float64(-1), np.float64(1))),
    "nll of any label": (losses.bernoulli_nll, SCALAR, (np.float64(-1), np.float64(1))),
    "a class that does not exist": (losses.categorical_nll, VECTOR, (np.int32(0), np.int32(3))),
    "-z²": (lambda z, y: -(z**2), SCALAR, REAL),
    "sin": (lambda z, y: jnp.sin(3 * z), SCALAR, REAL),
    "sin and a square": (lambda z, y: z**2 + 3 * jnp.sin(z), SCALAR, REAL),
    "a step": (lambda z, y: jnp.where(z > 0, 1.0, 0.0), SCALAR, REAL),
    "a jump": (lambda z, y: jnp.where(z > 0, z + 0.1, 0.0), SCALAR, REAL),
    "a jump of the smallest size": (
        lambda z, y: jnp.where(z > 0, z + 2.0**-1000, 0.0), SCALAR, REAL),
    "clipped": (lambda z, y: jnp.minimum((z - y) ** 2, 1.0), SCALAR, REAL),
    "clipped cross-entropy": (
        lambda z, y: -jnp.log(jnp.clip(jax.nn.sigmoid(z), 1e-7, 1 - 1e-7)), SCALAR, UNIT),
    "ramp": (rampant, SCALAR, PLUS),
    "tanh": (lambda z, y: jnp.tanh(z), SCALAR, REAL),
    "z³": (lambda z, y: z**3, SCALAR, REAL),
    "z³ by products": (lambda z, y: z * z * z, SCALAR, REAL),
    "root of |z|": (lambda z, y: jnp.abs(z) ** 0.5, SCALAR, REAL),
    "log of |z|": (lambda z, y: jnp.log(jnp.abs(z)), SCALAR, REAL),
    "log(1 + z²)": (lambda z, y: jnp.log(1 + z**2), SCALAR, REAL),
    "-sqrt(1 + z²)": (lambda z, y: -jnp.sqrt(1 + z**2), SCALAR, REAL),
    "sqrt of a log": (lambda z, y: jnp.sqrt(jax.nn.softplus(z)), SCALAR, REAL),
    "minimum of squares": (lambda z, y: jnp.minimum((z - 1) ** 2, (z + 1) ** 2), SCALAR, REAL),
    "minimum of lines": (lambda z, y: jnp.minimum(z, -z), SCALAR, REAL),
    "softmax accuracy": (lambda z, y: 1 - jax.nn.softmax(z)[y], VECTOR, CLASS),
    "sigmoid": (lambda z, y: jax.nn.sigmoid(z), SCALAR, REAL),
    "floor": (lambda z, y: jnp.floor(z), SCALAR, REAL),
    "round": (lambda z, y: jnp.round(z) + z**2, SCALAR, REAL),
    "sign": (lambda z, y: jnp.sign(z), SCALAR, REAL),
    "as integer": (lambda z, y: z.astype(int).astype(float), SCALAR, REAL),
    "a comparison": (lambda z, y: (z > y).astype(float), SCALAR, REAL),
    "argmax": (lambda z, y: -z[jnp.argmax(z)], VECTOR, CLASS),
    "argmax missed": (lambda z, y: (jnp.argmax(z) != y).astype(float), VECTOR, CLASS),
    "a product": (lambda z, y: z[0] * z[1], VECTOR, CLASS),
    "an indefinite quadratic": (lambda z, y: z @ np.diag([1.0, 1, -1e-12]) @ z, VECTOR, CLASS),
    "a quadratic of the label": (lambda z, y: jnp.sum(y * z**2), VECTOR, REALS),
    "concave pieces": (lambda z, y: jnp.where(z > 0, z, 2 * z), SCALAR, REAL),
    "a slope that falls": (lambda z, y: jnp.where(z > 1, 2 * z - 1, z**2 + 1e-9 * z), SCALAR, REAL),
    "a piece that bends down": (lambda z, y: jnp.where(z > 0, z**2, -(z**2)), SCALAR, REAL),
    "a bounded bend": (
        lambda z, y: jnp.where(jnp.abs(z) < 1, -(z**2), 2 * jnp.abs(z) - 3), SCALAR, REAL),
    "tukey": (
        lambda z, y: jnp.where(jnp.abs(z) < 1, 1 - (1 - z**2) ** 3, 1.0), SCALAR, REAL),
    "a sign of the label": (lambda z, y: y * z**2, SCALAR, REAL),
    "a flip of the label": (lambda z, y: jnp.where(y > 0, z**2, -(z**2)), SCALAR, REAL),
    "a flip of the class": (lambda z, y: (1 - y) * z**2, SCALAR, (np.int32(0), np.int32(2))),
    "a label that wraps around": (
        lambda z, y: (y * np.int8(2)).astype(float) * z**2, SCALAR, (np.int8(60), np.int8(99))),
    "a byte that wraps around": (
        lambda z, y: -(y + np.uint8(5)).astype(float) * -(z**2) - 4 * z**2,
        SCALAR, (np.uint8(0), np.uint8(255))),
    "exp(-z²)": (lambda z, y: jnp.exp(-(z**2)), SCALAR, REAL),
    "correntropy": (lambda z, y: 1 - jnp.exp(-((z - y) ** 2) / 2), SCALAR, REAL),
    "sorted": (ring_of_sorted, VECTOR, CLASS),
    "cond": (by_cond, SCALAR, REAL),
    "while": (by_while, SCALAR, REAL),
    "scan": (by_scan, VECTOR, CLASS),
    "focal": (focal, SCALAR, UNIT),
    "optax focal": (lambda z, y: optax.sigmoid_focal_loss(z, y), SCALAR, PLUS),
    "generalised cross-entropy": (
        lambda z, y: (1 - jax.nn.softmax(z)[y] ** 0.7) / 0.7, VECTOR, CLASS),
    "savage": (lambda z, y: 1 / (1 + jnp.exp(z * y)) ** 2, SCALAR, PLUS),
    "tangent": (lambda z, y: (2 * jnp.arctan(z * y) - 1) ** 2, SCALAR, PLUS),
    "logit of softmax": (
        lambda z, y: jnp.log(jax.nn.softmax(z)[0]) + jax.nn.logsumexp(2 * z) / 4, VECTOR, CLASS),
    "wrong shift": (wrong_shift, VECTOR, CLASS),
    "another shift": (other_shift, VECTOR, CLASS),
    "a difference of logsumexp": (tempered, VECTOR, CLASS),
    "-logsumexp": (lambda z, y: -jax.nn.logsumexp(z) + z[y], VECTOR, CLASS),
    "|z| - z²": (lambda z, y: jnp.abs(z) - z**2, SCALAR, REAL),
    "z² - |z|": (lambda z, y: z**2 - jnp.abs(z), SCALAR, REAL),
    "a difference of maxima": (
        lambda z, y: jnp.maximum(z, 0) - jnp.maximum(2 * z, -1), SCALAR, REAL),
    "a log of a part": (
        lambda z, y: jnp.log(1e-7 + jax.nn.sigmoid(z)), SCALAR, REAL),
    "minus log with a floor": (
        lambda z, y: -jnp.log(1e-7 + jax.nn.sigmoid(z)), SCALAR, REAL),
    "a log that is no number": (lambda z, y: -jnp.log(z), SCALAR, REAL),
    "a root that is no number": (lambda z, y: -jnp.sqrt(z), SCALAR, REAL),
    "a hidden NaN": (lambda z, y: jnp.where(z > -9, z**2, jnp.nan), SCALAR, REAL),
    "an infinite wall": (lambda z, y: jnp.where(z > 0, jnp.inf, z), SCALAR, REAL),
    "zero times a NaN": (lambda z, y: z**2 + 0 * jnp.log(z), SCALAR, REAL),
    "1/z": (lambda z, y: 1 / z, SCALAR, REAL),
    "1/z²": (lambda z, y: 1 / z**2, SCALAR, REAL),
    "a quotient": (lambda z, y: -1 / (1 + z * z), SCALAR, REAL),
    "gelu": (lambda z, y: jax.nn.gelu(z), SCALAR, REAL),
    "silu": (lambda z, y: jax.nn.silu(z), SCALAR, REAL),
    "erf": (lambda z, y: jax.scipy.special.erf(z), SCALAR, REAL),
    "normal cdf": (lambda z, y: norm.cdf(z), SCALAR, REAL),
    "log of the normal cdf": (lambda z, y: norm.logcdf(z), SCALAR, REAL),
    "a square of a convex one": (lambda z, y: (jnp.abs(z) - 1) ** 2, SCALAR, REAL),
    "an exp of a concave one": (lambda z, y: jnp.exp(-jnp.abs(z)), SCALAR, REAL),
    "a kink that points up": (lambda z, y: jnp.log1p(jnp.exp(-jnp.abs(z))), SCALAR, REAL),
    "cumulative sums": (lambda z, y: -jnp.sum(jnp.cumsum(z) ** 2), VECTOR, CLASS),
    "products of all": (lambda z, y: jnp.prod(z), VECTOR, CLASS),
    "log_softmax plus": (lambda z, y: jax.nn.log_softmax(z)[y], VECTOR, CLASS),
    "entropy": (
        lambda z, y: -jnp.sum(jax.nn.softmax(z) * jax.nn.log_softmax(z)), VECTOR, CLASS),
    "a softmax of some": (
        lambda z, y: -jax.nn.log_softmax(z, where=z > 0)[1], VECTOR, CLASS),
    "huber of a wrong slope": (
        lambda z, y: jnp.where(jnp.abs(z) <= 1, z**2, jnp.abs(z)), SCALAR, REAL),
    "modulo": (lambda z, y: z % 1.0, SCALAR, REAL),
    "median": (lambda z, y: jnp.median(z), VECTOR, CLASS),
    "standard deviation minus": (lambda z, y: -jnp.std(z), VECTOR, CLASS),
    "cosine": (lambda z, y: -jnp.dot(z, y) / jnp.linalg.norm(z), VECTOR, REALS),
    "spike": (spike, SCALAR, REAL),
    "dip": (dip, SCALAR, REAL),
}  # fmt: skip
OTHER_DERIVATIVE = {
    "a wrong jvp": (lambda z, y: wrong_rule(z), SCALAR, REAL),
    "a wrong vjp": (lambda z, y: wrong_pullback(z), SCALAR, REAL),
    "a wrong gradient": (lambda z, y: wrong_gradient(z), SCALAR, REAL),
    "a wrong softplus": (lambda z, y: false_softplus(z), SCALAR, REAL),
    "inside jit": (lambda z, y: jax.jit(wrong_rule)(z) - y * z, SCALAR, REAL),
    "stopped": (lambda z, y: jax.lax.stop_gradient(z) ** 2, SCALAR, REAL),
    "stopped in part": (lambda z, y: z**2 + jax.lax.stop_gradient(z), SCALAR, REAL),
    "straight through": (
        lambda z, y: jnp.abs(z) + jax.lax.stop_gradient(z**2 - jnp.abs(z)), SCALAR, REAL),
    "a product with the stopped": (lambda z, y: z * jax.lax.stop_gradient(z), SCALAR, REAL),
    "a maximum with the stopped": (
        lambda z, y: jnp.maximum(z, jax.lax.stop_gradient(-z)), SCALAR, REAL),
    "stopped in a logsumexp": (
        lambda z, y: jax.nn.logsumexp(jax.lax.stop_gradient(z)) - z[y], VECTOR, CLASS),
    "a shift that does not cancel": (
        lambda z, y: jnp.max(z) + jnp.log(jnp.sum(jnp.exp(z - jax.lax.stop_gradient(jnp.max(z))))),
        VECTOR, CLASS),
    "a wrong derivative at a point": (small_kink, SCALAR, REAL),
    "two kinds of kinks": (lambda z, y: jax.nn.relu(z) - jax.nn.relu(-z), SCALAR, REAL),
}  # fmt: skip


@pytest.mark.parametrize("name", [*NOT_CONVEX, *OTHER_DERIVATIVE])
def test_other_losses_are_not_proven(name):
    loss, shape, (low, high) = (NOT_CONVEX | OTHER_DERIVATIVE)[name]
    assert prove_convex(loss, logits_shape=shape, low=low, high=high) is None


OF_SOME_LABELS = ("hinge of any number", "nll of any label", "a quadratic of the label",
                  "a sign of the label", "a flip of the label", "a flip of the class",
                  "a class that does not exist", "a label that wraps around",
                  "a byte that wraps around")  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(NOT_CONVEX) - set(OF_SOME_LABELS)))
def test_the_rules_say_so_of_single_labels_too(name):
    loss, shape, (_, high) = NOT_CONVEX[name]
    with jax.enable_x64(True):
        found = disciplined(loss, high, *shape or (None,))
    assert found.shape not in ("affine", "convex")


def test_a_function_keeps_its_proof_whatever_its_derivative():
    for name in ("a wrong jvp", "a wrong vjp", "stopped", "straight through"):
        loss, _, _ = OTHER_DERIVATIVE[name]
        assert isinstance(certify_convexity(loss, labels=[1.0]), Convex)
