"""Information content, entropy, cross-entropy and Kullback-Leibler divergence, in any base.

Base 2 gives bits (the default), ``math.e`` nats, 10 hartleys. 0 · log 0 is 0 everywhere.

Source: Cover and Thomas, Elements of Information Theory (2006), chapter 2.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxclf.checks import at_least_float32, check_distribution, check_number, check_same_shape
from jaxclf.extended_reals import times


def hartley_information(num_outcomes, *, base: float = 2) -> jax.Array:
    """``log n``: the yes/no questions (base 2) that single out one of n equally likely outcomes.

    Args:
      num_outcomes: any shape, >= 1.
      base: the base of the logarithm, > 1.

    Example:
      >>> from jaxclf.information import hartley_information
      >>> float(hartley_information(8))
      3.0

    Source: Hartley, Transmission of information, Bell System Technical Journal 7 (1928).
    """
    check_number("num_outcomes", num_outcomes, at_least=1)
    return _log(num_outcomes, base)


def information_content(p, *, base: float = 2) -> jax.Array:
    """Shannon's surprise ``-log p`` of an outcome of probability p; ∞ at p = 0.

    Args:
      p: any shape, in [0, 1].
      base: the base of the logarithm, > 1.

    Example:
      >>> from jaxclf.information import information_content
      >>> float(information_content(0.25))
      2.0
    """
    check_number("p", p, at_least=0, at_most=1)
    return 0.0 - _log(p, base)  # not -0.0 at p = 1


def entropy(p, *, base: float = 2) -> jax.Array:
    """``H(p) = -Σ_k p_k log p_k`` over the last axis; at most ``log K``, for the uniform p.

    Args:
      p: ``(..., K)``, non-negative, summing to one.
      base: the base of the logarithm, > 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.information import entropy
      >>> float(entropy(jnp.array([0.5, 0.25, 0.25])))
      1.5
    """
    check_distribution("p", p)
    p = at_least_float32(p)
    return 0.0 - jnp.sum(_times_log(p, p, base), -1)  # not -0.0 for a sure outcome


def cross_entropy(p, q, *, base: float = 2) -> jax.Array:
    """``H(p, q) = -Σ_k p_k log q_k``: the code length when q is believed and p is true.

    The cross-entropy is at least ``H(p)``, and ∞ where ``q_k = 0 < p_k``.

    Args:
      p, q: ``(..., K)`` of one shape, non-negative, summing to one.
      base: the base of the logarithm, > 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.information import cross_entropy
      >>> float(cross_entropy(jnp.array([1.0, 0.0]), jnp.array([0.25, 0.75])))
      2.0
    """
    _check_pair(p, q)
    return 0.0 - jnp.sum(_times_log(at_least_float32(p), at_least_float32(q), base), -1)


def kl_divergence(p, q, *, base: float = 2) -> jax.Array:
    """``D(p ‖ q) = Σ_k p_k log(p_k / q_k)``, >= 0, and 0 only for p = q; not symmetric.

    The divergence is ∞ where ``q_k = 0 < p_k``. It is computed as ``Σ_k q_k φ(p_k / q_k - 1)`` with
    ``φ(d) = (1 + d) log(1 + d) - d >= 0``: every term is non-negative, so nothing cancels however
    close p is to q. (The two sums differ by ``Σ p - Σ q``, which is 0.)

    Args:
      p, q: ``(..., K)`` of one shape, non-negative, summing to one.
      base: the base of the logarithm, > 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.information import kl_divergence
      >>> round(float(kl_divergence(jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75]))), 4)
      0.2075
    """
    _check_pair(p, q)
    check_number("base", base, above=1)
    p, q = at_least_float32(p), at_least_float32(q)
    both = (p > 0) & (q > 0)
    d = jnp.where(both, (p - q) / jnp.where(q > 0, q, 1), 0)
    small = jnp.abs(d) < 1e-2
    series = d * d * (1 / 2 - d * (1 / 6 - d * (1 / 12 - d * (1 / 20 - d / 30))))
    near = jnp.where(small, 0.5, d)  # keeps the derivative of the other branch finite
    phi = jnp.where(small, series, (1 + near) * jnp.log1p(near) - near)
    outside = jnp.where((p > 0) & (q == 0), jnp.inf, jnp.where(q > 0, q, 0))
    terms = jnp.where(both, q * phi, outside)
    return jnp.sum(jnp.where(jnp.isnan(p) | jnp.isnan(q), jnp.nan, terms), -1) / math.log(base)


def _check_pair(p, q) -> None:
    check_same_shape("p", p, "q", q)
    check_distribution("p", p)
    check_distribution("q", q)


def _log(x, base) -> jax.Array:
    check_number("base", base, above=1)
    return jnp.log(at_least_float32(x)) / math.log(base)


def _times_log(p, q, base) -> jax.Array:
    """``p log q`` with 0 · log 0 = 0, and derivatives that stay finite there."""
    return times(p, _log(jnp.where((p == 0) & (q == 0), 1, q), base))
