"""Truncated Newton: few readings of the features, whatever the conditioning.

Every step solves ``∇²F d = -∇F`` by preconditioned conjugate gradients to a modest accuracy, and
searches along d. On large data the Hessian is that of a sample: rows whose curvature is nearly
zero hardly count in it. A row is drawn with probability ``min(1, τ sᵢ)``, sᵢ the trace of its
``ωᵢ ℓ″ᵢ``, and weighs one over that, so the sampled Hessian is unbiased and the rows that matter
are in it exactly. Gradients are always those of all rows. The curvature of all rows along d, known
from its logits, tells how good the sample is: where it is much more than the sample says, the
sample is drawn anew, and if it was new, a larger one.

Sources: Nocedal and Wright, Numerical Optimization (2006), section 7.1; Byrd, Chin, Neveitt and
Nocedal, On the use of stochastic Hessian information, SIAM J. Optim. 21 (2011).
"""

from __future__ import annotations

import numpy as np

from jaxclf.solvers.conjugate_gradients import nothing_curved, smallest_eigenvalue
from jaxclf.solvers.iteration import Iteration, Outcome, Watch
from jaxclf.solvers.problem import Problem

_ACCURACY = 0.2
"""Of each solve. A tighter one gains little: the next solve goes on where this one stopped."""
_TRUSTED = 4
"""Products from which on a solve has seen the small eigenvalues that its estimate needs."""
STALE, TOO_SMALL = 1.3, 1.5
"""Curvature along the step over that in the sample, above which the sample is changed."""
FALL = 8
"""The sample is drawn anew when a step promises so much less than when it was drawn."""
_MANY = 12
"""Products in a solve that pay for a closer metric."""
_FLATNESS = 0.1


def newton_cg(
    problem: Problem,
    params,
    *,
    tol: float,
    max_steps: int,
    first_size: int,
    watch: Watch,
) -> Outcome:
    """Minimises a problem, to about ``tol`` of its minimum.

    Args:
      problem: convex, or at least bounded below.
      params: the start.
      tol: the last step is that from a point whose gap ``½ gᵀ H⁻¹ g`` is about this or less; what
        conjugate gradients left of it is estimated from the smallest eigenvalue they saw. The
        estimate of a very short solve counts if that of the step before says the same.
      max_steps: how many at most.
      first_size: rows in the first sample.
      watch: called before every step with the trace's line and the point; may end the iteration by
        returning a status.
    """
    n, readings, point = problem.num_rows, problem.readings, problem.start(params)
    iteration = Iteration(point, watch, max_steps)
    iteration.passes += readings.gradient
    size, model, fresh = min(first_size, n), None, True
    curved, near, previous = nothing_curved(params), False, None
    made_at, closer_at, closer, reached = np.inf, np.inf, False, False

    while True:
        g, largest = problem.gradient(point)
        iteration.passes += readings.gradient
        if status := iteration.arrive(point, float(largest), reached=reached):
            return iteration.end(status)
        here = iteration.trace[-1][:2]
        if here == previous:  # a step that rounding makes none
            return iteration.end("converged" if near else "precision_floor")

        if fresh:
            model, read = problem.model(point, size, model, closer)
            iteration.passes += read
        solved = problem.direction(model, point, g, _ACCURACY, curved)
        iteration.passes += readings.product * int(solved.count) * size / n
        promised, lowest = float(solved.promised), smallest_eigenvalue(solved)
        if fresh:
            made_at = promised
        if closer:
            closer_at = promised
        curved = solved.curved
        if not np.isfinite(promised):
            return iteration.end("nonfinite")
        gap = promised + float(solved.left) / lowest if lowest > 0 else np.inf
        if promised <= problem.noise * abs(float(point.value)):
            return iteration.end("converged" if gap <= tol else "precision_floor")

        moved = problem.move(point, solved.d, -2 * promised, _FLATNESS, 1.0)
        iteration.passes += readings.ray + readings.trial * int(moved.trials)
        if float(moved.length) == 0:
            if size < n:  # the sample's fault
                size, fresh, previous = n, True, None
                continue
            return iteration.end("converged" if gap <= tol else "precision_floor")
        stretch, point, previous = float(moved.stretch), moved.point, here
        reached = gap <= tol and (near or int(solved.count) >= _TRUSTED)
        near = gap <= tol
        if size < n and fresh and stretch > TOO_SMALL:
            size = min(2 * size, n)
        else:
            fresh = promised < made_at / FALL or (stretch > STALE and size < n)
        closer = int(solved.count) > _MANY and promised < closer_at / FALL
        fresh = fresh or closer
