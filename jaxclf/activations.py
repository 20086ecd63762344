"""Maps from scores to decisions and probabilities, and the normalisers softmax is chosen over.

All are pure functions of any floating shape (the softmax family works on the last axis). Halves
are computed in float32 and returned in their own dtype. The derivatives of the four primitives are
written out, because the closed forms stay accurate where automatic differentiation of the formula
cancels: ``σ' = σ(z) σ(-z)`` keeps its relative precision at ``z = 40``, ``σ (1 - σ)`` does not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxclf.checks import at_least_float32


def unit_step(z) -> jax.Array:
    """The Heaviside step, which is 1 where ``z >= 0``, else 0. Its gradient is zero everywhere.

    Returns:
      Array shaped like ``z``; NaN stays NaN.
    """
    z = jnp.asarray(z)
    return jnp.heaviside(at_least_float32(z), 1.0).astype(_float_dtype(z))


def sigmoid(z) -> jax.Array:
    """Logistic function ``σ(z) = 1 / (1 + exp(-z))``, in (0, 1); ``σ(-∞) = 0``, ``σ(∞) = 1``.

    Example:
      >>> from jaxclf.activations import sigmoid
      >>> float(sigmoid(0.0))
      0.5
    """
    return _in_float32(_sigmoid, z)


def log_sigmoid(z) -> jax.Array:
    """``log σ(z) = -softplus(-z)``, accurate where σ underflows: ``log σ(-1e4) = -1e4``."""
    return _in_float32(lambda x: -_softplus(-x), z)


def softplus(z) -> jax.Array:
    """``log(1 + exp(z))``, without overflow; its derivative is the sigmoid."""
    return _in_float32(_softplus, z)


def logit(p) -> jax.Array:
    """Log-odds ``log(p / (1 - p))``, the inverse of :func:`sigmoid`.

    Args:
      p: probabilities in [0, 1]; 0 gives -∞, 1 gives ∞, and anything outside gives NaN.

    Example:
      >>> from jaxclf.activations import logit
      >>> round(float(logit(0.75)), 4)
      1.0986
    """
    return _in_float32(lambda x: jnp.log(x) - jnp.log1p(-x), p)


def odds(p) -> jax.Array:
    """Odds ``p / (1 - p)`` of a probability ``p`` in [0, 1]; ``odds(1) = ∞``.

    Example:
      >>> from jaxclf.activations import odds
      >>> float(odds(0.75))
      3.0
    """
    return _in_float32(lambda x: x / (1 - x), p)


def softmax(logits) -> jax.Array:
    """``exp(z_k) / Σ_j exp(z_j)`` over the last axis.

    The result is non-negative, sums to one and keeps the order of the logits.

    Args:
      logits: ``(..., K)``. A class at -∞ gets probability 0; classes at +∞ share all of it.

    Returns:
      Probabilities ``(..., K)``. They are NaN if every logit is -∞, because there is no
      distribution then.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.activations import softmax
      >>> softmax(jnp.array([1000.0, 1000.0])).tolist()
      [0.5, 0.5]
    """
    return _in_float32(_softmax, logits)


def log_softmax(logits) -> jax.Array:
    """``z_k - log Σ_j exp(z_j)`` over the last axis, in nats.

    The largest class is computed as ``-log1p(Σ of the others)``, so that a log-probability of
    -1e-9 keeps its relative precision in float32 where the usual formula returns 0.

    Args:
      logits: ``(..., K)``, infinities as for :func:`softmax`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.activations import log_softmax
      >>> log_softmax(jnp.array([0.0, -1000.0])).tolist()
      [0.0, -1000.0]
    """
    return _in_float32(_log_softmax, logits)


def sum_normaliser(scores) -> jax.Array:
    """``z_k / Σ_j z_j`` over the last axis, which softmax replaces.

    The result sums to one, but has negative entries when signs differ and is undefined at a zero
    sum.
    """
    return _in_float32(lambda z: z / jnp.sum(z, -1, keepdims=True), scores)


def absolute_normaliser(scores) -> jax.Array:
    """``|z_k| / Σ_j |z_j|`` over the last axis, which softmax replaces.

    The result is non-negative and sums to one. It is blind to sign (all 2^K sign patterns give one
    output), so it does not keep the order of the scores. It is undefined at zero.
    """
    return _in_float32(lambda z: jnp.abs(z) / jnp.sum(jnp.abs(z), -1, keepdims=True), scores)


def _float_dtype(x: jax.Array):
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else at_least_float32(x).dtype


def _in_float32(function, x) -> jax.Array:
    x = jnp.asarray(x)
    return function(at_least_float32(x)).astype(_float_dtype(x))


@jax.custom_jvp
def _sigmoid(z):
    return jax.lax.logistic(z)


@_sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    s = _sigmoid(z)
    return s, s * _sigmoid(-z) * dz


@jax.custom_jvp
def _softplus(z):
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z)))


@_softplus.defjvp
def _softplus_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return _softplus(z), _sigmoid(z) * dz


def below_max(z):
    """``z - max(z)``, which is 0 for entries at +∞."""
    return jnp.where(z == jnp.inf, 0, z - jnp.max(z, -1, keepdims=True))


@jax.custom_jvp
def _softmax(z):
    unnormalised = jnp.exp(below_max(z))
    return unnormalised / jnp.sum(unnormalised, -1, keepdims=True)


@_softmax.defjvp
def _softmax_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    p = _softmax(z)
    return p, p * minus_mean(p, dz)


@jax.custom_jvp
def _log_softmax(z):
    below = below_max(z)
    # The sum is over exp of every entry but one of the largest. Ties beyond the first count as
    # exp(0) = 1.
    ties = jnp.sum(below == 0, -1, keepdims=True)
    rest = jnp.sum(jnp.where(below < 0, jnp.exp(below), 0), -1, keepdims=True)
    rest = rest + (ties - 1).astype(rest.dtype)
    return below - jnp.log1p(rest)


@_log_softmax.defjvp
def _log_softmax_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return _log_softmax(z), minus_mean(_softmax(z), dz)


def minus_mean(p, dz):
    """``dz_k - Σ_j p_j dz_j``: the tangent of log softmax."""
    centred = dz - jnp.sum(p * dz, -1, keepdims=True)
    # The mean of what is centred is 0. Taking it off again restores what the first subtraction
    # rounds away for a class of probability almost 1, where the tangent is tiny.
    return centred - jnp.sum(p * centred, -1, keepdims=True)
