"""Norms of groups of features, the penalty under which whole groups leave a model.

With J_g the features of group g, the penalty is ``λ Σ_g v_g ‖W[…, J_g]‖ + l1 ‖W‖₁``. The norm of a
group is Euclidean, over its features and over all logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.bounded_l1 import UNIT
from jaxclf.messages import shortened


class GroupNorms(NamedTuple):
    """The part of a penalty that is not smooth, where features have groups."""

    strength: Any
    """λ of the norms, above zero."""
    l1: Any
    """The strength of ``‖W‖₁`` beside the norms."""
    numbers: Any
    """The number of each feature's group, ``(d,)``."""
    weights: Any
    """The weights v of the groups, ``(G,)``, above zero."""

    def scaled(self, factor: float) -> GroupNorms:
        """The norms with both strengths times a factor."""
        return self._replace(strength=self.strength * factor, l1=self.l1 * factor)

    def strengths(self, dtype) -> jax.Array:
        """``λ v_g`` of each group, ``(G,)``."""
        return jnp.asarray(self.strength, dtype) * jnp.asarray(self.weights, dtype)

    lower, upper = -np.inf, np.inf
    """The weights have no bounds."""
    has_bounds = is_smooth = False

    def free(self, l2) -> Any:
        """Whether each weight has no penalty."""
        return np.False_

    def total(self, l2) -> float:
        """The sum of all strengths."""
        return float(self.strength) + float(self.l1) + float(l2)

    def in_units(self, scale, strengths: Callable) -> GroupNorms:
        """The norms, whose columns are not scaled."""
        return self

    def terms(self, w) -> Any:
        """The part of each weight in the penalty, like w: a group's norm is shared out by
        squares."""
        check_columns(self, jnp.shape(w)[-1])
        found = norms_of(self, w)
        share = self.strengths(w.dtype) / jnp.where(found > 0, found, 1)
        return jnp.asarray(self.l1, w.dtype) * abs(w) + by_feature(self, share, w) * w * w

    def smallest_subgradient(self, w, g) -> Any:
        """The smallest subgradient of ``f + penalty``, where f has the gradient g at w."""
        l1, strengths = jnp.asarray(self.l1, w.dtype), self.strengths(w.dtype)
        soft = jnp.where(w == 0, _soft(g, l1), g + l1 * jnp.sign(w))
        found, slopes = norms_of(self, w), norms_of(self, soft)
        at_zero = jnp.maximum(1 - strengths / jnp.where(slopes > 0, slopes, 1), 0)
        kept = jnp.where(found > 0, 1, at_zero)
        pull = jnp.where(found > 0, strengths / jnp.where(found > 0, found, 1), 0)
        return by_feature(self, kept, w) * soft + by_feature(self, pull, w) * w

    def proximal_map(self, w, step) -> Any:
        """``argmin_u  penalty(u) + ‖u - w‖² / (2 step)``: soft-threshold, then shrink each
        group."""
        check_columns(self, jnp.shape(w)[-1])
        step = jnp.asarray(step, w.dtype)
        soft = _soft(w, step * jnp.asarray(self.l1, w.dtype))
        found, strengths = norms_of(self, soft), step * self.strengths(w.dtype)
        kept = jnp.maximum(1 - strengths / jnp.where(found > 0, found, 1), 0)
        return by_feature(self, kept, w) * soft

    def within(self, w, slack) -> Any:
        """The weights, which have no bounds."""
        return w

    def dual_sums(self, w, g, error, l2) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """``Σ h(w) + h*(-g) + w g`` for h the penalty and ``l2/2 w²``, with every g off by its
        error, rounded upwards; and the same sum for c g, with a number c in [0, 1] at which it is
        finite."""
        slack = (2 * w.size + 16) * UNIT  # of the sums in norms
        penalty, product, reach = self.terms(w) + 0.5 * l2 * w * w, w * g, jnp.abs(g) + error
        beyond = above(self, reach, slack) ** 2 / (2 * jnp.where(l2 > 0, l2, 1))
        c = dual_scale(self, reach, slack)
        rounded = slack * jnp.sum(penalty + jnp.abs(product))
        elastic = jnp.sum(penalty + product) + jnp.sum(beyond) + rounded
        elastic = jnp.where(jnp.all(l2 > 0), elastic, jnp.inf)
        return elastic, (jnp.sum(penalty + c * product) + rounded, c)


