"""Penalties on the parameters: value and proximal map.

One family covers all: ``l1 ‖W‖₁ + (l2 / 2) ‖W‖²``, with norms of groups of features in the place of
``‖W‖₁`` where features have groups. A penalty is a plain pytree of its two numbers,
so a jitted function serves every strength without compiling again, and a stack of strengths can be
mapped over. Intercepts are never penalised: leaves named ``intercept`` or ``bias`` are left out.

Each strength may have factors, one for each feature or for each coefficient. A coefficient with the
factor 0 is free, and one with an infinite factor is fixed at zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import group_norms
from jaxclf.bounded_l1 import BoundedL1
from jaxclf.checks import at_least_float32, check_number
from jaxclf.group_norms import GroupNorms

_UNPENALISED = ("intercept", "bias")


class Penalty(NamedTuple):
    """``l1 ‖W‖₁ + (l2 / 2) ‖W‖²``; made by :func:`l1`, :func:`l2` or :func:`elastic_net`.

    The strengths are single numbers, or with factors arrays ``(d,)`` or ``(K, d)``. The ``l2`` of
    a coefficient that is fixed at zero is infinite. :func:`group_lasso` has
    :class:`~jaxclf.group_norms.GroupNorms` in the place of ``l1``.
    """

    l1: Any = 0.0
    l2: Any = 0.0


def l2(strength, *, factors=None) -> Penalty:
    """Ridge penalty ``(strength / 2) ‖W‖²``; with factors f it is ``(strength / 2) Σ f w²``.

    Args:
      strength: ``()``, >= 0. scikit-learn's ``C`` is ``strength = 1 / (C · sum of weights)``, see
        :func:`strength_from_sklearn`.
      factors: numbers >= 0 that the strength is multiplied by, ``(d,)`` for the features or
        ``(K, d)`` for the coefficients: 0 leaves a coefficient free, infinity fixes it at zero.

    Raises:
      ValueError: if the strength is negative or not finite, or a factor is negative or NaN.

    Example:
      >>> from jaxclf.penalties import l2, penalty_value
      >>> float(penalty_value(l2(0.5), {"weights": 2.0, "intercept": 9.0}))
      1.0

    Source: Hoerl and Kennard, Ridge regression, Technometrics 12 (1970).
    """
    return elastic_net(l1=0.0, l2=strength, factors=factors)


def l1(strength, *, factors=None) -> Penalty:
    """Lasso penalty ``strength · ‖W‖₁``, which sets weights to exactly zero.

    With factors f it is ``strength · Σ f |w|``.

    The arguments and the errors are those of :func:`l2`.

    Example:
      >>> from jaxclf.penalties import l1, penalty_value
      >>> float(penalty_value(l1(0.5), {"weights": 2.0, "intercept": 9.0}))
      1.0

    Source: Tibshirani, Regression shrinkage and selection via the lasso, J. R. Stat. Soc. B 58
    (1996).
    """
    return elastic_net(l1=strength, l2=0.0, factors=factors)


def elastic_net(*, l1, l2, factors=None) -> Penalty:
    """``l1 ‖W‖₁ + (l2 / 2) ‖W‖²``; with factors f it is ``Σ f (l1 |w| + (l2 / 2) w²)``.

    The arguments and the errors are those of :func:`l2`, for both strengths.

    Source: Zou and Hastie, J. R. Stat. Soc. B 67 (2005).
    """
    check_number("l1", l1, at_least=0)
    check_number("l2", l2, at_least=0)
    if factors is None:
        return Penalty(l1=l1, l2=l2)
    factors = np.asarray(factors, np.float64)
    if factors.ndim not in (1, 2):
        raise ValueError(f"factors must have shape (d,) or (K, d), got {factors.shape}")
    if not (factors >= 0).all():
        wrong = factors.flat[int(np.argmin(factors >= 0))]
        raise ValueError(
            f"factors must be at least 0, or infinite to fix a weight at zero, got {wrong:g}"
        )
    fixed = np.where(factors == np.inf, np.inf, 0)
    factors = np.where(fixed > 0, 0, factors)
    has_l1 = isinstance(l1, jax.core.Tracer) or np.asarray(l1) != 0
    return Penalty(l1=l1 * factors + fixed if has_l1 else l1, l2=l2 * factors + fixed)


def group_lasso(strength, groups: Iterable, weights=None, *, l1=0.0, l2=0.0) -> Penalty:
    """``strength Σ_g v_g ‖W[…, J_g]‖ + l1 ‖W‖₁ + (l2 / 2) ‖W‖²``, which drops whole groups.

    The norm of a group is over its features J_g and all logits. With groups of one feature each, a
    feature leaves all classes at once. With ``l1`` it is the sparse group lasso.

    Args:
      strength: ``()``, > 0.
      groups: for each group the numbers of its columns; every column is in one group.
      weights: v, ``(G,)``, > 0; by default the root of the number of features.
      l1, l2: ``()``, >= 0.

    Raises:
      ValueError: groups that overlap or leave a column out, or strengths or weights out of range.

    Example:
      >>> from jaxclf.penalties import group_lasso, penalty_value
      >>> penalty = group_lasso(0.5, [[0, 2], [1]], weights=[2.0, 1.0])
      >>> float(penalty_value(penalty, {"weights": jnp.array([3.0, 2.0, 4.0])}))
      6.0

    Source: Yuan and Lin, Model selection and estimation in regression with grouped variables, J. R.
    Stat. Soc. B 68 (2006); Simon, Friedman, Hastie and Tibshirani, A sparse-group lasso, J. Comput.
    Graph. Stat. 22 (2013).
    """
    check_number("strength", strength, above=0)
    check_number("l1", l1, at_least=0)
    check_number("l2", l2, at_least=0)
    return Penalty(l1=group_norms.make_groups(strength, l1, groups, weights), l2=l2)


def check_strengths(penalty: Penalty, shape: tuple[int, ...] = ()) -> None:
    """Raises ValueError unless strengths are numbers that are not negative, one or with factors
    that fit weights of a shape.

    Args:
      penalty: the penalty.
      shape: the shape of the weights, ``(d,)`` or ``(K, d)``; ``()`` takes no factors.
    """
    if isinstance(norms := penalty.l1, GroupNorms):
        check_number("strength", norms.strength, above=0)
        if shape:
            group_norms.check_columns(norms, shape[-1])
        penalty = penalty._replace(l1=norms.l1)
    for name, strength in penalty._asdict().items():
        if np.ndim(strength):
            strengths = np.asarray(strength, np.float64)
            check_number(name, np.where(strengths == np.inf, 0, strengths), at_least=0)
            _check_factors(strength, shape)
        else:
            check_number(name, strength, at_least=0)


def check_factors_finite(what: str, penalty: Penalty) -> None:
    """Raises ValueError where a factor fixes a coefficient at zero, which only minimize does."""
    concrete = not isinstance(penalty.l2, jax.core.Tracer)
    if concrete and np.isinf(np.asarray(penalty.l2)).any():
        raise ValueError(
            f"{what} takes finite penalty factors; jaxclf.minimize takes infinite ones"
        )


def _check_factors(strength, shape: tuple[int, ...]) -> None:
    given = np.shape(strength)
    if given and not shape:
        raise ValueError(f"one strength for all weights is needed here, got factors {given}")
    if given not in ((), shape, shape[-1:]):
        raise ValueError(f"penalty factors of shape {given} do not fit weights of shape {shape}")


def not_smooth(l1: Any) -> BoundedL1 | GroupNorms:
    """The part of a penalty that is not smooth; a strength alone is L1 without bounds."""
    return l1 if isinstance(l1, BoundedL1 | GroupNorms) else BoundedL1(l1)


def is_smooth(penalty: Penalty) -> bool:
    """Whether a penalty has neither L1 nor norms of groups, nor bounds."""
    return not_smooth(penalty.l1).is_smooth


def total_strength(penalty: Penalty) -> float:
    """λ of a penalty, the sum of its strengths: of ``elastic_net(l1=λ a, l2=λ (1 - a))``.

    With factors it is that of the coefficient with the largest finite factor.
    """
    return not_smooth(penalty.l1).total(penalty.l2)


def with_strength(penalty: Penalty, total) -> Penalty:
    """The penalty with the same shares of L1 and L2, whose strengths add up to ``total``."""
    factor, norms = float(total) / total_strength(penalty), penalty.l1

    def scaled(x):
        return np.asarray(x, np.float64) * factor if np.ndim(x) else float(x) * factor

    l1 = norms.scaled(factor) if isinstance(norms, GroupNorms) else scaled(norms)
    return Penalty(l1=l1, l2=scaled(penalty.l2))


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
    if isinstance(penalty.l1, GroupNorms):
        absolute = sum(jnp.sum(penalty.l1.terms(leaf)) for leaf in leaves)
    else:
        absolute = _total(penalty.l1, map(jnp.abs, leaves))
    return absolute + _total(penalty.l2, (leaf * leaf / 2 for leaf in leaves))


def _total(strength, terms) -> jax.Array:
    """``Σ strength · term`` over the terms of the leaves."""
    if jnp.ndim(strength) == 0:
        return strength * sum(map(jnp.sum, terms))
    return sum(jnp.sum(_products(_on(strength, term), term)) for term in terms)


def _on(strength, leaf) -> jax.Array:
    """The strength of each weight of a leaf."""
    _check_factors(strength, jnp.shape(leaf))
    return jnp.broadcast_to(jnp.asarray(strength, leaf.dtype), leaf.shape)


def _products(strengths, terms) -> jax.Array:
    """Products in which an infinite strength times zero is zero, also in the derivative."""
    fixed = jnp.isinf(strengths)
    products = jnp.where(fixed, 0, strengths) * terms
    return products + jnp.where(fixed & (terms > 0), jnp.inf, 0)


def proximal_map(penalty: Penalty, params, step):
    """``argmin_u  penalty(u) + ‖u - params‖² / (2 step)``: soft-threshold, then shrink.

    ``u = sign(w) max(0, |w| - step·l1) / (1 + step·l2)`` on penalised leaves; the others are
    returned as they are. Groups are shrunk by their norms before the ridge shrinks all.

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
        part = not_smooth(penalty.l1)
        part = part._replace(l1=_on(part.l1, w))
        return part.proximal_map(w, step) / _on(1 + step * penalty.l2, w)

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
