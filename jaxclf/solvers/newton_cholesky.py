"""Newton's method with the exact Hessian, for few parameters: one compiled program.

A step of a small problem takes less time than it takes to ask for it, so the program makes many
steps and hands back the points that it passed. It has one loop with one evaluation in it, of value,
gradient and Hessian together: a trial of the line search is an evaluation, and where it is good the
next direction is at hand. So little code takes little time to compile.

Small problems are computed in float64 whatever the dtype of the parameters. If that is float64 too,
the last evaluation is the certificate of :mod:`jaxclf.solvers.certificate`: where there is a ridge,
the program goes on for a few steps until the intercept is at its minimum.

Source: Boyd and Vandenberghe, Convex Optimization (2004), section 9.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.programs import programs_by_shape
from jaxclf.scaling.row_sums import sum_rows
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.certificate import SETTLED, Certificate, measured
from jaxclf.solvers.iteration import Iteration, Outcome, Stop
from jaxclf.solvers.line_search import (
    MOST_TRIALS,
    Bracket,
    narrowed,
    next_trial,
    open_bracket,
    packed,
    unpacked,
)
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.preconditioner import factored
from jaxclf.solvers.problem import Point

MOST_PARAMETERS = 256
_CURVATURE = 0.1
"""The share of the slope that a line search may leave."""
_POINTS = 16
"""Points that one call may pass. Most problems take 5 to 10."""
_WATCHED = 8
"""Points of one call without a penalty: the last of them may prove that there is no minimiser."""
_CHEAP = 2**26
"""Multiplications of a Hessian up to which a call passes many points, and computes in float64: a
Hessian takes about a millisecond."""
_SETTLING = 3
"""Steps beyond the tolerance that may settle the intercept. Newton's method squares its error."""


class _Numbers(NamedTuple):
    """What is known of the last accepted point and of the search from it, as floating numbers.

    The loop carries them as one array, see :mod:`jaxclf.solvers.line_search`.
    """

    value: Any
    largest: Any
    """The largest absolute entry of the gradient."""
    gap_bound: Any
    """Infinite unless the intercept is settled."""
    slope: Any
    """Along the direction."""
    bracket: Bracket
    length: Any
    """The length that is tried next."""
    trials: Any
    reached: Any
    """Whether the point meets a tolerance."""
    stuck: Any
    """Whether rounding hides the step from here, or no length was good."""
    settling: Any
    """Steps since a tolerance was met."""
    count: Any
    """Points that this call has accepted."""
    evaluations: Any


class _State(NamedTuple):
    """Between two evaluations."""

    affine: Affine
    direction: Affine
    numbers: Any
    """:class:`_Numbers`, packed."""
    trace: Any
    """``(2, 16)``, values and largest entries of the gradient of the points that were accepted."""


_BEGIN = _Numbers(np.inf, np.inf, np.inf, 0, Bracket(0, 0, 0, 0, 0, 0), 0, 0, 0, 0, 0, 0, 0)


