"""The minimax concave penalty, by a sequence of weighted L1 problems.

The penalty is not convex, so that nothing bounds the distance to its minimum.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from jaxclf import checks
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Batch, Objective
from jaxclf.penalties import Penalty, is_smooth
from jaxclf.solvers.minimize import minimize
from jaxclf.solvers.result import SolverResult, Step


def minimize_mcp(
    objective: Objective,
    params,
    batch: Batch,
    strength: float,
    *,
    gamma: float = 3.0,
    tol: float = 1e-6,
    max_rounds: int = 100,
    **options,
) -> SolverResult:
    """A stationary point of an objective plus the minimax concave penalty (MCP) of each weight.

    With λ the strength the penalty is ``λ |w| - w² / (2 γ)`` up to ``|w| = γ λ``, and ``γ λ² / 2``
    beyond. It sets weights to zero as L1 does, and leaves large ones unshrunk. Each round solves
    the problem with L1 of strength ``max(0, λ - |w| / γ)`` at the weights of the round before
    (local linear approximation), which never raises the objective. From zero the first round is
    the lasso. The penalty is not convex: the point depends on the start, ``gap_bound`` is infinite,
    and the status is ``stationary`` at best.

    Args:
      objective: an objective from :func:`jaxclf.make_objective` with the logits of
        :func:`jaxclf.models.linear.logits`, whose penalty is L2 or none.
      params: the start.
      batch: rows from :func:`jaxclf.make_batch`. Features should have one scale, because γ λ is a
        size of a weight.
      strength: λ, above 0.
      gamma: γ, above 1; with a large one the penalty is close to L1.
      tol: the rounds end where one lowers the objective by no more than this.
      max_rounds: the most rounds.
      options: further options of :func:`jaxclf.minimize`, for each round.

    Returns:
      The result; its trace has a line for each round, and ``gradient_norm`` is a bound on the
      largest entry of the smallest subgradient.

    Raises:
      ValueError: a strength or γ out of range, a penalty beside L2; and everything that
        :func:`jaxclf.minimize` raises.
      TypeError: an objective that is no linear model.

    Source: Zhang, Nearly unbiased variable selection under minimax concave penalty, Ann. Stat. 38
    (2010); Zou and Li, One-step sparse estimates in nonconcave penalized likelihood models, Ann.
    Stat. 36 (2008).
    """
    if not isinstance(objective, Objective) or not is_linear(objective.logits_fn):
        raise TypeError("minimize_mcp needs the logits of models.linear.logits")
    if not is_smooth(objective.strengths):
        raise ValueError("minimize_mcp takes the place of L1: give the objective L2 or no penalty")
    checks.check_number("strength", strength, above=0)
    checks.check_number("gamma", gamma, above=1)
    checks.check_number("max_rounds", max_rounds, at_least=1)
    began, value, passes, trace, result = time.perf_counter(), np.inf, 0.0, [], None
    status = "max_steps"
    for _ in range(max_rounds):
        slopes = _slopes(params.weights, strength, gamma)
        penalty = Penalty(l1=slopes, l2=objective.strengths.l2)
        found = minimize(replace(objective, penalty=penalty), params, batch, tol=tol, **options)
        passes += found.passes
        if found.status in ("nonfinite", "no_finite_minimiser"):
            # Weights without a slope separate the classes, which proves nothing of other weights.
            status = "nonfinite" if found.status == "nonfinite" else "stalled"
            result = found if result is None else result
            break
        result, params, before = found, found.params, value
        w = np.abs(np.asarray(params.weights, np.float64))
        value = found.value + float(np.sum(_terms(w, strength, gamma) - slopes * w))
        changed = np.abs(slopes - _slopes(w, strength, gamma))
        largest = found.gradient_norm + float(np.max(changed, where=w > 0, initial=0.0))
        trace.append(Step(value, largest, time.perf_counter() - began, passes))
        if before - value <= tol:
            status = "stationary" if found.status != "max_steps" else "max_steps"
            break
    return result._replace(
        value=value if trace else result.value,
        gradient_norm=trace[-1].gradient_norm if trace else result.gradient_norm,
        gap_bound=np.inf,
        status=status,
        solver=f"local linear approximation over {result.solver}",
        steps=len(trace),
        passes=passes,
        trace=tuple(trace),
        direction=None,
        reason="the minimax concave penalty is not convex",
    )


def _slopes(w, strength: float, gamma: float) -> np.ndarray:
    """The slope of the penalty at the size of each weight."""
    return np.maximum(0, strength - np.abs(np.asarray(w, np.float64)) / gamma)


def _terms(size, strength: float, gamma: float) -> np.ndarray:
    """The penalty of weights of such a size."""
    near = np.minimum(size, gamma * strength)
    return strength * near - near**2 / (2 * gamma)
