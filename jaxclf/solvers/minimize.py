"""Solves full-batch problems until the optimum is certain."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.certificates.duality import Known
from jaxclf.certificates.separation import are_hard, proves, runaway
from jaxclf.forks import refuse_fork
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Batch, Objective, check_takes_sparse
from jaxclf.penalties import is_smooth
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.mesh import make_mesh, using
from jaxclf.scaling.sharing import (
    all_gather,
    is_shared,
    on_device,
    share_rows,
    to_host,
)
from jaxclf.solvers.choice import IN_MEMORY, SOLVERS, choose, name_of
from jaxclf.solvers.continuation import Held, continued
from jaxclf.solvers.in_chunks import fits_in_memory
from jaxclf.solvers.inputs import (
    as_affine,
    bounded,
    check_linear,
    check_params,
    checked_batch,
    columns_of_rows,
    fixed_columns,
    free_sides,
    known_loss,
    of_logits,
    params_like,
    with_zeros,
    without_columns,
)
from jaxclf.solvers.lbfgs import lbfgs
from jaxclf.solvers.newton_cg import newton_cg
from jaxclf.solvers.oracle import Point, generic_oracle
from jaxclf.solvers.result import Outcome, SolverResult, Step, Stop, Watch, status_of
from jaxclf.solvers.solve_linear import solve_linear
from jaxclf.sparse_rows import is_sparse, read_sparse
from jaxclf.stored_rows import StoredRows

_PROGRESS_SECONDS = 0.5
_PRODUCTS = "highest"
"""The precision of matrix products: float32 has all its bits. The rounded factors that accelerators
take by default would end a solve a thousand times farther from the optimum."""


@standard_promotion
def minimize(
    objective: Callable,
    params,
    batch: Any,
    *,
    solver: str | Callable = "auto",
    bounds: Any = None,
    tol: float = 1e-6,
    gradient_tol: float = 0.0,
    max_steps: int = 200,
    seed: int = 0,
    devices: Any = None,
    stream: bool | None = None,
    callback: Callable[[Step], None] | None = None,
    verbose: bool = False,
) -> SolverResult:
    """Minimises an objective over all rows of a batch.

    For a linear model with any convex, twice differentiable loss of its logits it finds the optimum
    and certifies it. The facts of a loss come from its record in :mod:`jaxclf.facts`, or a proof.
    ``auto`` chooses, and the result says why:

    - ``proximal_newton`` where the penalty has L1 or norms of groups, or weights have bounds;
    - ``newton_cholesky``, exact Newton, for up to 256 parameters and 2³² / parameters² rows in
      memory;
    - ``newton_cg``, truncated Newton in the metric of the Gram matrix, for other linear models;
      also by name for any other objective, through products with its Hessian. Where there are twice
      as many features as rows it begins in as many coordinates as there are rows, in which
      ``gradient_norm`` of the trace is then taken;
    - ``lbfgs`` for an objective that is not a linear model; by name for a linear one, in the same
      metric.

    The solver computes in the dtype of ``params``. For a linear model it uses float32 if they are
    narrower, and float64 for small problems and where the bound is not yet at ``tol``. The sums of
    the objective of a linear model, and its final value, gradient and bound, are in float64
    whatever JAX's 64-bit mode.

    Args:
      objective: an objective from :func:`jaxclf.make_objective`, or any ``(params, batch) -> ()``.
        It is a linear model with the logits of :func:`jaxclf.models.linear.logits`.
      params: the start. A linear model has ``weights`` ``(d,)`` or ``(K, d)`` and ``intercept`` or
        ``None``, and starts from zero where the objective is lower there; any other objective takes
        any pytree.
      batch: rows from :func:`jaxclf.make_batch`, with features ``(n, d)`` of any real dtype, which
        are widened a block at a time; or whatever the objective takes. An offset is added to the
        logits.
      solver: one of the names above, ``auto``, or a solver of your own: a function ``(oracle,
        params, *, stop, rng) -> Outcome`` of an oracle of :mod:`jaxclf.solvers.oracle`. For a
        linear model ``params`` are then matrices ``(K, d)`` and ``(K,)``, for columns that may be
        shifted and scaled, and there must be no L1 and no bounds. The result is certified like any
        other.
      bounds: ``(lower, upper)``, between which the weights of a linear model must lie: numbers,
        ``(d,)`` or ``(K, d)``, which may be infinite, and are rounded to the dtype of the weights.
        The intercept has none. Weights of the start that lie beyond a bound start at it.
      tol: the solver stops where the objective is this close to its minimum, in nats. The bound on
        the gap is brought to ``tol`` too, as far as the parameters' dtype and float64 sums allow.
      gradient_tol: the solver stops also where no entry of the gradient is larger than this, in the
        units of columns that it has shifted or scaled; where the penalty has L1, the entries of the
        smallest subgradient count.
      max_steps: the most steps.
      seed: the seed for the rows that are sampled.
      devices: the devices over which the rows are shared out: ``"all"``, a number or a mesh of
        :func:`jaxclf.scaling.make_mesh`, which may share out the classes of a linear model too; by
        default one. With ``devices`` no rows are sampled. Where several processes run, each gives
        its own rows and gets the same result.
      stream: whether a linear model's features are read from the host in chunks, every time they
        are needed, and its logits are not kept; by default where they take more than half of the
        memory that is free. The curvature then comes from a sample that fits. Memory maps stay
        unread until they are needed, sparse ones as :class:`jaxclf.data.StoredRows`; L1 and
        ``newton_cholesky`` need the rows in memory.
      callback: a function that is called with each :class:`Step` as it is made.
      verbose: whether to print the steps to stderr, at most two a second.

    Returns:
      The result with its status; a numerical failure is a status, never an exception.

    Raises:
      ValueError, TypeError: an objective, a start or a batch that do not fit together or are not
        finite; labels of one class only; a solver that cannot do it.
    """
    options = {
        "bounds": bounds,
        "stream": stream,
        "callback": callback,
        "verbose": verbose,
        "devices": devices,
    }
    options |= {"tol": tol, "gradient_tol": gradient_tol, "max_steps": max_steps, "seed": seed}
    [result] = minimize_each([objective], params, batch, solver=solver, **options)
    return result


def minimize_each(
    objectives: Iterable[Callable],
    params,
    batch: Any,
    *,
    solver: str | Callable = "auto",
    bounds: Any = None,
    tol: float = 1e-6,
    gradient_tol: float = 0.0,
    max_steps: int = 200,
    seed: int = 0,
    devices: Any = None,
    stream: bool | None = None,
    callback: Callable[[Step], None] | None = None,
    verbose: bool = False,
) -> Iterator[SolverResult]:
    """The results of :func:`minimize` for objectives that differ in their penalties alone, each
    from where those before point, see :mod:`jaxclf.solvers.continuation`.

    The batch is checked, and its rows are put in units, once.
    """
    refuse_fork()
    if not callable(solver):
        checks.check_option("solver", solver, SOLVERS)
    checks.check_number("tol", tol, above=0)
    checks.check_number("gradient_tol", gradient_tol, at_least=0)
    checks.check_number("max_steps", max_steps, at_least=1)
    stop = Stop(tol, gradient_tol, max_steps, _teller(callback, verbose))
    mesh = None if devices is None else make_mesh(devices)
    check_params(params)
    held, checked, solved = Held(), False, []
    for objective in objectives:
        rng = np.random.default_rng(seed)
        result = None
        if isinstance(objective, Objective):
            if not checked and isinstance(batch.features, StoredRows):
                check_takes_sparse(objective.logits_fn)
            if not checked and (mesh is None or not is_shared(batch.features, mesh)):
                batch = checked_batch(objective, batch, params, of_many=mesh is not None)
            checked = True
            if is_linear(objective.logits_fn):
                pointed = None if bounds is not None else continued(solved, objective.strengths)
                start = params if pointed is None else pointed
                held.solved = held.solved if pointed is None else None
                options = solver, bounds, stop, rng, mesh, stream
                result = _minimize_linear(objective, start, batch, *options, held)
                solved.append((objective.strengths, result.params))
        elif not callable(objective):
            raise TypeError(
                f"objective must be a function of params and batch, got {type(objective).__name__}"
            )
        elif mesh is not None:
            raise TypeError("devices needs an objective of make_objective, whose rows have weights")
        if result is None:
            if stream or bounds is not None:
                given = "stream=True needs" if stream else "bounds need"
                raise TypeError(f"{given} the logits of models.linear.logits")
            result = _minimize_generic(objective, params, batch, solver, stop, rng, mesh)
        yield result
        if result.status not in ("nonfinite", "no_finite_minimiser"):
            params = result.params
        else:
            held.solved, solved = None, []


def _minimize_linear(
    objective, params, batch, solver: str | Callable, bounds: Any, stop: Stop, rng, mesh,
    stream: bool | None, held: Held,
) -> SolverResult:  # fmt: skip
    check_linear(objective, params, batch)
    penalty = objective.strengths
    if bounds is not None:
        penalty = bounded(penalty, bounds, params.weights)
    if (fixed := fixed_columns(penalty)).any() and not fixed.all():
        few = without_columns(fixed, objective, params, batch)
        result = _minimize_linear(*few, solver, None, stop, rng, mesh, stream, Held())
        held.solved = None
        wide = partial(with_zeros, fixed)
        direction = None if result.direction is None else wide(result.direction)
        return result._replace(params=wide(result.params), direction=direction)
    loss = of_logits(objective.loss, params)
    known, why_not = known_loss(objective, params, batch, of_many=mesh is not None)
    smooth = is_smooth(penalty)
    with jax.enable_x64(True), jax.default_matmul_precision(_PRODUCTS), using(mesh):
        stored = isinstance(batch.features, StoredRows)
        sparse = stored or is_sparse(batch.features)
        if stream is None:
            fits = fits_in_memory(batch, len(as_affine(params).weights), mesh)
            needed = not smooth or solver in IN_MEMORY
            stream = not (needed or (fits if mesh is None else all_gather(fits).all()))
        if stored and not stream and mesh is None:
            batch = batch._replace(features=read_sparse("features", batch.features))
        num_rows, num_parameters = len(batch.labels), sum(map(jnp.size, jax.tree.leaves(params)))
        if mesh is not None and not is_shared(batch.features, mesh):
            num_rows = int(all_gather(num_rows).sum())
        needs = "" if smooth else "an L1 penalty" if bounds is None else "a bound on weights"
        chosen, why = choose(solver, num_rows, num_parameters, needs, stream, sparse)
        options = {"stop": stop, "rng": rng, "mesh": mesh, "stream": stream, "held": held}
        solved, how = solve_linear(loss, known, penalty, params, batch, chosen, **options)
        outcome, certificate = solved.outcome, solved.certificate
        if certificate is None:
            found, value = outcome.point.params, outcome.point.value
            norm, bound = outcome.trace[-1].gradient_norm, np.inf
        else:
            found, value, norm, bound, _ = certificate
        returned = params_like(params, to_host(found))
    with jax.enable_x64(True):  # out of the mesh
        returned = on_device(returned, copy=True)
    status = status_of(outcome, certificate, solved.at_floor, stop)
    name = f"{name_of(chosen)}: {why}{how}"
    result = _result(outcome, status, returned, value, norm, bound, name, batch)
    if solved.direction is not None:
        result = result._replace(direction=result.params)
    sides = free_sides(penalty, as_affine(params).weights.shape)
    if sides.any() and not known.attains_minimum and mesh is None and not stream:
        result = _unless_it_runs_away(result, known, params, batch, sides)
    return result._replace(reason=_reason(result, why_not, sides))


def _unless_it_runs_away(
    result: SolverResult, known: Known, params, batch, sides: np.ndarray
) -> SolverResult:
    """The result, with the status ``no_finite_minimiser`` if a direction in weights without a
    penalty proves it.

    A bound below the value proves that there is a minimiser. ``sides`` is the result of
    :func:`~jaxclf.solvers.inputs.free_sides`.
    """
    labels = np.asarray(batch.labels)
    exists = result.gap_bound < result.value - known.lower_bound
    if exists or not are_hard(labels) or result.status in ("nonfinite", "no_finite_minimiser"):
        return result
    weights = np.ones(len(labels)) if batch.weights is None else batch.weights
    num_logits = len(as_affine(params).weights)
    intercept = params.intercept is not None
    free = sides.any((0, 1))
    features = batch.features if free.all() else columns_of_rows(batch.features, free)
    options = {"intercept": intercept, "sides": sides[..., free]}
    found = runaway(features, labels, weights, num_logits, **options)
    if found is None:
        return result
    found = with_zeros(~free, found)
    # Rounding to the dtype of the parameters may cost the direction that proves it, not the proof.
    direction = params_like(params, found)
    if not proves(batch.features, labels, weights, as_affine(direction)):
        direction = None
    return result._replace(status="no_finite_minimiser", gap_bound=np.inf, direction=direction)


def _reason(result: SolverResult, why_not: str, sides: np.ndarray) -> str:
    """The reason why there is no bound; empty if there is one, or if the status says why."""
    if np.isfinite(result.gap_bound) or result.status in ("nonfinite", "no_finite_minimiser"):
        return ""
    if why_not:
        return why_not
    if sides.any():
        return (
            "weights without a penalty have a bound only under a log loss or squares, with rows in "
            "memory on one device, and few of them"
        )
    return "rounding, or a loss without curvature, leaves no bound"


def _minimize_generic(
    objective, params, batch, solver: str | Callable, stop: Stop, rng, mesh
) -> SolverResult:
    if isinstance(objective, Objective) and objective.penalty is not None:
        if not is_smooth(objective.penalty):
            raise ValueError("an L1 penalty is only solved for the logits of models.linear.logits")
        checks.check_number("l2", objective.penalty.l2, at_least=0)
    if not callable(solver) and solver not in ("auto", "lbfgs", "newton_cg"):
        raise ValueError(
            f"solver {solver!r} needs the logits of models.linear.logits; lbfgs and newton_cg do"
            " without"
        )
    params = jax.tree.map(jnp.asarray, params)
    with jax.default_matmul_precision(_PRODUCTS), using(mesh):
        shared = batch if mesh is None else share_rows(batch, mesh)
        solve = solver if callable(solver) else newton_cg if solver == "newton_cg" else lbfgs
        outcome = solve(generic_oracle(objective, shared), params, stop=stop, rng=rng)
    name = name_of("lbfgs" if solver == "auto" else solver)
    why = "as asked" if solver != "auto" else "the objective is not a linear model"
    norm, point = outcome.trace[-1].gradient_norm, outcome.point
    solved = point.params if mesh is None else jax.tree.map(jnp.asarray, to_host(point.params))
    if outcome.status == "no_finite_minimiser":  # nothing proves it of any objective
        outcome = outcome._replace(status="stalled")
    status = status_of(outcome, None, False, stop)
    result = _result(outcome, status, solved, point.value, norm, np.inf, f"{name}: {why}", batch)
    return result._replace(reason="the objective is not a linear model")


def _result(
    outcome: Outcome, status: str, params, value, norm, bound, solver: str, batch
) -> SolverResult:
    suspect = outcome.status == "nonfinite" and len(outcome.trace) == 1
    if suspect and isinstance(batch, Batch) and not is_shared(batch.features):
        # The data may hold NaN or infinity; then the failure is theirs, not the solver's.
        for leaf in jax.tree.leaves(batch.features, is_leaf=is_sparse):
            array = leaf.by_row.values[:, None] if is_sparse(leaf) else leaf
            array = array.values[:, None] if isinstance(array, StoredRows) else array
            checks.check_features(np.asarray(array))
        checks.check_labels(np.asarray(batch.labels), num_rows=len(batch.labels), num_classes=None)
    return SolverResult(
        params=params,
        value=float(value),
        gradient_norm=float(norm),
        gap_bound=float(bound),
        status=status,
        solver=solver,
        steps=len(outcome.trace) - 1,
        passes=outcome.passes,
        trace=outcome.trace,
    )


def _teller(callback, verbose: bool) -> Watch:
    told = -np.inf

    def tell(step: Step, _: Point | None) -> None:
        nonlocal told
        if callback is not None:
            callback(step)
        if verbose and time.monotonic() - told >= _PROGRESS_SECONDS:
            told = time.monotonic()
            print(
                f"{step.seconds:8.2f} s  objective {step.value:.9g}  "
                f"gradient {step.gradient_norm:.3g}  {step.passes:.1f} readings",
                file=sys.stderr,
                flush=True,
            )

    return tell
