"""Solves linear models whose rows are in memory: how each solver runs over them.

A run may take the Hessians of sampled rows, float64, the coordinates of the rows, the host, or some
of the columns. Each is chosen where it takes less time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclf.certificates.duality import Known
from jaxclf.certificates.separation import is_separated
from jaxclf.group_norms import GroupNorms
from jaxclf.linear_algebra import row_space
from jaxclf.linear_algebra.columns import Columns, in_units
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.objectives import Batch
from jaxclf.penalties import Penalty
from jaxclf.scaling.chunks import Chunked
from jaxclf.scaling.devices import on_accelerator
from jaxclf.scaling.sharing import is_shared, on_device
from jaxclf.solvers.continuation import Held
from jaxclf.solvers.group_columns import solve_groups
from jaxclf.solvers.inputs import labels_of, normalised_weights
from jaxclf.solvers.lbfgs import lbfgs
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.newton_cg import FIRST_SHARE, newton_cg
from jaxclf.solvers.newton_cholesky import is_cheap, newton_cholesky
from jaxclf.solvers.newton_on_host import MOST_NUMBERS, newton_on_host
from jaxclf.solvers.oracle import Point
from jaxclf.solvers.path_columns import solve_over_kept
from jaxclf.solvers.proximal_newton import SMALL, proximal_newton
from jaxclf.solvers.result import Outcome, Step, Stop, concatenated
from jaxclf.solvers.sparse_on_host import pieces_on_host
from jaxclf.sparse_rows import is_sparse

_SAMPLED_ABOVE = {"newton_cg": 2**23, "proximal_newton": 2**21}
"""Features with fewer numbers are cheap to read as a whole; a dense Hessian costs more than a
product."""
_SAMPLED_ABOVE_ON_ACCELERATORS = 2**37
"""Rows are sampled where a product with the Hessian of all rows takes more multiplications. Fewer
take an H200 less than 2 ms, and drawing a sample takes the host longer."""
_ROWS_PER_FEATURE = 8
"""With fewer rows per feature a sample leaves too many directions without curvature."""
_STRONGEST = 1e30
"""The strongest penalty of a scaled weight for whose products float32 has room."""


def rows_in_memory(batch: Batch, columns: Columns | None) -> Rows:
    """Rows on the device, with float64 weights."""
    parts = (batch.features, labels_of(batch), normalised_weights(batch))
    features, *others = on_device(parts)
    return Rows(in_units(columns, features), *others)


def solver_in_memory(
    loss: Callable,
    known: Known,
    rows: Rows,
    penalty: Penalty,
    solver: str | Callable,
    rng: np.random.Generator,
    may_run_away: bool,
    held: Held,
    *,
    start: Affine,
    dtype: np.dtype,
    mesh: Mesh | None,
) -> tuple[Callable, Callable, np.dtype, str]:
    """How rows in memory are solved.

    Args:
      loss, known, rows, penalty, solver, rng: the problem in its units, and its solver.
      may_run_away: whether there may be no finite minimiser.
      held: what is kept of earlier solves with this loss and these rows.
      start: the start.
      dtype: the dtype of the parameters.
      mesh: the mesh in use, or ``None``.

    Returns:
      The function ``(start, Stop) -> Outcome`` that solves it, the one for later rounds, the dtype
      to begin in, and the method in words.
    """
    (n, d), name = rows.features.shape, solver if isinstance(solver, str) else ""
    dense, grouped = not is_sparse(rows.features), isinstance(penalty.l1, GroupNorms)
    large = dense and not grouped and _is_sampled(name, n, d, len(start.weights))
    size = n // FIRST_SHARE if large and mesh is None else n
    how = "; Hessians of sampled rows" if size < n else ""
    solver_of = partial(_solve, loss, known, rows, penalty, solver, rng, may_run_away, held)
    # Near the minimum the Hessian of all rows makes proximal Newton converge quadratically.
    polished = n if name == "proximal_newton" else size
    solve, polish = partial(solver_of, size), partial(solver_of, polished)
    wide = row_space.is_wide(rows.features, dtype, penalty.l2)
    if name == "newton_cg" and mesh is None and wide and dense:
        how = "; in coordinates of the rows"
        solve = partial(_solve_wide, loss, rows, penalty.l2, rng, solve)
    return solve, polish, _dtype_to_compute_in(dtype, name, rows.features, start), how


def _solve(
    loss: Callable, known: Known, rows: Rows, penalty: Penalty, solver: str | Callable, rng,
    may_run_away: bool, held: Held, size: int, start: Affine, stop: Stop,
) -> Outcome:  # fmt: skip
    """One run of a solver over rows in memory, in the dtype of the start."""
    (l1, l2), dtype = penalty, start.weights.dtype
    l1, l2 = l1._replace(l1=strengths_in(l1.l1, dtype)), strengths_in(l2, dtype)
    rows = rows._replace(weights=rows.weights.astype(dtype))
    newton = solver == "newton_cg" and size == len(rows.weights)
    oracle = LinearOracle(loss, rows, l2, measures_curvature=not newton)

    if may_run_away:
        stop = until_separated(stop, loss, rows)
    if callable(solver):
        return solver(oracle, start, stop=stop, rng=rng)
    if isinstance(l1, GroupNorms):
        return solve_groups(oracle, start, l1, stop=stop, lower_bound=known.lower_bound)
    on_host = is_sparse(rows.features) and rows.features.size <= MOST_NUMBERS
    on_host = on_host and len(start.weights) == 1 and not on_accelerator()
    on_host = on_host and not is_shared(rows.features)
    if solver == "proximal_newton":
        options: dict = {"first_size": size, "lower_bound": known.lower_bound}
        if on_host and not l1.has_bounds:
            l1, options["pieces"] = l1.l1, pieces_on_host

        run = partial(proximal_newton, rng=rng, **options)

        with np.errstate(over="ignore", invalid="ignore"):  # a step that is no number is shortened
            if held.solved is None or not _keeps_columns(rows.features):
                return run(oracle, start, l1, stop=stop)
            found, held.columns = solve_over_kept(
                run, oracle, start, l1, stop=stop, lower_bound=known.lower_bound, kept=held.columns
            )
            return found
    if solver == "newton_cholesky":
        return newton_cholesky(oracle, start, known=known, stop=stop)
    if solver == "lbfgs":
        return lbfgs(oracle, start, stop=stop, rng=rng)
    if on_host and known.convex and np.all(np.asarray(l2) > 0):
        found, final = newton_on_host(loss, rows, l2, start, stop=stop)
        if final:
            return found
        stop = stop._replace(max_steps=stop.max_steps + 1 - len(found.trace))
        then = newton_cg(oracle, found.point.params, stop=stop, rng=rng)
        return concatenated(found, then)
    return newton_cg(oracle, start, stop=stop, first_size=size, rng=rng)


def _keeps_columns(features: Any) -> bool:
    """Whether a copy of some columns saves time along a path."""
    large = features.size > _SAMPLED_ABOVE["proximal_newton"]
    return large and not is_sparse(features) and not is_shared(features)


def _solve_wide(
    loss: Callable, rows: Rows, l2, rng, otherwise: Callable, start: Affine, stop: Stop
) -> Outcome:
    """One run of newton_cg in coordinates of the rows; ``otherwise`` runs where there are none."""
    l2 = strengths_in(l2, start.weights.dtype)
    factor = row_space.factor_of(rows.features, l2, start)
    if not row_space.is_sound(factor):
        return otherwise(start, stop)
    share = len(factor) / rows.features.shape[1]

    def counted(step: Step) -> Step:
        return step._replace(passes=row_space.BEFORE + share * step.passes)

    weights = rows.weights.astype(start.weights.dtype)
    oracle = LinearOracle(loss, Rows(factor, rows.labels, weights), np.mean(l2))
    # An entry of the gradient in W is at most the norm of the gradient in U.
    inner_stop = stop._replace(
        gradient_tol=stop.gradient_tol / len(factor) ** 0.5,
        watch=lambda step, point: stop.watch(counted(step), point),
    )
    inner = row_space.inside(rows.features, factor, start)
    found = newton_cg(oracle, inner, stop=inner_stop, rng=rng)
    params = row_space.outside(rows.features, factor, l2, found.point.params)
    return found._replace(
        point=found.point._replace(params=params),
        passes=row_space.BEFORE + share * found.passes + row_space.AFTER,
        trace=tuple(map(counted, found.trace)),
    )


def _is_sampled(solver: str, n: int, d: int, num_logits: int) -> bool:
    """Whether Hessians are made of a sample of the rows."""
    if solver not in _SAMPLED_ABOVE or n < _ROWS_PER_FEATURE * d:
        return False
    if on_accelerator():
        return n * d * num_logits > _SAMPLED_ABOVE_ON_ACCELERATORS
    return n * d > _SAMPLED_ABOVE[solver]


def _dtype_to_compute_in(dtype, solver: str, features: Any, start: Affine) -> np.dtype:
    """Float64 where a solver takes milliseconds in it, else the dtype of the parameters."""
    small = {
        "proximal_newton": features.size * len(start.weights) <= SMALL,
        "newton_cholesky": is_cheap(len(features), sum(map(np.size, jax.tree.leaves(start)))),
    }
    return np.dtype(np.float64) if small.get(solver) else np.dtype(dtype)


def strengths_in(strength: Any, dtype) -> Any:
    """The strengths for which the dtype has room. A stronger penalty makes a weight zero in
    float32; the penalty as given is certified, and solved in float64 if the certificate asks for
    more."""
    return np.minimum(strength, _STRONGEST) if dtype == np.float32 else strength


def until_separated(stop: Stop, loss: Callable, rows: Rows | Chunked) -> Stop:
    """The stop that also ends at a point that proves that there is no finite minimiser."""

    def watch(step, point: Point | None) -> str | None:
        status = stop.watch(step, point)
        if status is not None or point is None:
            return status
        z = point.kept if isinstance(point.kept, jax.Array) else None
        separated = is_separated(loss, rows, point.params, z, float(point.value))
        return "no_finite_minimiser" if separated else None

    return stop._replace(watch=watch)
