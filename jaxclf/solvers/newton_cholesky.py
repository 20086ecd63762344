"""Newton's method with the exact Hessian, for few parameters: one compiled program.

A step of a small problem takes less time than it takes to ask for it, so the program makes many
steps and hands back the points that it passed. It has one loop with one evaluation in it, of value,
gradient and Hessian together: a trial of the line search is an evaluation, and where it is good the
next direction is at hand. So little code takes little time to compile.

In float64 an evaluation is also the certificate of :mod:`jaxclf.certificates.certificate`. Where
there is a ridge, the program goes on for a few steps until the certificate meets the tolerance.

Source: Boyd and Vandenberghe, Convex Optimization (2004), section 9.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.certificates.certificate import Certificate, measured, trusted
from jaxclf.certificates.duality import Known, roundoff, sums_block
from jaxclf.facts import facts_of
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.preconditioner import factored, on_weights
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.row_sums import depth, sum_rows
from jaxclf.solvers.line_search import (
    MOST_TRIALS,
    Bracket,
    narrowed,
    next_trial,
    open_bracket,
    packed,
    unpacked,
)
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.oracle import Point
from jaxclf.solvers.result import Iteration, Outcome, Stop

MOST_PARAMETERS = 256
_CURVATURE = 0.1
"""The share of the slope that a line search may leave."""
_POINTS = 16
"""Points that one call may pass. Most problems take 5 to 10."""
_WATCHED = 8
"""Points of one call without a penalty. The last one may prove that there is no minimiser."""
_CHEAP = 2**26
"""The most multiplications of a Hessian for which a call passes many points, and computes in
float64. Such a Hessian takes about a millisecond."""
_MOST = 1.001
"""A Newton step may promise so many times what there is above the lower bound of the loss. Rounding
alone may make an exact step promise a little more than there is."""
_SETTLING = 3
"""Steps beyond the tolerance that may settle the intercept, whose error a Newton step squares."""


class _Numbers(NamedTuple):
    """The numbers of the last accepted point and of the search from it, in floating point.

    The loop carries them as one array, see :mod:`jaxclf.solvers.line_search`.
    """

    value: Any
    largest: Any
    """The largest absolute entry of the gradient."""
    gap_bound: Any
    value_error: Any
    """The most by which rounding may have moved the value, as in the certificate."""
    slope: Any
    """The slope along the direction."""
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
    """The state between two evaluations."""

    affine: Affine
    direction: Affine
    numbers: Any
    """The numbers of :class:`_Numbers`, packed into one array."""
    trace: Any
    """Values and largest entries of the gradient of the accepted points, ``(2, 16)``."""


_BEGIN = _Numbers(*(np.inf,) * 4, 0, Bracket(0, 0, 0, 0, 0, 0), 0, 0, 0, 0, 0, 0, 0)


@programs_by_shape
def _program(loss: Callable, structure: str, dtype: Any) -> Callable:
    """``(rows, state, l2, known.numbers, tol, gradient_tol, most) -> state`` after at most ``most``
    points, computed in ``dtype``."""
    certain, noise = dtype == np.float64, float(jnp.finfo(dtype).eps)

    def evaluate(rows: Rows, v: Affine, l2, known: Known) -> tuple[Certificate, Affine, Any]:
        """The certificate of a point, the gradient and the Hessian of the mean loss."""
        intercept, multiply = v.intercept is not None, lp.affine_map(v)
        of_logits = sums_block(loss, structure, intercept, True)
        errors = jax.tree.map(lambda x: x.astype(dtype), roundoff(v))

        def block(x, labels, weights):
            # Features far from zero cost the logits more digits than float32 has.
            z = multiply(x.astype(jnp.float64)).astype(dtype)
            return of_logits(x.astype(dtype), z, labels, weights.astype(dtype), errors)[0]

        num_logits, d = v.weights.shape
        held = num_logits * max(num_logits, d + intercept)
        sums, hessian = sum_rows(block, rows.features, rows.labels, rows.weights, held=held)
        sums = jax.tree.map(lambda x: x.astype(jnp.float64), sums)
        found = measured(v, sums, 0.0, l2, known, depth(rows.features, held))
        return found, lp.with_ridge(sums.gradient, l2, v), hessian

    def newton_direction(g: Affine, hessian, l2, most) -> Affine:
        """The Newton direction; damped where it would promise more than ``most``.

        Where a piecewise loss has no curvature, the damped direction is down the gradient, as far
        as a straight line needs to fall by ``most``.
        """
        slopes = lp.stacked(g).astype(dtype)
        ridge = on_weights(l2, g.weights.shape[1], slopes.shape[1])
        ridge = jnp.broadcast_to(ridge, slopes.shape).astype(dtype)
        matrix, b = hessian + jnp.diag(ridge.ravel()), slopes.ravel()
        identity = jnp.eye(len(b), dtype=dtype)
        damping = (b @ b / jnp.where(jnp.isfinite(most), most, 1.0)).astype(dtype)

        def attempt(state):
            damped, _ = state
            ridge = jnp.where(damped > 0, damping, 0)
            return damped + 1, -factored(matrix + ridge * identity)(b)

        def failed(state):
            damped, d = state
            return (damped < 2) & ~(-(d @ b) / 2 <= most)

        # The loop makes the first attempt too, so that an attempt is compiled once.
        nothing = jnp.zeros((), dtype), jnp.full_like(b, jnp.nan)
        d = jax.lax.while_loop(failed, attempt, nothing)[1]
        d = d.reshape(slopes.shape).astype(jnp.float64)
        if facts_of(loss).ignores_shifts:  # rounding leaves a part that all logits have in common
            seen = jnp.max(ridge, 0, keepdims=True) > 0
            d = d - jnp.where(seen, 0, jnp.mean(d, 0, keepdims=True))
        return lp.unstacked(d, g)

    @jax.jit
    def run(rows: Rows, state: _State, l2, numbers, tol, gradient_tol, most) -> _State:
        known = Known(structure, *numbers)

        def step(state: _State) -> _State:
            s = unpacked(_BEGIN, state.numbers)
            v = lp.add_scaled(state.affine, s.length, state.direction)
            new, g, hessian = evaluate(rows, v, l2, known)
            rise, first = lp.dot(g, state.direction), s.evaluations == 0
            low_enough = new.value <= s.value + noise * jnp.abs(s.value)
            left = low_enough & (rise < 0)
            good = low_enough & (jnp.abs(rise) <= _CURVATURE * -s.slope)
            # The last trial is at the best length so far, which is 0 where none was of use.
            last = s.trials >= MOST_TRIALS
            accepted = first | ((s.length > 0) & (good | (left & last)))

            d = jax.lax.cond(
                accepted,
                lambda: newton_direction(g, hessian, l2, _MOST * (new.value - known.lower_bound)),
                lambda: state.direction,
            )
            slope = lp.dot(g, d)
            close = (~first & (-s.slope / 2 <= tol)) | (new.gradient_norm <= gradient_tol)
            proven = certain & (new.gap_bound <= tol)
            reached = (s.reached > 0) | close | proven
            there = _Numbers(
                value=new.value,
                largest=new.gradient_norm,
                gap_bound=new.gap_bound,
                value_error=new.value_error,
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
            enough = s.gap_bound <= jnp.maximum(tol, gradient_tol)
            settled = ~jnp.all(l2 > 0) | enough | (s.settling > _SETTLING)
            done = (s.reached > 0) & settled if certain else s.reached > 0
            return finite & ~done & (s.stuck == 0) & (s.count < most)

        unpassed = unpacked(_BEGIN, state.numbers)._replace(count=0.0, stuck=0.0)
        return jax.lax.while_loop(unfinished, step, state._replace(numbers=packed(unpassed)))

    return run


def is_cheap(num_rows: int, num_parameters: int) -> bool:
    """Whether a call passes many points, and should compute in float64."""
    return num_rows * num_parameters**2 <= _CHEAP


def newton_cholesky(oracle: LinearOracle, start: Affine, *, stop: Stop, known: Known) -> Outcome:
    """Minimises the objective of a linear model, with 64-bit mode on for its scalars.

    Args:
      oracle: the oracle of rows in memory; its loss must be convex and twice differentiable.
      start: parameters in the dtype to compute in.
      known: the facts of the loss.
      stop: the end. The last step starts from a point with ``½ gᵀ H⁻¹ g`` at most ``tol``, or with
        a gradient within ``gradient_tol``. In float64 with a ridge, up to three more steps may
        follow until the bound on the gap is at most the larger of the two tolerances. A small
        problem hands back one point in sixteen to be watched.

    Returns:
      The outcome. In float64 it has a certificate, if the sums at the point suffice for that.
    """
    loss, rows, l2, dtype = oracle.loss, oracle.rows, oracle.l2, np.dtype(start.weights.dtype)
    size = sum(np.size(x) for x in jax.tree.leaves(start))
    cheap, unpenalised = is_cheap(len(rows.features), size), np.max(l2) == 0
    points = (_WATCHED if unpenalised else _POINTS) if cheap else 1
    run = _program(loss, known.structure, dtype, like=(rows, start))
    iteration = Iteration(Point(start, np.inf), stop)
    affine = jax.tree.map(lambda x: x.astype(np.float64), start)
    begin = np.array(jax.tree.leaves(_BEGIN), np.float64)
    state = _State(affine, jax.tree.map(np.zeros_like, affine), begin, np.zeros((2, _POINTS)))
    evaluations = 0
    while True:
        most = min(points, stop.max_steps + 1 - len(iteration.trace))
        state = run(rows, state, l2, known.numbers, stop.tol, stop.gradient_tol, most)
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
        if status is None and not np.isfinite(s.slope):  # the Hessian has no inverse
            status = "precision_floor"
        if status is None and s.stuck:
            status = "converged" if -s.slope / 2 <= stop.tol else "precision_floor"
        if status is not None:
            found = Certificate(state.affine, s.value, s.largest, s.gap_bound, s.value_error)
            certain = dtype == np.float64 and known.structure != "mixed"
            certificate = trusted(known, found) if certain else None
            return iteration.end(status)._replace(certificate=certificate)