def make_groups(strength, l1, groups: Iterable, weights) -> GroupNorms:
    """The norms of groups that are given as columns; :func:`jaxclf.penalties.group_lasso` explains
    the arguments."""
    groups = [np.atleast_1d(np.asarray(group)) for group in groups]
    for group in groups:
        if group.size == 0 or group.ndim != 1:
            raise ValueError(f"each group must hold numbers of columns, got {shortened(group)}")
        checks.check_integer("groups", group)
    if not groups:
        raise ValueError("groups must hold the columns of at least one group, got none")
    columns, sizes = np.concatenate(groups), np.array([len(group) for group in groups])
    d = len(columns)
    twice = np.flatnonzero(np.bincount(columns[(columns >= 0) & (columns < d)], minlength=d) > 1)
    if len(twice):
        raise ValueError(f"groups must not overlap, but column {twice[0]} is in two places")
    if columns.min() < 0 or columns.max() >= d:
        missing = np.setdiff1d(np.arange(d), columns)
        raise ValueError(
            f"groups must cover the columns 0 … d-1: column {missing[0]} is in none, and column "
            f"{columns[(columns < 0) | (columns >= d)][0]} is in one"
        )
    weights = np.sqrt(sizes) if weights is None else np.asarray(weights, np.float64)
    checks.check_shape("weights", weights, (len(groups),))
    checks.check_number("weights of groups", weights, above=0)
    numbers = np.empty(d, np.int32)
    numbers[columns] = np.repeat(np.arange(len(groups), dtype=np.int32), sizes)
    return GroupNorms(strength, l1, numbers, weights)


def check_columns(norms: GroupNorms, d: int) -> None:
    """Raises ValueError unless the groups are those of d columns."""
    if len(norms.numbers) != d:
        raise ValueError(
            f"groups must cover all columns, but they hold {len(norms.numbers)} columns, and "
            f"features have {d}"
        )


def norms_of(norms: GroupNorms, w) -> Any:
    """The Euclidean norm of each group of weights ``(…, d)``: ``(G,)``."""
    squares = jnp.sum((w * w).reshape(-1, w.shape[-1]), 0)
    totals = jnp.zeros(len(norms.weights), squares.dtype).at[norms.numbers].add(squares)
    # The slope of the root at zero is infinite, and that of the norm is taken for zero.
    return jnp.where(totals > 0, jnp.sqrt(jnp.where(totals > 0, totals, 1)), 0)


def by_feature(norms: GroupNorms, values, like) -> jax.Array:
    """Numbers of groups ``(G,)`` as numbers of their features, with as many axes as ``like``."""
    return values[norms.numbers].reshape((1,) * (like.ndim - 1) + (-1,))


def curvature_product(norms: GroupNorms, w, d) -> Any:
    """The Hessian of the norms times a direction, for groups that are not zero; 0 for the others.

    It is ``λ v_g (d - u ⟨u, d⟩) / ‖w‖`` with ``u = w / ‖w‖``.
    """
    found = norms_of(norms, w)
    some = jnp.where(found > 0, found, 1)
    pull = jnp.where(found > 0, norms.strengths(w.dtype) / some, 0)
    along = jnp.zeros_like(found).at[norms.numbers].add(jnp.sum(w * d, 0)) / some**2
    return by_feature(norms, pull, w) * (d - by_feature(norms, along, w) * w)


def _soft(x, threshold) -> jax.Array:
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


def above(norms: GroupNorms, size, slack: float) -> jax.Array:
    """``max(0, ‖max(0, |u| - l1)‖ - λ v_g)`` of each group, ``(G,)``, rounded upwards.

    It is how far u is from where the conjugate of the penalty is zero.

    Args:
      norms: the groups.
      size: ``|u|``, ``(K, d)``, or a bound on it.
      slack: the relative error of a computed norm, and of a computed strength.
    """
    soft = jnp.maximum(size - jnp.asarray(norms.l1, size.dtype) * (1 - slack), 0)
    strengths = norms.strengths(size.dtype)
    # As a share of the strength no square that counts is below the normal numbers.
    share = norms_of(norms, soft / by_feature(norms, strengths, size))
    return strengths * jnp.maximum(share * (1 + slack) - (1 - slack), 0)


def dual_scale(norms: GroupNorms, size, slack: float) -> jax.Array:
    """The largest c ≤ 1, rounded downwards, for which c u is where the conjugate of the penalty is
    zero, ``()``.

    The arguments are those of :func:`above`.
    """

    def inside(c):
        return jnp.all(above(norms, c * size, slack) == 0)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        fine = inside(middle)
        return jnp.where(fine, middle, low), jnp.where(fine, high, middle)

    zero, one = jnp.zeros((), size.dtype), jnp.ones((), size.dtype)
    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (zero, one))
    return jnp.where(inside(one), one, low)


_HALVINGS = 64
"""After so many halvings the ends of an interval in [0, 1] are neighbours in float64, or below
1e-19."""
