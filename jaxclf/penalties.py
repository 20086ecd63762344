"""Penalties on the parameters: value and proximal map.

One family covers all: ``l1 ‖W‖₁ + (l2 / 2) ‖W‖²``. A penalty is a plain pytree of its two numbers,
so a jitted function serves every strength without compiling again, and a stack of strengths can be
mapped over. Intercepts are never penalised: leaves named ``intercept`` or ``bias`` are left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxclf.checks import at_least_float32, check_number, check_shape

_UNPENALISED = ("intercept", "bias")


class Penalty(NamedTuple):
    """``l1 ‖W‖₁ + (l2 / 2) ‖W‖²``; made by :func:`l1`, :func:`l2` or :func:`elastic_net`."""

    l1: Any = 0.0
    l2: Any = 0.0


def l2(strength) -> Penalty:
    """Ridge penalty ``(strength / 2) ‖W‖²``.

    Args:
      strength: ``()``, >= 0. scikit-learn's ``C`` is ``strength = 1 / (C · sum of weights)``, see
        :func:`strength_from_sklearn`.

    Raises:
      ValueError: if the strength is negative or not finite.

    Example:
      >>> from jaxclf.penalties import l2, penalty_value
      >>> float(penalty_value(l2(0.5), {"weights": 2.0, "intercept": 9.0}))
      1.0

    Source: Hoerl and Kennard, Ridge regression, Technometrics 12 (1970).
    """
    return elastic_net(l1=0.0, l2=strength)


def l1(strength) -> Penalty:
    """Lasso penalty ``strength · ‖W‖₁``, which sets weights to exactly zero.

    The arguments and the errors are those of :func:`l2`.

    Example:
      >>> from jaxclf.penalties import l1, penalty_value
      >>> float(penalty_value(l1(0.5), {"weights": 2.0, "intercept": 9.0}))
      1.0

    Source: Tibshirani, Regression shrinkage and selection via the lasso, J. R. Stat. Soc. B 58
    (1996).
    """
    return elastic_net(l1=strength, l2=0.0)


def elastic_net(*, l1, l2) -> Penalty:
    """``l1 ‖W‖₁ + (l2 / 2) ‖W‖²``.

    The arguments and the errors are those of :func:`l2`, for both strengths.

    Source: Zou and Hastie, J. R. Stat. Soc. B 67 (2005).
    """
    check_number("l1", l1, at_least=0)
    check_number("l2", l2, at_least=0)
    return Penalty(l1=l1, l2=l2)


def check_strengths(penalty: Penalty) -> None:
    """Raises ValueError unless both strengths are single numbers that are not negative."""
    for name, strength in penalty._asdict().items():
        check_number(name, strength, at_least=0)
        check_shape(name, strength, ())


def strength_from_sklearn(C: float, total_weight: float) -> float:
    """The λ whose objective is scikit-learn's up to a factor: ``λ = 1 / (C · total_weight)``.

    Args:
      C: scikit-learn's inverse strength, > 0.
      total_weight: sum of the sample weights; the number of rows when they are all one.

    Example:
      >>> from jaxclf.penalties import strength_from_sklearn
      >>> strength_from_sklearn(C=0.1, total_weight=1000)
      0.01
    """
    check_number("C", C, above=0)
    check_number("total_weight", total_weight, above=0)
    return 1 / C / total_weight  # the product may be beyond float64


def penalty_value(penalty: Penalty, params) -> jax.Array:
    """``l1 ‖W‖₁ + (l2 / 2) ‖W‖²`` over the penalised leaves of ``params``.

    Returns:
      ``()``, accumulated in float32 or wider.
    """
    leaves = [at_least_float32(leaf) for leaf in _penalised_leaves(params)]
    absolute = sum(jnp.sum(jnp.abs(leaf)) for leaf in leaves)
    square = sum(jnp.sum(leaf * leaf) for leaf in leaves)
    return penalty.l1 * absolute + penalty.l2 / 2 * square


def proximal_map(penalty: Penalty, params, step):
    """``argmin_u  penalty(u) + ‖u - params‖² / (2 step)``: soft-threshold, then shrink.

    ``u = sign(w) max(0, |w| - step·l1) / (1 + step·l2)`` on penalised leaves; the others are
    returned as they are.

    Args:
      penalty: a penalty, whose strengths may be traced.
      params: any pytree.
      step: ``()``, > 0.

    Returns:
      A pytree like ``params``.

    Source: Parikh and Boyd, Proximal algorithms (2014), sections 6.1.3 and 6.5.2.
    """

    def shrink(path, w):
        if not _is_penalised(path):
            return w
        threshold = jnp.asarray(step * penalty.l1, w.dtype)
        scale = jnp.asarray(1 + step * penalty.l2, w.dtype)
        return jnp.sign(w) * jnp.maximum(jnp.abs(w) - threshold, 0) / scale

    return jax.tree_util.tree_map_with_path(shrink, params)


def penalised(params):
    """A pytree like ``params`` of booleans that say which leaves are penalised: an optax mask."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_penalised(path), params)


def _penalised_leaves(params) -> list:
    paths_and_leaves = jax.tree_util.tree_leaves_with_path(params)
    return [leaf for path, leaf in paths_and_leaves if _is_penalised(path)]


def _is_penalised(path) -> bool:
    names = {str(getattr(key, "name", getattr(key, "key", None))) for key in path}
    return names.isdisjoint(_UNPENALISED)
