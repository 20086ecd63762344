"""A sequence of penalties, each solved from the solution before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jaxclf.objectives import Batch, Objective
from jaxclf.penalties import Penalty
from jaxclf.solvers.minimize import minimize
from jaxclf.solvers.result import SolverResult


def minimize_path(
    objective: Objective, params, batch: Batch, strengths: Iterable[Penalty], **options
) -> tuple[SolverResult, ...]:
    """:func:`jaxclf.minimize` for each penalty, from where the one before ended.

    Strengths are arguments of the compiled programs, so another one compiles nothing; with L1 only
    each doubling of the support does. Strong to weak is the cheap order, as the first solutions are
    close to zero.

    Args:
      objective: from :func:`jaxclf.make_objective`; its own penalty is not used.
      params: the first start.
      batch: from :func:`jaxclf.make_batch`.
      strengths: penalties, such as ``[penalties.l2(x) for x in (1, 0.1, 0.01)]``.
      options: of :func:`jaxclf.minimize`.

    Returns:
      One result for each penalty, in their order.

    Raises:
      As :func:`jaxclf.minimize`, and ValueError for no penalties.

    Source: Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via
    coordinate descent, J. Stat. Softw. 33 (2010), section 2.5.
    """
    strengths = tuple(strengths)
    if not strengths:
        raise ValueError("a path needs at least one penalty, got none")
    results = []
    for strength in strengths:
        result = minimize(replace(objective, penalty=strength), params, batch, **options)
        results.append(result)
        if result.status not in ("nonfinite", "no_finite_minimiser"):
            params = result.params
    return tuple(results)
