"""Truncated Newton, which takes few readings of the features whatever the conditioning.

Every step solves ``∇²F d = -∇F`` by preconditioned conjugate gradients to a modest accuracy, and
searches along d. Where there is no curvature it goes down the gradient. On large data the Hessian
is made of a sample, because rows whose curvature is nearly zero hardly count. A row is drawn with
probability ``min(1, τ sᵢ)``, where sᵢ is the trace of its ``ωᵢ ℓ″ᵢ``, and weighs one over that
probability. So the sampled Hessian is unbiased, and the rows that matter are in it exactly.
Gradients are always made of all rows. The curvature of all rows along d, known from the logits of
d, tells how good the sample is. Where it is much more than in the sample, the sample is drawn anew,
or a larger one is drawn if the sample was new.

Sources: Nocedal and Wright, Numerical Optimization (2006), section 7.1; Byrd, Chin, Neveitt and
Nocedal, On the use of stochastic Hessian information, SIAM J. Optim. 21 (2011).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxclf.linear_algebra.conjugate_gradients import (
    SecantPairs,
    Solution,
    conjugate_gradients,
    gap_left,
    no_pairs,
    remembered,
    saw_enough,
    smallest_eigenvalue,
)
from jaxclf.solvers.oracle import Point, move, run, steepest_descent
from jaxclf.solvers.result import Iteration, Outcome, Stop

FIRST_SHARE = 3
"""The first sample has one row in so many, where rows are sampled."""
ACCURACY = 0.2
"""The accuracy of each solve. A tighter one gains little, because the next solve goes on where this
one stopped."""
STALE, TOO_SMALL = 1.3, 1.5
"""The sample is drawn anew where the curvature of all rows along the step is more than the first
times the curvature in the sample; a new sample is enlarged where it is more than the second."""
FALL = 8
"""The sample is drawn anew when a step promises so many times less than when it was drawn."""
FALLING = 0.75
"""A step that leaves a larger share of the gradient gains little. Along steps of a sampled Hessian
the gradient may fall by a third only, and the next step may still bring the bound to ``tol``."""
_MANY = 12
"""A solve of more products than this asks for a closer metric, once the products since the last one
have taken as long as it takes to make."""
PRODUCTS = "tensorfloat32"
"""The precision of matrix products in a solve, where a device has it. A solve to a fifth needs no
more than its 11 bits, and such products are six times as fast as float32 on an H200. Values and
gradients are float32 or better. A CPU has only float32."""
WOLFE_C2, ROUGH = 0.1, 0.5
"""The share of the slope that a line search may leave; the second applies where a trial reads the
features."""


def _direction(oracle: Any, point: Point, metric: Any, pairs: SecantPairs) -> Solution:
    """A truncated Newton step, solved in the dtype of the pairs."""
    b = jax.tree.map(lambda g: -g.astype(pairs.pairs.dtype), point.gradient)
    with jax.default_matmul_precision(PRODUCTS):
        product = oracle.product(point)
        found = conjugate_gradients(product, metric, b, ACCURACY, pairs, oracle.control)
    d = jax.tree.map(lambda d, g: d.astype(g.dtype), found.d, point.gradient)
    return found._replace(d=d)


def _moved(oracle: Any, iteration: Iteration, point: Point, d: Any, slope, first) -> tuple:
    """A step along a direction, its length, and the curvature along it over its slope, which is one
    where the direction minimises the quadratic of all rows."""
    wolfe_c2 = WOLFE_C2 if oracle.passes.trial == 0 else ROUGH
    moved = move(oracle, point, d, slope, wolfe_c2, first)
    told = moved.length, moved.trials, moved.curvature_ratio
    length, trials, curvature_ratio = jax.device_get(told)
    iteration.passes += oracle.passes.ray + oracle.passes.trial * int(trials)
    return moved, length, curvature_ratio


def newton_cg(
    oracle: Any,
    params: Any,
    *,
    stop: Stop,
    rng: np.random.Generator,
    first_size: int | None = None,
) -> Outcome:
    """Minimises an objective, to about ``stop.tol`` of its minimum.

    Args:
      oracle: an oracle as in :mod:`jaxclf.solvers.oracle`, convex or at least bounded below.
      params: the start.
      stop: the end. The last step starts from a point whose gap ``½ gᵀ H⁻¹ g`` is about ``tol`` or
        less. The part of the gap that conjugate gradients left is estimated from the smallest
        eigenvalue in their last few products, of this step and of those before. As long as steps
        still lower the gradient by a quarter, the bound that the gradient gives is brought to
        ``tol`` too. That bound may be far above the gap, and falls as far as the precision of
        slopes, not of values, allows.
      rng: the generator for the samples.
      first_size: rows in the first sample; by default all.
    """
    n, passes, point = oracle.num_rows, oracle.passes, oracle.evaluate(params)
    iteration, tol = Iteration(point, stop), stop.tol
    iteration.passes += passes.start
    size, model, fresh = min(first_size or n, n), None, True
    pairs = no_pairs(params, dtype=np.float32 if oracle.is_narrow(params) else None)
    seen, gap, previous = [], np.inf, None
    made_at, products, budget, steepest = np.inf, 0, 0, np.inf

    while True:
        value, largest, bound = map(
            float, jax.device_get((point.value, point.largest, point.gap_bound))
        )
        uncertain = tol < bound < np.inf and largest < FALLING * steepest
        steepest = largest
        reached = saw_enough(seen) and gap <= tol and not uncertain
        if status := iteration.arrive(point._replace(value=value), largest, reached=reached):
            return iteration.end(status)
        here = iteration.trace[-1][:2]
        if here == previous:  # rounding hides the step
            return iteration.end("precision_floor")

        if fresh:
            model, read = oracle.model(point, size, model, budget, rng)
            iteration.passes += read
        at = Point(point.params, 0.0, point.gradient, kept=point.kept)
        solved = run(_direction, model.oracle, at, model.metric, pairs)
        told = jax.device_get(solved._replace(d=None, pairs=None))
        predicted_decrease, count = float(told.predicted_decrease), int(told.count)
        iteration.passes += passes.product * count * size / n
        seen.append((count, smallest_eigenvalue(count, told.alpha, told.beta)))
        made_at = predicted_decrease if fresh else made_at
        products = count if budget else products + count
        pairs = remembered(solved.pairs, told.products)
        d, slope, first = solved.d, -2 * predicted_decrease, 1.0
        flat = not np.isfinite(predicted_decrease + told.residual_energy)
        if flat and oracle.is_narrow(params):
            oracle, model, fresh, previous = oracle.exact(), None, True, None
            pairs = no_pairs(params)
            continue
        if flat:
            # There is no curvature where there is a slope.
            d, slope, first = steepest_descent(oracle, point)
            predicted_decrease, made_at = -slope * first, np.inf
        gap = gap_left(seen, predicted_decrease, float(told.residual_energy))
        hidden = predicted_decrease <= oracle.noise * abs(value)
        # A decrease below zero is rounding too: no length along such a direction is good.
        if hidden and (not uncertain or predicted_decrease <= 0):
            return iteration.end("converged" if gap <= tol else "precision_floor")

        moved, length, curvature_ratio = _moved(oracle, iteration, point, d, slope, first)
        if length == 0 and not flat and predicted_decrease > abs(value):
            # The curvature is that of few rows, and promises far more than there is.
            down = steepest_descent(oracle, point)
            moved, length, _ = _moved(oracle, iteration, point, *down)
            flat, made_at = True, np.inf
        if length == 0:
            if size < n or oracle.is_narrow(params):  # the model is to blame
                oracle, model, pairs = oracle.exact(), None, no_pairs(params)
                size, fresh, previous, gap = n, True, None, np.inf
                continue
            return iteration.end("converged" if gap <= tol else "precision_floor")
        point, previous = moved.point, here
        curvature_ratio = 1.0 if flat else curvature_ratio  # the direction is none of the model's
        if size < n and fresh and curvature_ratio > TOO_SMALL:
            size = min(2 * size, oracle.most_rows)
        else:
            fresh = predicted_decrease < made_at / FALL or (curvature_ratio > STALE and size < n)
        budget = products if count > _MANY and products >= model.price else 0
        fresh = fresh or budget > 0
