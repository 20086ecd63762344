"""A sequence of penalties, each solved from the solution before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from scipy.optimize import brentq

from jaxclf import checks
from jaxclf.certificates.certificate import certify
from jaxclf.group_norms import GroupNorms
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra.columns import columns_of, params_in_units
from jaxclf.linear_algebra.problem import Affine
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Batch, Objective
from jaxclf.penalties import (
    Penalty,
    is_smooth,
    l1,
    not_smooth,
    total_strength,
    with_strength,
)
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.sharing import on_device, to_host
from jaxclf.solvers.in_memory import rows_in_memory
from jaxclf.solvers.inputs import (
    as_affine,
    bounded,
    check_linear,
    check_params,
    checked_batch,
    known_loss,
    of_logits,
)
from jaxclf.solvers.minimize import minimize, minimize_each
from jaxclf.solvers.result import SolverResult

_TOL_OF_FREE = 1e-14
"""The gap of the weights without a penalty, where the others are zero. In tests their slopes are
then below 1e-10."""
_LEAST_L1 = 1e-3
"""The share of L1 that a path of a penalty with less is begun for, as no λ makes weights zero
without L1."""


@dataclass(frozen=True)
class Path(Sequence[SolverResult]):
    """The results of :func:`minimize_path`, a sequence of them, with their penalties."""

    results: tuple[SolverResult, ...]
    penalties: tuple[Penalty, ...]
    bounds: Any = None
    """The bounds on the weights of all fits."""

    @property
    def strengths(self) -> np.ndarray:
        """λ of each penalty, the sum of its strengths."""
        return np.array([total_strength(penalty) for penalty in self.penalties])

    def __getitem__(self, place):
        return self.results[place]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[SolverResult]:
        return iter(self.results)


@standard_promotion
def lambda_max(objective: Objective, params, batch: Batch, *, bounds: Any = None) -> float:
    """The smallest λ at which all penalised weights are zero at the optimum.

    Weights with a penalty factor of 0 are at their own optimum there.

    λ is the sum of the strengths of the objective's penalty, whose parts keep their shares:
    ``elastic_net(l1=0.5 * λ, l2=0.5 * λ)`` for ``elastic_net(l1=1, l2=1)``. With G the gradient of
    the mean loss at zero weights and the best intercept, L1 has ``λ = max |G|``, and an elastic net
    that number over its share of L1. With factors f, λ is the strength of the largest finite one,
    and ``|G|`` is divided by ``f / max f``. Of groups it is the least λ with
    ``‖max(0, |G_g| - l1)‖ ≤ λ v_g``, where l1 grows with λ. The intercept is found in float64.
    A slope along which a bound lets no weight leave zero counts as zero.

    Args:
      objective: an objective from :func:`jaxclf.make_objective` with the logits of
        :func:`jaxclf.models.linear.logits`; without a penalty λ is that of L1.
      params: parameters ``weights`` and ``intercept`` of the model; their numbers do not matter.
      batch: rows from :func:`jaxclf.make_batch`, in memory.
      bounds: the bounds of :func:`jaxclf.minimize`. Zero must lie between those of each weight with
        a penalty.

    Raises:
      ValueError: a penalty without L1, under which no λ makes weights zero; and everything that
        :func:`jaxclf.minimize` raises for such arguments.
      TypeError: an objective that is no linear model.

    Example:
      >>> from jaxclf import lambda_max, losses, make_batch, make_objective
      >>> from jaxclf.models import linear
      >>> objective = make_objective(linear.logits, losses.bernoulli_nll)
      >>> start = linear.LinearParams(np.zeros(1), np.zeros(()))
      >>> lambda_max(objective, start, make_batch([[0.0], [0.0], [2.0], [2.0]], [0, 0, 1, 1]))
      0.5

    Source: Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via
    coordinate descent, J. Stat. Softw. 33 (2010), section 2.5.
    """
    penalty = _shape_of(objective)
    if is_smooth(penalty):
        raise ValueError(f"no λ of {penalty} makes weights zero: lambda_max needs an L1 penalty")
    return _zero_from(penalty, _slopes_at_zero(objective, params, batch, penalty, bounds), 0.0)


@standard_promotion
def minimize_path(
    objective: Objective,
    params,
    batch: Batch,
    strengths: Iterable[Penalty] | Penalty | None = None,
    *,
    num: int = 100,
    min_ratio: float | None = None,
    **options,
) -> Path:
    """The results of :func:`jaxclf.minimize` for each penalty, from where those before point.

    With L1 each fit starts from the solution before. Without L1 it starts where a quadratic in
    log λ through the last solutions points.
    Strengths are arguments of the compiled programs, so another strength compiles nothing; with L1
    a program is compiled only when the number of weights that are not zero has doubled. Strong to
    weak is the cheap order, because the first solutions are close to zero.

    Args:
      objective: an objective from :func:`jaxclf.make_objective`. Its own penalty gives the shares
        of L1 and L2 where no strengths are given, and is not used otherwise.
      params: the first start.
      batch: rows from :func:`jaxclf.make_batch`.
      strengths: penalties, such as ``[penalties.l2(x) for x in (1, 0.1, 0.01)]``; a ``None`` among
        them is none. By default λ goes from :func:`lambda_max` down to ``min_ratio`` times that,
        evenly in the logarithm. With less than 0.1 % of L1 in the penalty the path begins where it
        would with 0.1 %.
      num: the number of λ where no strengths are given.
      min_ratio: the last λ over the first, by default 1e-4, or 0.01 where there are fewer rows than
        features.
      options: options of :func:`jaxclf.minimize`.

    Returns:
      One result for each penalty, in their order, and the penalties.

    Raises:
      ValueError: no penalties; and everything that :func:`jaxclf.minimize` raises.

    Source: Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via
    coordinate descent, J. Stat. Softw. 33 (2010), section 2.5.
    """
    if strengths is None:
        bounds = options.get("bounds")
        strengths = _generated(objective, params, batch, bounds, num, min_ratio)
    strengths = (strengths,) if isinstance(strengths, Penalty) else tuple(strengths)
    strengths = tuple(Penalty() if penalty is None else penalty for penalty in strengths)
    if not strengths:
        raise ValueError("a path needs at least one penalty, got none")
    for penalty in strengths:
        if not isinstance(penalty, Penalty):
            raise TypeError(
                f"strengths must be penalties, such as penalties.l2(0.1), got {penalty!r}"
            )
    objectives = (replace(objective, penalty=penalty) for penalty in strengths)
    results = tuple(minimize_each(objectives, params, batch, **options))
    return Path(results, strengths, options.get("bounds"))


def _generated(
    objective, params, batch, bounds: Any, num: int, min_ratio: float | None
) -> list[Penalty]:
    """Penalties of falling strength, with the shares of the objective's penalty."""
    checks.check_number("num", num, at_least=1)
    penalty = _shape_of(objective)
    total = total_strength(penalty)
    checks.check_number("the strength of the penalty of a path", total, above=0)
    shape = np.shape(batch.features)
    ends = strength_range(objective, params, batch, [penalty], shape, min_ratio, bounds)
    return [with_strength(penalty, x) for x in np.geomspace(*ends, num)]


