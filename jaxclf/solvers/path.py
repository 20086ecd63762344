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
    """The results of :func:`jaxclf.minimize` for each penalty, from where the one before ended.

    Strengths are arguments of the compiled programs, so another strength compiles nothing; with L1
    a program is compiled only when the number of weights that are not zero has doubled. Strong to
    weak is the cheap order, because the first solutions are close to zero.

    Args:
      objective: an objective from :func:`jaxclf.make_objective`; its own penalty is not used.
      params: the first start.
      batch: rows from :func:`jaxclf.make_batch`.
      strengths: penalties, such as ``[penalties.l2(x) for x in (1, 0.1, 0.01)]``; ``None`` is none.
      options: options of :func:`jaxclf.minimize`.

    Returns:
      One result for each penalty, in their order.

    Raises:
      ValueError: no penalties; and everything that :func:`jaxclf.minimize` raises.

    Source: Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via
    coordinate descent, J. Stat. Softw. 33 (2010), section 2.5.
    """
    strengths = (strengths,) if isinstance(strengths, Penalty) else tuple(strengths)
    strengths = tuple(Penalty() if strength is None else strength for strength in strengths)
    if not strengths:
        raise ValueError("a path needs at least one penalty, got none")
    for strength in strengths:
        if not isinstance(strength, Penalty):
            raise TypeError(
                f"strengths must be penalties, such as penalties.l2(0.1), got {strength!r}"
            )
    results = []
    for strength in strengths:
        result = minimize(replace(objective, penalty=strength), params, batch, **options)
        results.append(result)
        if result.status not in ("nonfinite", "no_finite_minimiser"):
            params = result.params
    return tuple(results)
