"""A linear model over rows that are held in memory: solved and certified.

The solver starts from the better of the start and zero, in units in which columns keep their
digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclf.objectives import Batch
from jaxclf.penalties import Penalty
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import on_device, share_outputs, share_rows
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.certificate import Certificate, certify
from jaxclf.solvers.certified import Solvable, Solved, certified
from jaxclf.solvers.columns import columns_of, in_units, params_in_units, penalty_in_units
from jaxclf.solvers.duality import Known
from jaxclf.solvers.inputs import as_affine, normalised_weights
from jaxclf.solvers.iteration import Outcome, Stop
from jaxclf.solvers.lbfgs import lbfgs
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.local_bound import MOST_PARAMETERS, make_local_bound
from jaxclf.solvers.newton_cg import FIRST_SHARE, newton_cg
from jaxclf.solvers.newton_cholesky import is_cheap, newton_cholesky
from jaxclf.solvers.problem import Point, linear_problem
from jaxclf.solvers.proximal_newton import proximal_newton
from jaxclf.solvers.separation import make_separated
from jaxclf.solvers.start import better_start

_SAMPLED_ABOVE = {"newton_cg": 2**23, "proximal_newton": 2**21}
"""Features with fewer numbers are cheap to read as a whole; a dense Hessian costs more than a
product."""
_ROWS_PER_FEATURE = 8
"""With fewer, a sample leaves too many directions without curvature."""
_STRONGEST = 1e30
"""A penalty of a scaled weight up to which float32 has room for its products."""
_SMALL = 2**20
"""Features times logits up to which proximal Newton computes in float64: it takes milliseconds."""


class _Work(NamedTuple):
    """The problem in the solver's units."""

    loss: Callable
    known: Known
    rows: Rows
    """With float64 weights."""
    penalty: Penalty
    """Strengths of all weights, or ``(1, d)``."""
    sampled: bool
    rng: np.random.Generator


def solve_in_memory(
    loss: Callable,
    known: Known,
    penalty: Penalty,
    params: Any,
    batch: Batch,
    solver: str,
    *,
    stop: Stop,
    rng: np.random.Generator,
    mesh: Mesh | None,
) -> tuple[Solved, str]:
    """Solves a linear model with any penalty, and certifies it.

    Args:
      loss: taking ``(K,)`` logits.
      known: of it.
      penalty: of the objective.
      params: the start.
      batch: the rows.
      solver: which one.
      stop: when to end.
      rng: for samples.
      mesh: in use, or ``None``.

    Returns:
      What was found, and in words how it was solved.
    """
    batch = batch if mesh is None else share_rows(batch, mesh)
    n, d = batch.features.shape
    shifted = params.intercept is not None
    columns = columns_of(batch.features, shifted=shifted, of_many=mesh is not None)
    weights = normalised_weights(batch)
    features, *others = map(on_device, (batch.features, batch.labels, weights))
    large = n * d > _SAMPLED_ABOVE.get(solver, np.inf) and n >= _ROWS_PER_FEATURE * d
    returned = as_affine(params)
    dtype = np.dtype(returned.weights.dtype)
    work = _Work(
        loss,
        known,
        Rows(in_units(columns, features), *others),
        penalty_in_units(columns, penalty),
        mesh is None and large,
        rng,
    )
    start = params_in_units(columns, returned)
    l1, l2 = work.penalty
    start = better_start(loss, start, batch.labels, l1, l2, partial(_run, _risk, work))
    small = {
        "proximal_newton": n * d * len(start.weights) <= _SMALL,
        "newton_cholesky": is_cheap(n, sum(map(np.size, jax.tree.leaves(start)))),
    }
    own = np.dtype(np.float64) if small.get(solver) else dtype
    start = share_outputs(jax.tree.map(lambda x: x.astype(own), start), mesh)
    problem = Solvable(
        solve=partial(_solve, work, solver),
        certify=partial(_certify, work),
        locally=partial(_locally, work),
        is_small=_has_local_bound(known, start, mesh),
        added=partial(_run, _added, work),
        sensitivity=partial(_run, _sensitivity, work),
        convex=known.convex,
        columns=columns,
    )
    how = "; Hessians of sampled rows" if work.sampled else ""
    return certified(problem, start, stop, dtype), how


