"""The linear fits of the estimators: their data on a device, their start, and their solution."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import issparse

from jaxclf import checks
from jaxclf.estimators.inputs import Training, filled, padded_columns, padded_rows
from jaxclf.estimators.parameters import SOLVER_NAMES, factors_of, seed_of
from jaxclf.forks import refuse_fork
from jaxclf.models.linear import LinearParams, logits
from jaxclf.objectives import Batch, make_objective
from jaxclf.penalties import Penalty, elastic_net
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.devices import PLATFORMS, choose_device
from jaxclf.solvers.minimize import minimize_each
from jaxclf.solvers.result import SolverResult
from jaxclf.sparse_rows import canonical, from_csr

_ANY_GAP = float(np.finfo(np.float64).tiny)
"""The tolerance of the gap, so small that estimators stop by the gradient, as scikit-learn's do."""


def solve(
    loss: Callable, batch: Batch, start: LinearParams, penalty: Penalty, **options: Any
) -> SolverResult:
    """The result of :func:`solve_each` for one penalty."""
    [result] = solve_each(loss, batch, start, [penalty], **options)
    return result


@standard_promotion
def solve_each(
    loss: Callable,
    batch: Batch,
    start: LinearParams,
    penalties: Iterable[Penalty],
    *,
    factors: np.ndarray | None = None,
    bounds: tuple | None = None,
    solver: str = "auto",
    tol: float,
    tol_scale: float = 1.0,
    max_iter: int,
    seed: int = 0,
    verbose: bool = False,
) -> list[SolverResult]:
    """The results of :func:`jaxclf.minimize` for each penalty, from where those before point.

    They are computed in the dtype of the start, whatever JAX's 64-bit mode. The solver stops where
    no entry of the gradient is larger than ``tol`` times ``tol_scale``, and has converged if the
    bound on the gap is at most ``tol``. The start, the ``factors`` of the penalties, the ``bounds``
    and the results are those of the first columns of the batch. The other columns start at zero,
    with the factor 1 and no bounds.
    """
    num_columns, width = start.weights.shape[-1], batch.features.shape[1]
    start = start._replace(weights=widened(start.weights, width))
    if factors is not None:
        factors = widened(factors, width, 1)
        penalties = [elastic_net(l1=x.l1, l2=x.l2, factors=factors) for x in penalties]
    objectives = [make_objective(logits, loss, penalty) for penalty in penalties]
    with jax.enable_x64(True):
        if max_iter == 0:
            results = [_at_start(objective, start, batch) for objective in objectives]
        else:
            found = minimize_each(
                objectives,
                start,
                batch,
                solver=solver,
                bounds=padded_bounds(bounds, width),
                tol=_ANY_GAP,
                gradient_tol=tol * tol_scale,
                max_steps=max_iter,
                seed=seed,
                verbose=verbose,
            )
            results = list(found)
    return [_as_asked(result, num_columns, tol) for result in results]


def _as_asked(result: SolverResult, num_columns: int, tol: float) -> SolverResult:
    """The result in the columns that were given, with the status for this tolerance."""
    params = jax.tree.map(np.array, result.params)  # copies, which a user may write to
    params = params._replace(weights=np.ascontiguousarray(params.weights[..., :num_columns]))
    status, direction = result.status, result.direction
    if direction is not None:
        direction = jax.tree.map(np.asarray, direction)
        weights = np.ascontiguousarray(direction.weights[..., :num_columns])
        direction = direction._replace(weights=weights)
    elif result.gap_bound <= tol:
        status = "converged"
    elif status in ("max_steps", "stalled", "precision_floor") and result.gradient_norm <= tol:
        status = "stationary"
    return result._replace(params=params, direction=direction, status=status)


def padded_bounds(bounds: tuple | None, width: int) -> tuple | None:
    """Bounds on the first columns as bounds on all; the others have none."""
    if bounds is None:
        return None
    ends = zip(bounds, (-np.inf, np.inf), strict=True)
    return tuple(widened(x, width, end) for x, end in ends)


def widened(x: np.ndarray, num_columns: int, value: float = 0) -> np.ndarray:
    """An array ``(…, d)`` with more columns, in which every entry is the value."""
    more = [(0, 0)] * (x.ndim - 1) + [(0, num_columns - x.shape[-1])]
    return np.pad(x, more, constant_values=value)


def _at_start(objective: Callable, start: LinearParams, batch: Batch) -> SolverResult:
    """The result of no step."""
    value, gradient = jax.value_and_grad(objective)(jax.tree.map(jnp.asarray, start), batch)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    return SolverResult(
        params=start,
        value=float(value),
        gradient_norm=largest,
        gap_bound=np.inf,
        status="max_steps",
        solver="none",
        steps=0,
        passes=1.0,
        trace=(),
        reason="no step was allowed",
    )


def on_device(training: Training, targets: np.ndarray, device: Any) -> Batch:
    """The rows of a fit on a device.

    The device is one of JAX, the first of a platform that is named, or JAX's own choice. The rows
    are filled up with rows of weight zero, and with columns of zeros.
    """
    refuse_fork()
    if isinstance(device, str):
        checks.check_option("device", device, PLATFORMS)
        device = choose_device(device)
    (n, d), offset = training.features.shape, training.offset
    size, width = padded_rows(n), padded_columns(d)
    with jax.enable_x64(True):
        if device is None and isinstance(training.features, jax.Array):
            device = training.features.device
        if issparse(training.features):
            # Programs are compiled for a count of numbers too.
            matrix = canonical("X", training.features)
            matrix.resize((size, width))
            features = from_csr(matrix, room=padded_rows(matrix.nnz))
        else:
            features = filled(training.features, (size, width))
        rows = Batch(
            features,
            filled(targets, (size, *targets.shape[1:])),
            filled(training.weights, (size,)),
            None if offset is None else filled(offset, (size, *offset.shape[1:])),
        )
        return jax.device_put(rows, device)


def zeros(training: Training, num_logits: int, intercept: bool) -> LinearParams:
    """The start of a fit: zeros, with weights ``(d,)`` for one logit and else ``(K, d)``."""
    dtype = training.features.dtype
    outputs = () if num_logits == 1 else (num_logits,)
    weights = np.zeros((*outputs, training.features.shape[1]), dtype)
    return LinearParams(weights, np.zeros(outputs, dtype) if intercept else None)


def without_constant(params: LinearParams, value: float | None) -> LinearParams:
    """The parameters of the features without the column of :func:`inputs.with_constant`, whose
    weight becomes the intercept."""
    if value is None:
        return params
    weights = params.weights
    return LinearParams(np.ascontiguousarray(weights[..., :-1]), weights[..., -1] * value)


def tol_scale_of(training: Training) -> float:
    """The smallest share of a class in the weights of the rows, times the number of classes.

    A gradient is small for a rare class whatever its coefficients are. The tolerance is therefore
    scaled by this number, as liblinear scales its own.
    """
    weights, targets = training.weights.astype(np.float64), training.targets
    totals = np.bincount(targets, weights) if targets.ndim == 1 else weights @ targets
    totals = totals[totals > 0]
    return min(1.0, float(totals.min() / totals.mean()))


def options_of(estimator, num_logits: int) -> dict:
    """The options of :func:`solve` that an estimator's parameters give."""
    return {
        "factors": factors_of(estimator, num_logits),
        "solver": SOLVER_NAMES[getattr(estimator, "solver", "auto")],
        "tol": estimator.tol,
        "max_iter": estimator.max_iter,
        "seed": seed_of(estimator.random_state),
        "verbose": estimator.verbose > 0,
    }
