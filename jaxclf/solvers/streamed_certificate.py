"""The certificate of :mod:`jaxclf.solvers.certificate` over rows that are read in chunks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.penalties import Penalty
from jaxclf.programs import jit_by_shape, programs_by_shape
from jaxclf.scaling.chunks import Chunked, sum_chunks
from jaxclf.scaling.sharing import one_copy
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.certificate import (
    INTERCEPT_STEPS,
    SOUGHT,
    Certificate,
    as_float64,
    measured,
    most_dense,
    shift_by_hessian,
    shift_by_products,
    trusted,
    with_intercept,
)
from jaxclf.solvers.conjugate_gradients import ON_HOST
from jaxclf.solvers.duality import Known, row_sums
from jaxclf.solvers.linear_problem import Affine
from jaxclf.solvers.streamed_problem import over_blocks, streamed_programs


def certify_in_chunks(
    loss: Callable,
    known: Known,
    penalty: Penalty,
    affine: Affine,
    source: Chunked,
    *,
    narrow: bool,
) -> tuple[Certificate, int]:
    """As :func:`jaxclf.solvers.certificate.certify`, in passes over rows with float64 weights.

    Returns:
      The certificate, and how many passes it took: with an intercept about five, more where it has
      so many logits that the Hessian in it is not formed.
    """
    run = streamed_programs(loss, like=source.rows)
    affine, passes = jax.tree.map(as_float64, one_copy(affine)), 1
    if affine.intercept is not None:
        affine, more = _settled(_shift_programs(loss, like=source.rows), source, affine)
        passes += more
    summed = partial(_summed(loss, like=source.rows), structure=known.structure)
    sums, _ = sum_chunks(summed, source, affine)
    # No term is added more often than this, whatever the order; every process has the same number,
    # so that all decide alike by the bound.
    depth = source.size * source.count * jax.process_count()
    l1, l2 = penalty
    bounds = known.lower_bound, known.cancellation
    found = one_copy(_measured(affine, sums, l1, l2, *bounds, depth, known.structure))
    if affine.intercept is not None and narrow:
        passes, rounded = passes + 1, as_float64(affine.intercept.astype(np.float32))
        moved, _ = sum_chunks(run.risk, source, affine._replace(intercept=rounded))
        found = with_intercept(found, rounded, float(moved) - float(sums.risk))
    return trusted(known, found), passes


@partial(jit_by_shape, static_argnames="structure")
def _measured(affine, sums, l1, l2, lower_bound, cancellation, depth, structure):
    return measured(affine, sums, l1, l2, Known(structure, lower_bound, cancellation), depth)


@programs_by_shape
def _summed(loss: Callable) -> Callable:
    @partial(jax.jit, static_argnames="structure")
    def summed(rows, v, *, structure):
        intercept = v.intercept is not None

        def block(z, rows):
            x, labels, weights = rows
            return row_sums(loss, structure, x, z, labels, weights, intercept=intercept), None

        return over_blocks(block, rows, v)

    return summed


def _settled(run: _ShiftPrograms, source: Chunked, affine: Affine) -> tuple[Affine, int]:
    """The point with its intercept at its minimum, by Newton's method as long as its slope falls,
    and how many passes were made."""
    steepest, best, passes = np.inf, affine, 0
    for _ in range(INTERCEPT_STEPS):
        found, _ = sum_chunks(run.slope, source, affine)
        found, passes = one_copy(found), passes + 1
        slope = np.abs(found.slope).max()
        if not slope < steepest:
            break
        steepest, best = slope, affine
        if slope <= SOUGHT * found.absolute.sum():
            break
        if found.hessian is not None:
            step = run.solve(found.hessian, found.slope)
        else:

            def product(d, affine=affine):
                return sum_chunks(run.product, source, affine, d)[0]

            solved = shift_by_products(product, found.curvature, found.slope, ON_HOST)
            step, passes = solved.d, passes + int(solved.count)
        step = one_copy(step)
        if not np.isfinite(step).all():
            break
        affine = affine._replace(intercept=affine.intercept - step)
    return best, passes


class _Slope(NamedTuple):
    slope: jax.Array
    """``(K,)``, of the objective in the intercept."""
    absolute: jax.Array
    """``(K,)``, the mean absolute slope of the rows."""
    hessian: jax.Array | None
    """``(K, K)``, in the intercept, of few logits."""
    curvature: jax.Array | None
    """``(K,)``, its diagonal, of more."""


class _ShiftPrograms(NamedTuple):
    slope: Callable
    solve: Callable
    product: Callable


@programs_by_shape
def _shift_programs(loss: Callable) -> _ShiftPrograms:
    @jax.jit
    def slope(rows, v):
        def block(z, rows):
            residuals = lp.slopes(loss, z, rows)
            sums = jnp.sum(residuals, 0), jnp.sum(jnp.abs(residuals), 0)
            if z.shape[1] <= most_dense(loss):
                return _Slope(*sums, lp.logit_hessian(loss, z, rows), None), None
            maps = lp.curvature(loss, z, rows.labels)
            curvature = rows.weights @ lp.curvature_diagonal(maps, z.shape[1], z.dtype)
            return _Slope(*sums, None, curvature), None

        return over_blocks(block, rows, v)

    @jax.jit
    def product(rows, v, d):
        def block(z, rows):
            maps = lp.curvature(loss, z, rows.labels)
            moved = jnp.broadcast_to(d[None], z.shape)
            return rows.weights @ lp.curvature_product(maps, moved), None

        return over_blocks(block, rows, v)

    return _ShiftPrograms(slope, jax.jit(shift_by_hessian), product)
