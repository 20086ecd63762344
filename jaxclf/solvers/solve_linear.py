"""Makes a linear model's problem ready for a solver, solves it, and certifies the result.

The solver starts from the better of the start and zero, in units in which columns keep their
digits. It runs over rows in memory (:mod:`jaxclf.solvers.in_memory`), or in chunks
(:mod:`jaxclf.solvers.in_chunks`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclf.certificates.certificate import Certificate, certify, sizes_of
from jaxclf.certificates.duality import EVALUATED, UNIT, Known
from jaxclf.certificates.free_coefficients import free_bound, free_columns
from jaxclf.certificates.local_bound import LARGEST_HESSIAN, local_bound
from jaxclf.certificates.separation import separates
from jaxclf.group_norms import GroupNorms
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.columns import (
    FIXED,
    Columns,
    columns_of,
    gradient_out_of_units,
    params_in_units,
    penalty_in_units,
)
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.objectives import Batch
from jaxclf.penalties import Penalty, is_smooth
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.chunks import Chunked, is_on_device
from jaxclf.scaling.mesh import MODEL
from jaxclf.scaling.sharing import share_model, share_rows, to_host
from jaxclf.solvers.certified import Solvable, Solved, certified
from jaxclf.solvers.continuation import Held
from jaxclf.solvers.in_chunks import rows_in_chunks, solver_in_chunks
from jaxclf.solvers.in_memory import rows_in_memory, solver_in_memory
from jaxclf.solvers.inputs import as_affine, dtypes_of
from jaxclf.solvers.result import Outcome, Stop
from jaxclf.solvers.start import better_start, inside
from jaxclf.sparse_rows import DenseBlocks, is_sparse

_LARGE = 2**20
"""The numbers of features whose sizes are kept for later certificates."""


def solve_linear(
    loss: Callable,
    known: Known,
    penalty: Penalty,
    params: Any,
    batch: Batch,
    solver: str | Callable,
    *,
    stop: Stop,
    rng: np.random.Generator,
    mesh: Mesh | None,
    stream: bool,
    held: Held,
) -> tuple[Solved, str]:
    """Solves a linear model and certifies it, where there is a finite point to certify.

    Args:
      loss: a loss that takes ``(K,)`` logits.
      known: the facts of the loss.
      penalty: the penalty of the objective; without L1 where rows stream.
      params: the start.
      batch: the rows of this process.
      solver: the name of a solver, or a solver of the user's.
      stop: when to end.
      rng: the generator for samples.
      mesh: the mesh in use, or ``None``.
      stream: whether rows are read in chunks, or their logits not kept.
      held: what is kept of earlier solves with this loss and this batch.

    Returns:
      The result, and in words how the problem was solved.
    """
    if stream and mesh is not None and mesh.shape.get(MODEL, 1) > 1 and jax.process_count() > 1:
        raise ValueError(
            "rows in chunks, or logits that do not fit, need a mesh whose axis 'model' has one "
            "part where several processes run"
        )
    shifted, grouped = params.intercept is not None, isinstance(penalty.l1, GroupNorms)
    loss = loss if batch.offset is None else lp.with_offset(loss)
    if grouped and is_sparse(batch.features):
        raise ValueError("norms of groups need dense features; .toarray() makes sparse ones dense")

    def in_columns() -> tuple[Columns | None, Rows | Chunked]:
        shared = batch if stream or mesh is None else share_rows(batch, mesh)
        columns = columns_of(shared.features, shifted=shifted, of_many=mesh is not None)
        if grouped and columns is not None:  # the norm of scaled weights is another one
            columns = columns._replace(scale=np.ones_like(columns.scale))
        if stream:
            return columns, rows_in_chunks(shared, columns, mesh)
        return columns, rows_in_memory(shared, columns)

    key = stream, grouped
    if key not in held.rows:
        held.rows[key] = in_columns()
    elif not stream and batch.features.size >= _LARGE and key not in held.sizes:
        held.sizes[key] = sizes_of(held.rows[key][1])
    (columns, rows), sizes = held.rows[key], held.sizes.get(key)
    returned, fixed = as_affine(params), np.isinf(np.asarray(penalty.l2))
    in_users, penalty = (penalty_in_units(units, penalty) for units in (None, columns))
    l1, l2 = penalty

    def risk(v: Affine) -> float:
        return float(blocks.reduce(rows, blocks.risk_block(loss), v, None)[0])

    labels = rows.rows.labels if stream else rows.labels
    # The user's strengths count: scaled ones may be too small for float64.
    unpenalised = is_smooth(in_users) and np.max(in_users.l2) == 0
    may_run_away = unpenalised and not known.attains_minimum
    begin = params_in_units(columns, returned)
    if known.ignores_shifts and shifted:
        b = begin.intercept
        begin = begin._replace(intercept=(b - b.mean(dtype=np.float64)).astype(b.dtype))
    warm = held.starts_lower(in_users)
    start = inside(begin, l1) if warm else better_start(loss, begin, labels, l1, l2, risk)
    if stream:
        own, num_logits = returned.weights.dtype, len(returned.weights)
        solve, how = solver_in_chunks(loss, rows, num_logits, l2, solver, rng, may_run_away)
        polish = solve
    else:
        solve, polish, own, how = solver_in_memory(
            loss, known, rows, penalty, solver, rng, may_run_away, held,
            start=start, dtype=returned.weights.dtype, mesh=mesh,
        )  # fmt: skip
    start = share_model(jax.tree.map(lambda x: x.astype(own), start), mesh)
    if fixed.any():
        solve, polish = (partial(_with_zeros, fixed, x) for x in (solve, polish))
        # The gradient of such a weight is no slope.
        in_users, penalty = (
            x._replace(l1=x.l1._replace(l1=np.where(fixed, FIXED, x.l1.l1)))
            for x in (in_users, penalty)
        )

    def locally(found: Certificate) -> tuple[Certificate, int]:
        """The certificate with a bound from the Hessian, where that is smaller."""
        bound, here = found.gap_bound, (loss, known, penalty, found.affine, _in_dense_blocks(rows))
        if len(free):
            bound = np.fmin(free_bound(*here, free), bound)
        if few and bound > stop.tol:
            bound = np.fmin(local_bound(*here) + float(found.value_error), bound)
        return found._replace(gap_bound=bound), 2 * stream

    def gradient_norm(v: Affine) -> tuple[float, int]:
        """The largest entry of the gradient in the user's units at a point, and the passes."""
        block = blocks.evaluation_block(loss, False, shifted)
        (_, g, _), _ = blocks.reduce(rows, block, v, None)
        g = gradient_out_of_units(columns, to_host(g))
        w = v.weights if columns is None else v.weights * columns.scale[None]
        return float(_steepest(g, v._replace(weights=w), *in_users)), int(stream)

    few = sum(map(np.size, jax.tree.leaves(start))) <= LARGEST_HESSIAN
    few = few and known.convex and known.self_concordance is not None and not grouped
    free = np.zeros(0, int)
    if not stream and mesh is None and not grouped:
        free = free_columns(known, penalty, len(rows.weights), start.weights.shape)
    problem = Solvable(
        solve=solve,
        polish=polish,
        certify=partial(certify, loss, known, penalty, rows=rows, sizes=sizes),
        locally=locally,
        has_dearer=few or len(free) > 0,
        added=partial(_added, loss, rows),
        sensitivity=lambda v: float(blocks.sensitivity(loss, rows, v)),
        convex=known.convex,
        ignores_shifts=known.ignores_shifts,
        lower_bound=known.lower_bound,
        has_l1=not is_smooth(in_users),
        gradient_norm=gradient_norm,
        runs_away=lambda v: may_run_away and separates(rows, v),
        columns=columns,
    )
    solved = certified(problem, start, stop, dtypes_of(params))
    held.solved = None if solved.certificate is None else in_users
    return solved, how