def _run(make: Callable, work: _Work, point: Affine, *arguments) -> Any:
    """What a program finds of the rows at a point. It is made where it is needed: few are kept."""
    return make(work.loss, like=(work.rows, point))(work.rows, point, *arguments)


def _certify(work: _Work, point: Affine, narrow: bool) -> tuple[Certificate, int]:
    return certify(work.loss, work.known, work.penalty, point, work.rows, narrow=narrow), 0


def _has_local_bound(known: Known, v: Affine, mesh: Mesh | None) -> bool:
    few = sum(map(np.size, jax.tree.leaves(v))) <= MOST_PARAMETERS
    return known.convex and known.self_concordance is not None and few and mesh is None


def _locally(work: _Work, found: Certificate) -> Certificate:
    """The certificate with the bound from the Hessian, where that is smaller."""
    known, point = work.known, found.affine
    run = make_local_bound(work.loss, known.structure, like=(work.rows, point))
    own = known.self_concordance, known.cancellation
    bound = float(run(work.rows, point, *work.penalty, *own)) + float(found.off)
    return found._replace(gap_bound=np.minimum(bound, found.gap_bound))


def _solve(work: _Work, solver: str, start: Affine, stop: Stop) -> Outcome:
    """One run of the solver, in the dtype of the start."""
    dtype = start.weights.dtype
    rows = work.rows._replace(weights=work.rows.weights.astype(dtype))
    # A stronger one makes a weight zero for all that float32 shows. It is certified as it is.
    loss, (l1, l2) = work.loss, (np.minimum(x, _STRONGEST) for x in work.penalty)
    unpenalised, told = np.max(l1) == 0 and np.max(l2) == 0, stop.watch

    def watch(step, point: Point | None) -> str | None:
        status = told(step, point)
        if not unpenalised or work.known.attains_minimum or point is None:
            return status
        separated = make_separated(loss, like=rows)(point.params, point.logits, rows)
        return "no_finite_minimiser" if separated else status

    stop, n = stop._replace(watch=watch), len(rows.weights)
    size = n // FIRST_SHARE if work.sampled else n
    if solver == "proximal_newton":
        options = {"stop": stop, "first_size": size, "rng": work.rng}
        return proximal_newton(loss, rows, start, l1, l2, **options)
    if solver == "newton_cholesky":
        return newton_cholesky(loss, work.known, rows, start, l2, stop=stop)
    newton = solver == "newton_cg" and size == n
    problem = linear_problem(loss, rows, l2, work.rng, newton=newton)
    if solver == "lbfgs":
        return lbfgs(problem, start, stop=stop)
    return newton_cg(problem, start, stop=stop, first_size=size)


@programs_by_shape
def _risk(loss: Callable) -> Callable:
    @jax.jit
    def risk(rows: Rows, v: Affine):
        return lp.losses(loss, lp.logits(rows.features, v), rows.labels) @ rows.weights

    return risk


@programs_by_shape
def _added(loss: Callable) -> Callable:
    @jax.jit
    def added(rows: Rows, v: Affine, intercept):
        """By how much another intercept makes the mean loss higher."""
        z = lp.logits(rows.features, v)
        nearby = z + (intercept - v.intercept)[None]
        higher = lp.losses(loss, nearby, rows.labels) - lp.losses(loss, z, rows.labels)
        return higher @ rows.weights

    return added


@programs_by_shape
def _sensitivity(loss: Callable) -> Callable:
    @jax.jit
    def sensitivity(rows: Rows, v: Affine):
        return lp.sensitivity(loss, rows, v)

    return sensitivity
