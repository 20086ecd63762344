"""The start of a solver, within bounds, without shifts that a loss ignores: softmax ignores one of
all logits.

The preconditioner has no part along such a shift, so the shift is taken out of the start. Along it
the penalty alone counts, whose minimum is zero. A start may also be so far away that rounding hides
its curvature; zero is better then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine
from jaxclf.penalties import not_smooth
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import gather_over_mesh, local_rows

_PROBED = 8
"""The number of points at which a loss is probed for a shift of all logits that it ignores."""


def better_start(
    loss: Callable, v: Affine, labels: Any, l1: Any, l2: Any, risk: Callable
) -> Affine:
    """The start without what the loss does not see, or zero if the objective is lower there.

    Where weights have bounds, the number within them that is closest takes the place of each.

    Args:
      loss: ``(logits (K,), label) -> ()``.
      v: parameters on the host.
      labels: the labels of the rows of this process.
      l1, l2: strengths of the penalty.
      risk: ``params -> ()``, the mean loss in float64.
    """

    if not any(x.any() for x in jax.tree.leaves(v)):
        return inside(v, l1)
    with np.errstate(over="ignore", invalid="ignore"):
        v = inside(without_common_part(loss, v, labels, float(np.max(l2))), l1)
    zero = inside(jax.tree.map(np.zeros_like, v), l1)

    def value(v: Affine) -> float:
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), v)
        with np.errstate(over="ignore", invalid="ignore"):
            return float(risk(wide)) + float(np.sum(lp.penalty_terms(wide.weights, l1, l2)))

    here, there = (value(x) for x in (v, zero))
    return v if here <= there else zero


def inside(v: Affine, l1: Any) -> Affine:
    """Parameters on the host with weights within the bounds, if there are any."""
    part = not_smooth(l1)
    weights = np.clip(v.weights, part.lower, part.upper).astype(v.weights.dtype)
    return v._replace(weights=weights)


def ignores_shifts(loss: Callable, v: Affine, labels: Any) -> bool:
    """Whether ``ℓ″ 1 = 0`` at some logits with the first label.

    Args:
      loss: ``(logits (K,), label) -> ()``.
      v: parameters, for their shape and dtype.
      labels: the labels of the rows of this process. Where a mesh is in use, every process gets the
        same answer, from the first label of the first process.
    """

    def probed(x):
        first = gather_over_mesh(local_rows(x)[:1])[0]
        return np.broadcast_to(first, (_PROBED, *first.shape[1:]))

    z = np.sin(np.arange(_PROBED * len(v.weights), dtype=v.weights.dtype)).reshape(_PROBED, -1)
    labels = jax.tree.map(probed, labels)
    return bool(_probed(loss, like=(z, labels))(z, labels))


@programs_by_shape
def _probed(loss: Callable) -> Callable:
    return jax.jit(lambda z, labels: lp.ignores_shifts(lp.curvature(loss, z, labels), z))


def without_common_part(loss: Callable, v: Affine, labels: Any, l2: float) -> Affine:
    """Parameters on the host without what all logits have in common, if only the penalty sees it.

    :func:`ignores_shifts` explains the arguments.
    """
    common = v.weights.mean(0)
    if l2 == 0 or not common.any() or not ignores_shifts(loss, v, labels):
        return v
    return v._replace(weights=v.weights - common[None])