@programs_by_shape
def _program(loss: Callable, dtype: Any, returned: Any) -> Callable:
    """``(rows, state, l2, tol, gradient_tol, most) -> state`` after at most ``most`` points.

    It computes in ``dtype``. What the rounding of parameters to ``returned`` hides is no step.
    """
    settles, noise = returned == np.float64, float(jnp.finfo(returned).eps)

    def evaluate(rows: Rows, v: Affine, l2) -> tuple[Certificate, Affine, Any]:
        """The certificate of a point, the gradient and the Hessian of the mean loss."""
        intercept, multiply = v.intercept is not None, lp.multiplier(v)

        def block(x, labels, weights):
            # Features far from zero cost the logits more digits than float32 has.
            z = multiply(x.astype(jnp.float64)).astype(dtype)
            x, weights = x.astype(dtype), weights.astype(dtype)
            losses, slopes = jax.vmap(jax.value_and_grad(loss))(z, labels)
            residuals = slopes * weights[:, None]
            risk = jnp.sum((losses * weights).astype(jnp.float64))
            g = Affine(residuals.T @ x, jnp.sum(residuals, 0) if intercept else None)
            hessian = lp.block_hessian(loss, x, z, labels, weights, None, intercept=intercept)
            return risk, g, jnp.sum(jnp.abs(residuals)), hessian

        num_logits, d = v.weights.shape
        held = num_logits * max(num_logits, d + intercept)
        sums = sum_rows(block, rows.features, rows.labels, rows.weights, held=held)
        risk, g, absolute, hessian = sums
        g = jax.tree.map(lambda x: x.astype(jnp.float64), g)
        slope = jnp.max(jnp.abs(g.intercept)) if intercept else 0.0
        found = measured(v, risk, g, slope <= SETTLED * absolute, 0.0, l2, False)
        return found, g._replace(weights=g.weights + l2 * v.weights), hessian

    def newton_direction(g: Affine, hessian, l2) -> Affine:
        stacked = jnp.concatenate([x.reshape(len(g.weights), -1) for x in jax.tree.leaves(g)], 1)
        is_weight = jnp.arange(stacked.shape[1]) < g.weights.shape[1]
        ridge = jnp.broadcast_to(jnp.where(is_weight, l2, 0), stacked.shape).ravel()
        solve = factored(hessian + jnp.diag(ridge.astype(dtype)))
        d = -solve(stacked.astype(dtype).ravel()).reshape(stacked.shape).astype(jnp.float64)
        return Affine(d, None) if g.intercept is None else Affine(d[:, :-1], d[:, -1])

    @jax.jit
    def run(rows: Rows, state: _State, l2, tol, gradient_tol, most) -> _State:
        def step(state: _State) -> _State:
            s = unpacked(_BEGIN, state.numbers)
            v = lp.add_scaled(state.affine, s.length, state.direction)
            new, g, hessian = evaluate(rows, v, l2)
            rise, first = lp.dot(g, state.direction), s.evaluations == 0
            low_enough = new.value <= s.value + noise * jnp.abs(s.value)
            left = low_enough & (rise < 0)
            good = low_enough & (jnp.abs(rise) <= _CURVATURE * -s.slope)
            # The last trial is at the best length so far, which is 0 where none was of use.
            last = s.trials >= MOST_TRIALS
            accepted = first | ((s.length > 0) & (good | (left & last)))

            d = jax.lax.cond(
                accepted, lambda: newton_direction(g, hessian, l2), lambda: state.direction
            )
            slope = lp.dot(g, d)
            close = (~first & (-s.slope / 2 <= tol)) | (new.gradient_norm <= gradient_tol)
            reached = (s.reached > 0) | close
            there = _Numbers(
                value=new.value,
                largest=new.gradient_norm,
                gap_bound=new.gap_bound,
                slope=slope,
                bracket=open_bracket(new.value, slope),
                length=1.0,
                trials=1,
                reached=reached,
                stuck=~reached & ~(-slope / 2 > noise * jnp.abs(new.value)),
                settling=s.settling + reached,
                count=s.count + 1,
                evaluations=s.evaluations + 1,
            )
            bracket = narrowed(s.bracket, s.length, new.value, rise, left)
            narrower = next_trial(bracket, 1.0)
            here = s._replace(
                bracket=bracket,
                length=jnp.where(s.trials == MOST_TRIALS - 1, bracket.low, narrower),
                trials=s.trials + 1,
                stuck=last,
                evaluations=s.evaluations + 1,
            )
            numbers = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), there, here)
            passed = jnp.stack([new.value, new.gradient_norm])[:, None]
            at = (jnp.arange(_POINTS)[None] == s.count) & accepted
            return _State(
                jax.tree.map(lambda a, b: jnp.where(accepted, a, b), v, state.affine),
                d,
                packed(jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), numbers)),
                jnp.where(at, passed, state.trace),
            )

        def unfinished(state: _State):
            s = unpacked(_BEGIN, state.numbers)
            finite = jnp.isfinite(s.value + s.largest + s.slope) | (s.evaluations == 0)
            settled = ~(l2 > 0) | jnp.isfinite(s.gap_bound) | (s.settling > _SETTLING)
            done = (s.reached > 0) & settled if settles else s.reached > 0
            return finite & ~done & (s.stuck == 0) & (s.count < most)

        unpassed = unpacked(_BEGIN, state.numbers)._replace(count=0.0, stuck=0.0)
        return jax.lax.while_loop(unfinished, step, state._replace(numbers=packed(unpassed)))

    return run


def newton_cholesky(loss: Callable, rows: Rows, start: Affine, l2: float, *, stop: Stop) -> Outcome:
    """Minimises ``Σ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²``, with 64-bit mode on for its scalars.

    Args:
      loss: ``(logits (K,), label) -> ()``, twice differentiable, convex.
      rows: the data; weights sum to one.
      start: parameters in the dtype to return. Large problems are computed in it.
      l2: λ.
      stop: the last step is that from a point with ``½ gᵀ H⁻¹ g`` at most ``tol``; in float64 with
        a ridge, up to three more may follow until the intercept is settled. Of the points of small
        problems, one in sixteen is handed back to be watched.

    Returns:
      The outcome. In float64 it has a certificate, unless the intercept could not be settled.
    """
    dtype = np.dtype(start.weights.dtype)
    size = sum(np.size(x) for x in jax.tree.leaves(start))
    cheap = len(rows.features) * size**2 <= _CHEAP
    points = (_WATCHED if l2 == 0 else _POINTS) if cheap else 1
    run = _program(loss, np.dtype(np.float64) if cheap else dtype, dtype, like=(rows, start))
    iteration = Iteration(Point(start, np.inf), stop)
    affine = jax.tree.map(lambda x: x.astype(np.float64), start)
    begin = np.array(jax.tree.leaves(_BEGIN), np.float64)
    state = _State(affine, jax.tree.map(np.zeros_like, affine), begin, np.zeros((2, _POINTS)))
    evaluations = 0
    while True:
        most = min(points, stop.max_steps + 1 - len(iteration.trace))
        state = run(rows, state, l2, stop.tol, stop.gradient_tol, most)
        numbers, trace = jax.device_get((state.numbers, state.trace))
        s = unpacked(_BEGIN, numbers)
        evaluated, evaluations = s.evaluations - evaluations, s.evaluations
        status = None
        for i, (value, largest) in enumerate(trace.T[: int(s.count)].tolist()):
            iteration.passes += evaluated / s.count
            if i < s.count - 1:
                iteration.pass_by(value, largest)
            else:
                point = Point(jax.tree.map(lambda x: x.astype(dtype), state.affine), value)
                status = iteration.arrive(point, largest, reached=s.reached > 0)
        if status is None and not np.isfinite(s.slope):
            status = "nonfinite"
        if status is None and s.stuck:
            status = "converged" if -s.slope / 2 <= stop.tol else "precision_floor"
        if status is not None:
            return _outcome(iteration.end(status), state.affine, s, l2, dtype)


def _outcome(outcome: Outcome, affine: Affine, s: _Numbers, l2: float, dtype) -> Outcome:
    """The outcome, with its certificate if that is known: in float64, settled where it can be."""
    known = dtype == np.float64 and (l2 == 0 or np.isfinite(s.gap_bound))
    found = Certificate(affine, s.value, s.largest, s.gap_bound)
    return outcome._replace(certificate=found if known else None)
