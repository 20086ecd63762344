"""A bound on the gap of a point by Fenchel duality, with the rounding of every sum in it.

Let ``αᵢ = ωᵢ ℓ′(zᵢ)`` be the weighted slopes of the rows at the point, ``G = Σ αᵢ xᵢᵀ``, and h the
penalty of one weight. If ``Σ αᵢ = 0``, then α is feasible for the dual problem, in which the
intercept is an equality constraint, and

    F(W, b) - min F  ≤  Σ h(w) + h*(-g) + w g    over the weights w and their entries g of G,

because Fenchel's inequality holds with equality for every row. The terms are:

- with ``h = l1 |w| + l2/2 w²`` within bounds on w: ``h*(u) = u v - h(v)`` at a v where that is
  largest, which is ``sign(u) max(0, |u| - l1) / l2`` or the bound nearest to it. A term is then
  ``(w - v) (g + l2 (w + v) / 2) + l1 (|w| - |v|)``. Without l1 and bounds their sum is
  ``‖∇_W F‖² / (2 l2)``. A term is convex in g, so that it is largest at an end of the interval in
  which rounding leaves g.
- with l2 = 0 and a side without a bound h* is infinite beyond ``|u| = l1`` on that side. Where α
  breaks that limit, cα does not, with ``c = l1 / max |G|`` over these sides. For a loss ``ℓ ≥ m``,
  by convexity, ``ℓ*(cα) ≤ c ℓ*(α) - (1 - c) m``.
- with ``h = c ‖w‖ + l1 ‖w‖₁`` of a group: h* is 0 where ``‖max(0, |u| - l1)‖ ≤ c`` and infinite
  beyond, as a sum of norms has the sum of their dual balls. With a ridge h* is the squared
  distance from there over 2 l2, which is ``max(0, ‖max(0, |u| - l1)‖ - c)² / (2 l2)``.

**The intercept.** ``S = Σ αᵢ`` is never exactly zero in floating point. A nearby α′ has a sum of
exactly zero, and stays in the domain of the conjugate. The cost of α′ is added to the bound:

- one logit, or a sum of functions of one logit each: the part of the αᵢ with the sign of S is
  scaled by ``1 - |S| / P ≥ 0``, where P is the sum of that part. The dual value falls by at most
  ``|S| / P Σ (ωᵢ (ℓᵢ - m) - αᵢ zᵢ)``.
- softmax, ``αᵢ = ωᵢ (pᵢ - tᵢ)``: a class with S > 0 gives the share ``r = S / Σ ωᵢ pᵢ`` of its
  probability to the classes with S < 0. The dual value, which is ``Σ ωᵢ H(pᵢ)`` of entropies, falls
  by at most ``Σ |S_k| (1 + log 1 / Σ ωᵢ pᵢₖ)``, because entropies are concave, and by Jensen's
  inequality.
- any other loss: α is mixed with the slopes at nearby points. The intercept is shifted there by δ:
  by ρ in one logit each, or by -ρ in all logits. If ``Σ c_j (S_j - S) = -S`` with small
  ``c_j ≥ 0``, the mixture is feasible. By convexity of the conjugate and of the loss it costs
  ``Σ c_j ⟨S_j - S, δ_j⟩``.

**An offset** oᵢ adds ``⟨αᵢ, oᵢ⟩`` to the dual value. It is a feature whose weight is one and known:
in the bound it cancels, because Fenchel's equality holds for the logit with the offset. Only a
change of α, for the intercept, costs what it costs for such a feature.

**Rounding.** A computed logit may be off by ``δ = (d + 4) u (‖w_k‖ ‖xᵢ‖ + |b_k|)``. To first order
this moves the bound by ``Σ |αᵢ| δ``. The rest, ``ℓ(z + s) - ℓ(z) - ⟨ℓ′(z), s⟩`` with |s| ≤ δ, is at
most ``Σ_k δ_k (ℓ′_k(z + K δ_k e_k) - ℓ′_k(z - K δ_k e_k))`` by convexity, because z + s is a mean
over k of points that move logit k alone. For a softmax it is at most half the square of the largest
δ_k, because a variance is at most a quarter of the squared range.

A sum of n numbers in any order differs from the exact one by ``D u Σ |terms|`` at most, to first
order, with u = 2⁻⁵³ and D the number of additions that a term goes through.
``Σ |terms|`` of an entry of G is at most ``(Σ ωᵢ ℓ′ᵢ²)^½ (Σ ωᵢ xᵢ²)^½``. Slopes and values of rows
are taken to be off by at most 16 u times their size. Digits may cancel in slopes of soft labels,
and anywhere in a user's formula. Such slopes and values may be off by 16 u times one too, and such
values by 16 u times the logits. So the bound holds for the numbers in memory.

Sources: Boyd and Vandenberghe, Convex Optimization (2004), sections 3.3 and 5.1.6; Ndiaye, Fercoq,
Gramfort and Salmon, Gap safe screening rules, J. Mach. Learn. Res. 18 (2017), section 2; Higham,
Accuracy and Stability of Numerical Algorithms (2002), section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxclf.activations import softmax
from jaxclf.bounded_l1 import UNIT
from jaxclf.group_norms import GroupNorms
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine
from jaxclf.penalties import not_smooth
from jaxclf.sparse_rows import of_numbers

FLUSHED = 2.0**-126 / UNIT
"""A feature counts as at least so large. In float32 programs take numbers below 2⁻¹²⁶ for zero,
and 2⁻¹²⁶ is u of this. So what they take from a feature is a part of its rounding."""
EVALUATED = 16
"""The units of roundoff by which the slope of a row may be off."""
_NEARBY = 1e-5
"""ρ, in units of a logit: far more than rounding, and so little that curvature hardly changes."""
_SINGULAR = 1e-9
"""A singular value below this share of the largest is taken for zero."""


class Sums(NamedTuple):
    """The sums over the rows at a point, in float64. The sums of blocks of rows add up."""

    risk: jax.Array
    """The mean loss ``Σ ωᵢ ℓᵢ``."""
    gradient: Affine
    """The gradient of the mean loss, ``Σ αᵢ (xᵢ, 1)ᵀ``."""
    dual: jax.Array
    """The part of the rows in the dual value, ``Σ ωᵢ ℓᵢ - ⟨αᵢ, zᵢ⟩``."""
    absolute: jax.Array
    """The sum of absolute slopes ``Σ |αᵢ|``, ``(K,)``."""
    size: jax.Array
    """The mean absolute loss ``Σ ωᵢ |ℓᵢ|``."""
    squares: jax.Array
    """The mean squared slopes ``Σ ωᵢ ℓ′ᵢ²``, ``(K,)``."""
    moments: jax.Array
    """The mean squared features ``Σ ωᵢ xᵢ²``, ``(d,)``."""
    above_tangent: jax.Array
    """The most by which the rounding of logits moves the mean loss beyond first order."""
    mass: jax.Array | None
    """The mean probabilities ``Σ ωᵢ pᵢ`` of a softmax, ``(K,)``."""
    offsets: jax.Array
    """The mean squared offsets ``Σ ωᵢ oᵢ²``, ``(K,)``; zero without an offset."""
    nearby: Nearby | None = None
    """The sums at nearby points, where the structure is ``mixed`` and there is an intercept."""


class Nearby(NamedTuple):
    """The sums at nearby points, which lie at the J shifts of :func:`nearby_shifts`."""

    slopes: jax.Array
    """The sums of slopes ``Σ αᵢ`` at the shifts, ``(J, K)``."""
    squares: jax.Array
    """The mean squared slopes ``Σ ωᵢ ℓ′ᵢ²`` at the shifts, ``(J, K)``."""
    common: jax.Array
    """``Σᵢ |Σ_k αᵢₖ|`` at the point itself: zero if the loss ignores shifts of all logits."""


class Sizes(NamedTuple):
    """The sizes of the features, which certificates of several points have in common."""

    moments: jax.Array
    """The mean squared features ``Σ ωᵢ xᵢ²``, ``(d,)``."""
    lengths: jax.Array
    """The sum of :func:`squared_sizes` of each row, ``(n,)``."""


class Known(NamedTuple):
    """The facts of a loss, with the labels that it has here, that a bound needs."""

    structure: str
    """The structure of the loss, a static value: ``softmax``; ``separable`` for a loss that is
    bounded below, and separable or of one logit; or ``mixed``."""
    lower_bound: float = -math.inf
    """A number that the loss is never below."""
    cancellation: float = 1.0
    """0 where no digits cancel in slopes and values, as in a log loss with labels 0 and 1, else 1.
    With 1 they may be off by 16 u times their size and one, and values by 16 u times the logits
    too."""
    target_factor: float = 1.0
    """The largest factor between one and the sum of a row's target, at least 1. The structure
    ``softmax`` is exact for a target that sums to one."""
    convex: bool = False
    """Whether the loss is known to be convex."""
    attains_minimum: bool = True
    ignores_shifts: bool = False
    """Whether the loss stays the same when all logits rise by the same amount."""
    self_concordance: float | None = None
    """The constant of self-concordance in the record of the loss, see :mod:`jaxclf.facts`."""

    @property
    def numbers(self) -> tuple[float, float, float]:
        """The numbers that compiled programs take beside the structure, in the order of fields."""
        return self.lower_bound, self.cancellation, self.target_factor


@lru_cache(maxsize=64)
def sums_block(loss: Callable, structure: str, intercept: bool, curved: bool) -> Callable:
    """The block function of the sums for a bound on the gap; with the Hessian if ``curved``.

    It may get the pair of the logits and of the rows of :class:`Sizes`, which do not depend on the
    point. Then it leaves the moments out.
    """

    def sums(x, z, labels, weights, errors):
        z, lengths = z if isinstance(z, tuple) else (z, None)
        losses, slopes = lp.losses_and_slopes(loss, z, labels)
        alpha = slopes * weights[:, None]
        weighted, moments = jnp.sum(losses * weights), jnp.zeros(x.shape[1], z.dtype)
        if lengths is None:
            squared = squared_sizes(x)
            moments, lengths = weights @ squared, squared.sum(1)
        delta = logit_errors(lengths, errors, labels)
        found = Sums(
            weighted,
            Affine(alpha.T @ x, jnp.sum(alpha, 0) if intercept else None),
            weighted - jnp.sum(alpha * lp.at_offset(z, labels)),
            jnp.sum(jnp.abs(alpha), 0),
            jnp.sum(jnp.abs(losses) * weights),
            weights @ slopes**2,
            moments,
            weights @ _above_tangent(loss, structure, z, labels, delta),
            weights @ softmax(lp.at_offset(z, labels)) if structure == "softmax" else None,
            weights @ lp.offset_size(z, labels) ** 2,
        )
        if not curved:
            return found, None
        hessian = lp.block_hessian(loss, x, z, labels, weights, None, intercept=intercept)
        return (found, hessian), None

    return sums


def squared_sizes(x) -> Any:
    """The squares of features, of which rounding may take u times their root."""
    return of_numbers(lambda x: x * x + 2 * FLUSHED**2, x)


def sizes_block(x, z, labels, weights):
    """The block function of :class:`Sizes`."""
    squared = squared_sizes(x)
    return weights @ squared, squared.sum(1)


def roundoff(v: Affine) -> Affine:
    """``(d + 4) u ‖w_k‖`` and ``(d + 4) u |b_k|``, from which :func:`logit_errors` makes δ."""
    units = (v.weights.shape[1] + 4) * UNIT
    intercept = None if v.intercept is None else units * abs(v.intercept)
    return Affine(units * (v.weights**2).sum(1) ** 0.5, intercept)


def logit_errors(lengths, errors: Affine, labels) -> jax.Array:
    """δ, the most by which rounding may have moved each logit: ``(n, K)``.

    Args:
      lengths: ``(n,)``, the sum of :func:`squared_sizes` of each row.
      errors: the result of :func:`roundoff`.
      labels: the labels, which may have an offset.
    """
    delta = jnp.sqrt(lengths)[:, None] * errors.weights[None]
    delta = delta + 4 * UNIT * lp.offset_size(delta, labels)
    return delta if errors.intercept is None else delta + errors.intercept[None]


def _above_tangent(loss: Callable, structure: str, z, labels, delta) -> jax.Array:
    """The most by which a change of the logits within δ raises each loss above its tangent."""
    if structure == "softmax":
        return jnp.max(delta, 1) ** 2  # twice what a target that sums to one needs
    num_logits = z.shape[1]

    def rise(moved):
        """``⟨δ, ℓ′(z + s) - ℓ′(z - s)⟩`` over the logits that move."""

        def slopes(side):
            return jax.vmap(jax.grad(loss))(z + side * moved, labels)

        ahead, behind = jax.vmap(slopes)(jnp.array([1, -1], z.dtype))
        return jnp.sum(jnp.maximum(ahead - behind, 0) * jnp.where(moved > 0, delta, 0), 1)

    if structure == "separable" or num_logits == 1:
        return rise(delta)
    alone = num_logits * jnp.eye(num_logits, dtype=z.dtype)
    return jnp.sum(jax.lax.map(lambda direction: rise(delta * direction[None]), alone), 0)


def gap_bound(v: Affine, sums: Sums, l1, l2, known: Known, depth) -> jax.Array:
    """An upper bound on the gap of a point, ``()``; infinite where duality gives none.

    Args:
      v: the point, float64.
      sums: the sums over the rows at the point.
      l1, l2: strengths of the penalty, for all weights, ``(1, d)`` or ``(K, d)``. For groups l1 has
        their norms, and l2 is one number; it may have bounds too. A weight that has neither a
        strength nor a bound on each side is a constraint of the dual problem, which leaves no
        bound but that from the least value of the loss.
      known: the facts of the loss, which must be convex.
      depth: D, the number of additions that a term of a sum over the rows goes through.
    """
    w, g = v.weights, sums.gradient.weights
    rms, slope = jnp.sqrt(sums.moments), jnp.sqrt(sums.squares)
    relative_error = (depth + EVALUATED) * UNIT
    # A bound on Σ |αᵢ xᵢ| for each weight, with the absolute error of each slope in it.
    terms = (slope + known.cancellation)[:, None] * rms[None]
    error = relative_error * terms
    size, fallen, in_offset = jnp.abs(w), 0.0, 0.0
    in_product = jnp.sum(size * error)
    if v.intercept is not None:
        moved, fallen = _feasible(v, sums, known, relative_error)
        error = error + moved[:, None] * rms[None]
        if known.structure == "softmax":  # what some classes give, others get
            in_product = in_product + 2 * jnp.sum(moved[0] * rms * jnp.max(size, 0))
            in_offset = 2 * moved[0] * jnp.sqrt(jnp.sum(sums.offsets))
        elif known.structure == "separable":
            in_product = jnp.sum(size * error)
            in_offset = jnp.sum(moved * jnp.sqrt(sums.offsets))
        elif isinstance(l1, GroupNorms):  # Fenchel's equality is lost for the mixture
            in_product = jnp.sum(size * error)
    # The logits are rounded too, which moves the loss by its slopes times their rounding, and more.
    of_logits = 2 * (w.shape[1] + 4) * UNIT * logit_terms(v, sums) + sums.above_tangent
    rounded = of_logits + in_offset + value_error(v, sums, known)

    found = not_smooth(l1).dual_sums(w, g, error, l2)
    terms = certain(sums.risk, known.lower_bound, *found)
    bound = jnp.maximum(terms, 0) + in_product + fallen + rounded
    return jnp.where(jnp.isfinite(bound), bound, jnp.inf)


def certain(risk, lower_bound, whole, scaled) -> jax.Array:
    """The smaller of the two sums of ``dual_sums``; the scaled one with what the scale costs in the
    loss."""
    total, c = scaled
    return jnp.minimum(whole, total + jnp.where(c < 1, (1 - c) * (risk - lower_bound), 0))


def gap_but_for_rounding(w, g, risk, l1, l2, lower_bound) -> jax.Array:
    """The bound of :func:`gap_bound` but for rounding and for the slope in the intercept, ``()``.

    It tells a solver how close it is.

    Args:
      w: the weights ``(K, d)``.
      g: the gradient of the mean loss there.
      risk: the mean loss there.
      l1, l2, lower_bound: the arguments of :func:`gap_bound`.
    """
    w, g = w.astype(jnp.float64), g.astype(jnp.float64)
    whole, (scaled, c) = not_smooth(l1).dual_sums(w, g, jnp.zeros_like(g), l2)
    scaled = jnp.where(c > 0, scaled, jnp.inf), c  # with c = 0 it says nothing of the point
    return jnp.maximum(certain(risk, lower_bound, whole, scaled), 0)


def value_error(v: Affine, sums: Sums, known: Known) -> jax.Array:
    """The most by which the mean loss may be off, because the values of the rows are off."""
    sizes = jnp.sum(jnp.abs(v.weights) @ jnp.sqrt(sums.moments))  # Σ ωᵢ |zᵢ| is at most that
    sizes = sizes + jnp.sum(jnp.sqrt(sums.offsets))
    if v.intercept is not None:
        sizes = sizes + jnp.sum(jnp.abs(v.intercept))
    return EVALUATED * UNIT * (sums.size + known.cancellation * (1 + sizes))


def logit_terms(v: Affine, sums: Sums) -> jax.Array:
    """A bound on ``Σᵢ |αᵢ| (|W| |xᵢ| + |b| + |oᵢ|)``, the effect of relative changes of terms of
    logits."""
    sizes = jnp.sqrt(sums.squares)[:, None] * jnp.sqrt(sums.moments)[None]
    found = jnp.sum(jnp.abs(v.weights) * sizes) + jnp.sum(jnp.sqrt(sums.squares * sums.offsets))
    if v.intercept is None:
        return found
    return found + jnp.sum(jnp.abs(v.intercept) * sums.absolute)


def _feasible(v: Affine, sums: Sums, known: Known, relative_error) -> tuple[jax.Array, jax.Array]:
    """The cost of making ``Σ αᵢ`` zero.

    Returns:
      For each logit the most that an entry of G moves, in units of ``(Σ ωᵢ xᵢ²)^½``, and the most
      by which the bound rises besides.
    """
    absolute, slope, total = sums.absolute, jnp.sqrt(sums.squares), sums.gradient.intercept
    if known.structure == "mixed":
        return _mixed(sums, relative_error * (absolute + known.cancellation))
    if known.structure == "softmax":
        # The probabilities of a row weigh as much as its target.
        mass = sums.mass / known.target_factor
        all_mass = jnp.sum(sums.mass) * known.target_factor
        error = relative_error * (absolute + 2 * known.cancellation * mass)
        given = jnp.clip(total + error, 0, mass)
        some = jnp.maximum(mass, jnp.finfo(mass.dtype).tiny)
        # r (Σ ωᵢ pᵢₖ)^½ of the giving class bounds what moves, by Cauchy and Schwarz.
        moved = jnp.broadcast_to(jnp.sum(given / jnp.sqrt(some)), mass.shape)
        fallen = 1.01 * jnp.sum(given * (1 + jnp.log(all_mass / some)))
    else:
        error = relative_error * (absolute + known.cancellation)
        share = 2 * (jnp.abs(total) + error) / jnp.where(absolute > 0, absolute, 1)
        share = jnp.minimum(jnp.where(absolute > 0, share, 0), 1)
        moved, largest = share * slope, jnp.max(share)
        fallen = jnp.where(largest > 0, largest * (sums.dual - known.lower_bound), 0)
    return moved, jnp.maximum(fallen, 0) + jnp.sum((jnp.abs(total) + error) * jnp.abs(v.intercept))


def _mixed(sums: Sums, total_error) -> tuple[jax.Array, jax.Array]:
    """The cost that :func:`_feasible` returns, for a mixture with nearby points.

    All ``c_j`` are raised by the same amount, which hardly changes the sum, so that none is
    negative. They differ from the exact ones by rounding over the smallest singular value.
    """
    if sums.nearby is None:
        return jnp.full_like(total_error, jnp.inf), jnp.inf
    slopes, squares, common = sums.nearby
    total, num_logits = sums.gradient.intercept, len(total_error)
    shifts = nearby_shifts(num_logits)
    changes = (slopes - total[None]).T
    left, sizes, right = jnp.linalg.svd(changes, full_matrices=False)
    kept = sizes > _SINGULAR * sizes[0]
    ignores_shifts = common <= EVALUATED * num_logits * UNIT * jnp.sum(sums.absolute)
    whole = jnp.sum(~kept) <= jnp.where(ignores_shifts, 1, 0)
    inverse = jnp.where(kept, 1 / jnp.where(kept, sizes, 1), 0)

    def solved(b):
        return -(inverse * (b @ left)) @ right

    c = solved(total)
    raised = 2 * jnp.max(jnp.abs(c)) + 4 * jnp.linalg.norm(total_error) * jnp.max(inverse)
    # Raising all c by the same amount leaves a sum, which is subtracted again.
    c = c + raised + solved(raised * jnp.sum(changes, 1))
    error = jnp.linalg.norm(total_error) * (1 + 4 * jnp.sum(jnp.abs(c))) * jnp.max(inverse)
    c = jnp.abs(c) + 2 * error
    fine = whole & (jnp.sum(c) < 1) & jnp.isfinite(error)
    c = jnp.where(fine, c, jnp.inf)
    moved = c @ jnp.sqrt(squares) + jnp.sum(c) * jnp.sqrt(sums.squares)
    cost = jnp.sum(c * jnp.abs(jnp.sum(changes.T * shifts, 1)))
    return moved, cost + jnp.sum(c) * jnp.sum(total_error) * jnp.max(jnp.abs(shifts))


def nearby_shifts(num_logits: int) -> jax.Array:
    """The shifts δ, ``(K + 1, K)``: each logit by ρ, and all logits by -ρ."""
    each = jnp.eye(num_logits)
    return _NEARBY * jnp.concatenate([each, -jnp.ones((1, num_logits))])
