"""The certificate of :mod:`jaxclf.solvers.certificate` over rows that are read in chunks."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.objectives import Objective
from jaxclf.penalties import Penalty
from jaxclf.scaling.chunks import Chunked, python_while_loop, sum_chunks
from jaxclf.scaling.row_sums import sum_rows
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.certificate import (
    MOST_DENSE,
    SETTLED,
    Certificate,
    measured,
    shift_by_hessian,
    shift_by_products,
    with_intercept,
)
from jaxclf.solvers.inputs import NONCONVEX, NONNEGATIVE, underlying
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.streamed_problem import streamed_programs

_INTERCEPT_STEPS = 8


def certify_in_chunks(
    objective: Objective, loss: Callable, affine: Affine, source: Chunked
) -> Certificate:
    """As :func:`jaxclf.solvers.certificate.certify`, in passes over rows with float64 weights.

    With an intercept there are about four: two or three to bring it to its minimum, each of more
    than 64 logits followed by one for each product with the Hessian in it, and one for the value
    after rounding.
    """
    known, penalty = underlying(objective.loss), objective.penalty or Penalty()
    l1, l2 = float(penalty.l1), float(penalty.l2)
    run, dtype = streamed_programs(loss), affine.weights.dtype
    affine = jax.tree.map(lambda x: x.astype(jnp.float64), affine)
    settled = True
    if affine.intercept is not None:
        affine, settled = _settled(_shift_programs(loss), source, affine)
    (risk, g, _), _ = sum_chunks(partial(run.evaluate, draws=False), source, affine)
    found = measured(affine, risk, g, settled, l1, l2, known in NONNEGATIVE)
    if affine.intercept is not None:
        rounded = affine.intercept.astype(dtype).astype(jnp.float64)
        moved, _ = sum_chunks(run.risk, source, affine._replace(intercept=rounded))
        found = with_intercept(found, rounded, moved - risk)
    return found._replace(gap_bound=jnp.inf) if known in NONCONVEX else found


def _settled(run: _ShiftPrograms, source: Chunked, affine: Affine) -> tuple[Affine, bool]:
    """The point with its intercept at its minimum, by Newton's method as long as its slope falls,
    and whether it is there."""
    steepest, best = np.inf, affine
    for _ in range(_INTERCEPT_STEPS):
        found, _ = sum_chunks(run.slope, source, affine)
        slope = float(jnp.max(jnp.abs(found.slope)))
        if slope <= SETTLED * float(jnp.sum(found.absolute)):
            return affine, True
        if not slope < steepest:
            break
        steepest, best = slope, affine
        if found.hessian is not None:
            step = shift_by_hessian(found.hessian, found.slope)
        else:

            def product(d, affine=affine):
                return sum_chunks(run.product, source, affine, d)[0]

            step = shift_by_products(
                product, found.curvature, found.slope, while_loop=python_while_loop
            )
        affine = affine._replace(intercept=affine.intercept - step)
    return best, False


class _Slope(NamedTuple):
    slope: jax.Array
    """``(K,)``, of the objective in the intercept."""
    absolute: jax.Array
    """``(K,)``, the mean absolute slope of the rows."""
    hessian: jax.Array | None
    """``(K, K)``, in the intercept, of few logits."""
    curvature: jax.Array
    """``(K,)``, its diagonal."""


class _ShiftPrograms(NamedTuple):
    slope: Callable
    product: Callable


@lru_cache(maxsize=64)
def _shift_programs(loss: Callable) -> _ShiftPrograms:
    def over(function: Callable, rows: Rows, v: Affine):
        multiply = lp.multiplier(v)

        def block(x, labels, weights):
            return function(multiply(x.astype(v.weights.dtype)), Rows(x, labels, weights))

        return sum_rows(block, *rows, held=len(v.weights)), None

    @jax.jit
    def slope(rows, v):
        def block(z, rows):
            residuals = lp.slopes(loss, z, rows)
            maps = lp.curvature(loss, z, rows.labels)
            curvature = rows.weights @ lp.curvature_diagonal(maps, z.shape[1], z.dtype)
            few = z.shape[1] <= MOST_DENSE
            hessian = lp.logit_hessian(loss, z, rows) if few else None
            return _Slope(jnp.sum(residuals, 0), jnp.sum(jnp.abs(residuals), 0), hessian, curvature)

        return over(block, rows, v)

    @jax.jit
    def product(rows, v, d):
        def block(z, rows):
            maps = lp.curvature(loss, z, rows.labels)
            moved = jnp.broadcast_to(d[None], z.shape)
            return rows.weights @ lp.curvature_product(maps, moved)

        return over(block, rows, v)

    return _ShiftPrograms(slope, product)