def _in_dense_blocks(rows: Any) -> Any:
    """Rows in memory or in chunks, sparse ones as blocks that are made dense."""
    if isinstance(rows, Chunked):
        adapted = rows.adapted or (lambda rows: rows)
        if is_on_device(rows.rows.features):
            return rows._replace(rows=_in_dense_blocks(rows.rows))
        return rows._replace(adapted=lambda rows: _in_dense_blocks(adapted(rows)))
    features = rows.features
    return rows._replace(features=DenseBlocks(features)) if is_sparse(features) else rows


def _added(loss: Callable, rows: Rows | Chunked, point: Affine, intercept) -> tuple[float, float]:
    """The amount by which another intercept raises the mean loss, and the most by which rounding
    may have changed that amount."""
    change = intercept - point.intercept
    (rise, size), _ = blocks.reduce(rows, blocks.added_block(loss), point, None, change)
    return float(rise), (blocks.depth(rows) + EVALUATED) * UNIT * float(size)


@jit_by_shape
def _steepest(g: Affine, v: Affine, l1, l2):
    """The largest entry of the smallest subgradient, from the gradient of the mean loss."""
    g = lp.with_ridge(g, l2, v)
    slope = lp.smallest_subgradient(v.weights, g.weights, l1)
    return lp.largest(g._replace(weights=slope))


def _with_zeros(fixed: np.ndarray, solve: Callable, start: Affine, stop: Stop) -> Outcome:
    """One run of a solver, whose point has zeros where weights are fixed."""
    found = solve(start, stop)
    weights = found.point.params.weights * ~fixed
    params = found.point.params._replace(weights=weights)
    return found._replace(point=found.point._replace(params=params), certificate=None)
