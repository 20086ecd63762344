"""The optimum of a linear model by Newton's method in float64, with the inverse of its Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf.certificates.duality import Known
from jaxclf.inference.hessian import (
    FEW,
    derivatives,
    error_of,
    inverse_of,
    inverse_of_positive,
    stacked,
    unflattened,
)
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import to_host

_SAME = 1e-8
"""The curvature counts as that of the optimum where it has changed by no larger share."""
_ERROR = 1e-4
"""The same for more than ``FEW`` parameters, with the rounding of float32 in it. Standard errors
are then off by half of it at most, and sampling moves them by ``1 / √(2 n)``."""
_NEAR = 0.5
"""The largest change of a logit by a step of Newton's method for which one Hessian may serve. What
needs a longer one is left to a solver, unless a Hessian is cheap."""
_CHEAP = 2**25
"""The most multiplications of a Hessian with which Newton's method starts anywhere."""
_HESSIANS, _HESSIANS_FROM_AFAR = 5, 30


class Optimum(NamedTuple):
    v: Affine
    gradient: np.ndarray
    inverse: np.ndarray
    products: Any


def optimum(
    loss: Callable, rows: Rows, v: Affine, ridge: np.ndarray, known: Known, *, solved: bool
) -> Optimum | None:
    """The optimum by Newton's method, with one Hessian for as long as it changes little.

    Where a step that changes a logit much does not lower the decrement, its length becomes
    ``log(1 + q) / q``, where q is the self-concordance times the largest change (Sun and Tran-Dinh,
    2019).

    Args:
      loss: the loss of ``(K,)`` logits.
      rows: the rows.
      v: the start.
      ridge: the penalty's curvature of each parameter.
      known: the facts of the loss.
      solved: whether the start is what a solver found. Otherwise the result is ``None`` where a
        solver is needed.

    Raises:
      ValueError: a Hessian that is singular where a solver ended.
    """
    few, concordance = len(ridge) <= FEW, known.self_concordance
    concordance = 1.0 if concordance is None else concordance
    products, same = (np.float64, _SAME) if few else (np.float32, _ERROR)
    run, counted = rows_at(loss, like=(rows, v)), np.asarray(rows.weights)[:, None] > 0

    def at(v: Affine) -> tuple[np.ndarray, np.ndarray]:
        gradient, z, _ = to_host(run(rows, v))
        return stacked(gradient).ravel() + ridge * stacked(v).ravel(), z

    afar = not solved and len(counted) * len(ridge) ** 2 <= _CHEAP
    (g, z), long = at(v), None
    for _ in range(_HESSIANS_FROM_AFAR if afar else _HESSIANS):
        hessian = derivatives(loss, rows, v, products)[2]
        inverse = inverse_of(hessian, v, ridge, ignores_shifts=known.ignores_shifts)
        if products == np.float32 and not _is_close(loss, rows, v, ridge, inverse):
            products, hessian = np.float64, derivatives(loss, rows, v)[2]
            inverse = inverse_of(hessian, v, ridge, ignores_shifts=known.ignores_shifts)
        del hessian
        if long is not None:
            here, step, before, moved = long
            long = None
            if inverse is None or not g @ inverse @ g < before:
                v = unflattened(stacked(here).ravel() - np.log1p(moved) / moved * step, v)
                g, z = at(v)
                continue
        if inverse is None:
            if not solved:
                return None
            raise ValueError(_singular(rows, v))
        there, before, moved = z, np.inf, 0.0
        # The decrement falls with each step, until rounding is what is left of it.
        while (decrement := g @ (step := inverse @ g)) < before / 4:
            here, v, before = v, unflattened(stacked(v).ravel() - step, v), decrement
            g, z = at(v)
            moved = concordance * np.abs(z - there).max(initial=0.0, where=counted)
            if solved or moved <= _NEAR:
                continue
            if not afar or not np.isfinite(moved):
                return None
            long = here, step, decrement, moved
            break
        if moved <= same:
            return Optimum(v, g, inverse, products)
    return Optimum(v, g, inverse, products) if solved else None


def _is_close(loss: Callable, rows: Rows, v: Affine, ridge: np.ndarray, inverse) -> bool:
    return inverse is not None and error_of(loss, rows, v, ridge, inverse) <= _ERROR


@programs_by_shape
def rows_at(loss: Callable) -> Callable:
    """The gradient of the mean loss, the logits of the rows, and ``ℓ′`` there."""

    def at(rows: Rows, v: Affine):
        z = lp.logits(rows.features, v)
        slopes = jax.vmap(jax.grad(loss))(z, rows.labels)
        weighted = slopes * rows.weights[:, None]
        gradient = lp.transpose_product(rows.features, weighted, intercept=v.intercept is not None)
        return gradient, z, slopes

    return jax.jit(at)


def _singular(rows: Rows, v: Affine) -> str:
    """The reason for a singular Hessian."""
    moments = lp.gram(rows.features, rows.weights, intercept=v.intercept is not None)
    if inverse_of_positive(np.array(moments)) is None:
        return (
            "columns of the features depend on each other or on the intercept, so that their "
            "coefficients have no error: leave some out, or add an L2 penalty"
        )
    return (
        "the likelihood is flat where the solver ended: the classes may be separated, so that "
        "larger coefficients are always better; an L2 penalty or jaxclf.inference.firth has a "
        "finite maximum"
    )