def strength_range(
    objective: Objective,
    params,
    batch: Batch,
    penalties: Sequence[Penalty],
    shape: tuple[int, int],
    min_ratio: float | None = None,
    bounds: Any = None,
) -> tuple[float, float]:
    """The strongest and the weakest λ of the paths of penalties with the shares of these.

    Args:
      objective, params, batch: the problem.
      penalties: penalties above zero, with the same factors.
      shape: the number of rows and of features, without those that fill up.
      min_ratio: the last λ of a path over its first; see :func:`minimize_path`.
      bounds: the bounds of :func:`jaxclf.minimize`.
    """
    if min_ratio is None:
        min_ratio = 0.01 if shape[0] < shape[1] else 1e-4
    checks.check_number("min_ratio", min_ratio, above=0, at_most=1)
    slopes = _slopes_at_zero(objective, params, batch, penalties[0], bounds)
    if not slopes.any():
        raise ValueError("a path needs a feature whose weight would not be zero without a penalty")
    first = [_zero_from(penalty, slopes, _LEAST_L1) for penalty in penalties]
    return max(first), min_ratio * min(first)


def _zero_from(penalty: Penalty, slopes: np.ndarray, least_share: float) -> float:
    """The least λ of a penalty, with the shares of this one, that keeps such slopes at zero."""
    norms, total = penalty.l1, total_strength(penalty)
    if not isinstance(norms, GroupNorms):
        l1, l2 = (np.broadcast_to(np.asarray(x, np.float64), slopes.shape) for x in penalty)
        counted = (l1 + l2 > 0) & np.isfinite(l1 + l2)
        l1, l2, slopes = l1[counted], l2[counted], slopes[counted]
        return total * float(np.max(slopes / np.maximum(l1, least_share * (l1 + l2))))
    numbers, strengths = np.asarray(norms.numbers), norms.strength * np.asarray(norms.weights)

    def norm_of(sizes):
        return np.sqrt(np.bincount(numbers, np.sum(sizes**2, 0)))

    def beyond(factor):
        soft = np.maximum(slopes - factor * float(norms.l1), 0)
        return np.max(norm_of(soft) / strengths) - factor

    most = np.max(norm_of(slopes) / strengths)
    return total * float(brentq(beyond, 0, most, xtol=1e-15 * most) if beyond(most) < 0 else most)


