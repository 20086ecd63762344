"""Full-batch convex problems, solved until the optimum is certain."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.objectives import Batch, Objective, check_rows
from jaxclf.penalties import Penalty
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.certificate import make_certify
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.newton_cg import newton_cg
from jaxclf.solvers.result import SolverResult, Step

_SURE_MARGIN = 30.0
"""A margin at which a logistic loss is about 1e-13 and a hinge is zero."""


def minimize(
    objective: Objective,
    params,
    batch: Batch,
    *,
    tol: float = 1e-6,
    max_steps: int = 200,
    seed: int = 0,
    callback: Callable[[Step], None] | None = None,
) -> SolverResult:
    """Minimises the objective of a linear model over all rows of a batch.

    The loss may be any convex, twice differentiable one of the logits, the penalty L2 or none. The
    solver is truncated Newton with a Gram preconditioner and sampled Hessians,
    :mod:`jaxclf.solvers.newton_cg`. It computes in the dtype of ``params``; sums of the objective
    and the final value, gradient and bound are in float64 whatever JAX's 64-bit mode.

    Args:
      objective: from :func:`jaxclf.make_objective`, with the logits of
        :func:`jaxclf.models.linear.logits` and an L2 penalty or none.
      params: the start, with ``weights`` ``(d,)`` or ``(K, d)`` and ``intercept`` or ``None``.
      batch: from :func:`jaxclf.make_batch`; features ``(n, d)`` of any real dtype, which are
        widened a block at a time.
      tol: stop where the objective is about this close to its minimum, in nats.
      max_steps: Newton steps at most.
      seed: of the rows that are sampled.
      callback: called with each :class:`Step` as it is made.

    Returns:
      The result with its status; a numerical failure is a status, never an exception.

    Raises:
      ValueError, TypeError: an objective, a start or a batch that do not fit together.
    """
    _check(objective, params, batch, tol, max_steps)
    matrix = jnp.ndim(params.weights) == 2
    loss = objective.loss if matrix else _of_one_logit(objective.loss)
    l2 = float((objective.penalty or Penalty()).l2)
    with jax.enable_x64(True):
        rows, start = _rows(batch, params), _affine(params)
        certify, separated = make_certify(loss), _make_separated(loss)

        def watch(step: Step, z, affine: Affine) -> str | None:
            if callback is not None:
                callback(step)
            unbounded = l2 == 0 and step.value > 0 and bool(separated(z, rows))
            return "no_finite_minimiser" if unbounded else None

        outcome = newton_cg(
            loss,
            rows,
            start,
            l2,
            tol=tol,
            max_steps=max_steps,
            rng=np.random.default_rng(seed),
            watch=watch,
        )
        if outcome.status in ("nonfinite", "no_finite_minimiser"):
            found, value = outcome.affine, outcome.value
            norm, bound = outcome.trace[-1].gradient_norm, np.inf
        else:
            found, value, norm, bound = certify(rows, outcome.affine, l2)
        solved = _params_like(params, found)
    sampled = "; Hessians of sampled rows" if outcome.sampled else ""
    return SolverResult(
        params=solved,
        value=float(value),
        gradient_norm=float(norm),
        gap_bound=float(bound),
        status=outcome.status,
        solver=f"newton_cg: a linear model with a smooth penalty{sampled}",
        steps=outcome.steps,
        passes=outcome.passes,
        trace=outcome.trace,
        direction=solved if outcome.status == "no_finite_minimiser" else None,
    )


def _check(objective, params, batch, tol, max_steps) -> None:
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must come from make_objective, got {type(objective).__name__}")
    if not getattr(objective.logits_fn, "affine", False):
        raise ValueError("the objective's logits must be jaxclf.models.linear.logits")
    if objective.penalty is not None and np.any(np.asarray(objective.penalty.l1) != 0):
        raise ValueError("the penalty must be smooth: l2 or none")
    checks.check_number("l2", (objective.penalty or Penalty()).l2, at_least=0)
    checks.check_number("tol", tol, above=0)
    checks.check_number("max_steps", max_steps, at_least=1)
    check_rows(batch)
    checks.check_shape("features", batch.features, (None, jnp.shape(params.weights)[-1]))
    if jnp.ndim(params.weights) == 2 and len(params.weights) == 1:
        raise ValueError("one logit has weights (d,), not (1, d): a softmax needs two classes")
    for name, leaf in params._asdict().items():
        if leaf is not None and not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"{name} must be floating, got dtype {jnp.result_type(leaf)}")
    if batch.weights is not None:
        checks.check_weights(batch.weights, num_rows=len(batch.features))


@lru_cache(maxsize=64)
def _of_one_logit(loss: Callable) -> Callable:
    return lambda z, label: loss(z[0], label)


def _rows(batch: Batch, params) -> Rows:
    dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)
    n = len(batch.features)
    weights = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    weights = jnp.asarray(weights / weights.sum(), dtype)
    return Rows(jnp.asarray(batch.features), jnp.asarray(batch.labels), weights)


def _affine(params) -> Affine:
    dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)
    weights = jnp.asarray(params.weights, dtype)
    intercept = params.intercept
    if weights.ndim == 1:
        weights = weights[None]
        intercept = None if intercept is None else jnp.reshape(jnp.asarray(intercept, dtype), (1,))
    return Affine(weights, None if intercept is None else jnp.asarray(intercept, dtype))


def _params_like(params, affine: Affine) -> Any:
    def shaped(like, found):
        return (
            None if like is None else found.reshape(jnp.shape(like)).astype(jnp.result_type(like))
        )

    return params._replace(
        weights=shaped(params.weights, affine.weights),
        intercept=shaped(params.intercept, affine.intercept),
    )


@lru_cache(maxsize=64)
def _make_separated(loss: Callable) -> Callable:
    """Whether the parameters that give logits z prove that no finite minimiser exists.

    If they put every row on the right side of every boundary, the loss along their ray falls as
    long as it is positive. It has no minimiser if it is still positive where the smallest margin is
    large, as for log loss; a hinge, which is zero there, has one.
    """

    @jax.jit
    def separated(z, rows: Rows):
        if not jnp.issubdtype(rows.labels.dtype, jnp.integer) or rows.labels.ndim != 1:
            return jnp.asarray(False)
        if z.shape[1] == 1:
            margin = jnp.where(rows.labels > 0, z[:, 0], -z[:, 0])
        else:
            own = jnp.arange(z.shape[1])[None] == rows.labels[:, None]
            margin = jnp.sum(jnp.where(own, z, 0), 1) - jnp.max(jnp.where(own, -jnp.inf, z), 1)
        smallest = jnp.min(jnp.where(rows.weights > 0, margin, jnp.inf)).astype(jnp.float64)
        far = z.astype(jnp.float64) * (_SURE_MARGIN / jnp.maximum(smallest, 1e-300))
        values = [jnp.sum(rows.weights * lp.losses(loss, at, rows.labels)) for at in (z, far)]
        return (smallest > 0) & (values[1] > 0) & (values[1] < values[0])

    return separated
