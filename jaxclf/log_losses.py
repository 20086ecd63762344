"""The log losses of one example, with derivatives that are written down.

Automatic derivatives would be as right, but take longer to compile and lose digits where a class
has a probability of almost one. Arguments are valid here: :mod:`jaxclf.losses` checks them.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxclf.activations import below_max, log_softmax, minus_mean, sigmoid, softmax, softplus
from jaxclf.extended_reals import times, where_weighted


@jax.custom_jvp
def bernoulli(z, y):
    """``-[y log σ(z) + (1 - y) log σ(-z)]``."""
    # Each outcome has its own term: softplus(z) - y z would cancel for a confident correct answer.
    return times(1 - y, softplus(z)) + times(y, softplus(-z))


@partial(bernoulli.defjvp, symbolic_zeros=True)
def _bernoulli_jvp(primals, tangents):
    (z, y), (dz, dy) = primals, tangents
    slope = (1 - y) * sigmoid(z) - y * sigmoid(-z)
    tangent = 0 if isinstance(dz, SymbolicZero) else slope * dz
    if not isinstance(dy, SymbolicZero):
        right, wrong = where_weighted(y, softplus(-z)), where_weighted(1 - y, softplus(z))
        tangent = tangent + (right - wrong) * dy
    return bernoulli(z, y), jnp.asarray(tangent, slope.dtype)


@jax.custom_jvp
def cross_entropy(z, target):
    """``-Σ_k t_k log softmax(z)_k`` of a target ``(K,)``."""
    return jnp.sum(times(target, -log_softmax(z)))


@partial(cross_entropy.defjvp, symbolic_zeros=True)
def _cross_entropy_jvp(primals, tangents):
    (z, target), (dz, dtarget) = primals, tangents
    p = softmax(z)
    slopes = jnp.sum(target) * p - target
    # The exact slopes sum to zero. The computed sum is what rounding took from the slope of a class
    # of probability almost 1, and is given back to that slope.
    slopes = slopes - p * jnp.sum(slopes)
    tangent = 0 if isinstance(dz, SymbolicZero) else jnp.sum(slopes * dz)
    if not isinstance(dtarget, SymbolicZero):
        tangent = tangent - jnp.sum(where_weighted(target, log_softmax(z)) * dtarget)
    return cross_entropy(z, target), jnp.asarray(tangent, slopes.dtype)


@jax.custom_jvp
def cross_entropy_of_class(z, label):
    """``-log softmax(z)_y`` of a class y; NaN where y is -1.

    Its derivative takes half the time of that of :func:`cross_entropy`, which takes longer than the
    products with the features where these are few.
    """
    return jnp.sum(times(one_hot_or_nan(label, z), -log_softmax(z)))


@cross_entropy_of_class.defjvp
def _cross_entropy_of_class_jvp(primals, tangents):
    value, slopes = _value_and_slopes(*primals)
    return value, jnp.sum(slopes * tangents[0])


@jax.custom_jvp
def _value_and_slopes(z, label):
    """``-log p_y`` and ``p - e_y``, which share their exponentials."""
    hot = jnp.arange(len(z)) == label
    below = below_max(z)
    unnormalised = jnp.exp(below)
    # The slope of the label is minus the probability of the others, which 1 - p_y would round away.
    others = jnp.sum(jnp.where(hot, 0, unnormalised))
    others = jnp.where(label >= 0, others, jnp.nan)
    label_below = jnp.sum(jnp.where(hot, below, 0))
    total = others + jnp.exp(label_below)
    value = jnp.where(label_below == 0, jnp.log1p(others), jnp.log(total) - label_below)
    return value, jnp.where(hot, -others, unnormalised) / total


@_value_and_slopes.defjvp
def _value_and_slopes_jvp(primals, tangents):
    (z, _), (dz, _) = primals, tangents
    found = _, slopes = _value_and_slopes(*primals)
    p = softmax(z)
    return found, (jnp.sum(slopes * dz), p * minus_mean(p, dz))


def one_hot_or_nan(label, z):
    """The target ``e_y``, in the dtype of the logits; NaN where y is -1."""
    hot = jnp.arange(len(z)) == label
    return jnp.where(label >= 0, hot.astype(z.dtype), jnp.nan)