def _shape_of(objective: Objective) -> Penalty:
    """The penalty whose parts a λ shares out."""
    return l1(1.0) if objective.penalty is None else objective.penalty


def _slopes_at_zero(
    objective: Objective, params, batch: Batch, penalty: Penalty, bounds: Any
) -> np.ndarray:
    """The absolute gradient of the mean loss at zero weights, but for those without a penalty, and
    the best intercept, ``(K, d)``. It is zero where a bound forbids the step down the gradient."""
    if not isinstance(objective, Objective) or not is_linear(objective.logits_fn):
        raise TypeError(
            "a path needs an objective of make_objective with the logits of models.linear.logits"
        )
    check_params(params)
    batch = checked_batch(objective, batch, params)
    check_linear(objective, params, batch)
    known, _ = known_loss(objective, params, batch)
    loss, intercept = of_logits(objective.loss, params, batch), params.intercept is not None
    free = np.asarray(not_smooth(penalty.l1).free(penalty.l2))
    falls, rises = _sides_of_zero(penalty, bounds, params.weights, free)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        columns = columns_of(batch.features, shifted=intercept)
        rows = rows_in_memory(batch, columns)
        zero = Affine(*jax.tree.map(lambda x: np.zeros(x.shape), as_affine(params)))
        if free.any():
            held = replace(objective, penalty=Penalty(l2=np.where(free, 0.0, np.inf)))
            wide = jax.tree.map(lambda x: np.zeros(np.shape(x)), params)
            found = minimize(held, wide, batch, bounds=bounds, tol=_TOL_OF_FREE)
            if found.status == "no_finite_minimiser":
                raise ValueError("the columns without a penalty separate the classes")
            zero = params_in_units(columns, as_affine(found.params))
        zero = certify(loss, known, Penalty(), on_device(zero), rows, narrow=False)[0].affine
        (_, g, _), _ = blocks.reduce(
            rows, blocks.evaluation_block(loss, False, intercept), zero, None
        )
        slopes = to_host(g.weights)
    slopes = np.maximum(np.where(rises, -slopes, 0), np.where(falls, slopes, 0))
    return slopes if columns is None else slopes / columns.scale[None]


def _sides_of_zero(penalty: Penalty, bounds: Any, weights, free) -> tuple[Any, Any]:
    """Whether each weight may go below zero, and above."""
    if bounds is None:
        return np.True_, np.True_
    part = bounded(penalty, bounds, weights).l1
    excluded = np.argwhere(((part.lower > 0) | (part.upper < 0)) & ~free)
    if len(excluded):
        low, high = (end[tuple(excluded[0])] for end in (part.lower, part.upper))
        raise ValueError(
            f"no λ makes weights zero, as column {excluded[0, 1]} has the bounds {low:g} and "
            f"{high:g}: give the strengths of the penalties"
        )
    return part.lower < 0, part.upper > 0
