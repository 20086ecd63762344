"""``solve``: the optimum as a pure function, with the derivative of the implicit function theorem.

At the optimum ``∇F(θ*, φ) = 0``, whatever φ is: penalties, weights, features or labels. Hence

    dθ* = -(∇²F)⁻¹ ∂φ∇F dφ,

one linear solve with the Hessian, forward or reverse. With an L1 penalty, or bounds on the weights,
the same holds of the weights that are neither zero nor at a bound, as long as the gradient of the
others is strictly inside: the optimum is the root of ``θ - P(θ - ∇F)`` with P the proximal map, a
soft threshold within the bounds, whose derivative is that of the active set. A weight at its bound
moves with the bound.

Source: Krantz and Parks, The Implicit Function Theorem (2002); for L1 Bertrand et al., Implicit
differentiation for fast hyperparameter selection in non-smooth convex learning, JMLR 23 (2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxclf import checks
from jaxclf.bounded_l1 import BoundedL1
from jaxclf.group_norms import GroupNorms
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Objective
from jaxclf.penalties import Penalty, check_factors_finite, penalised
from jaxclf.solvers.inputs import bounded

_MOST_PARAMETERS = 4096
"""The most parameters, of which a Hessian in float64 takes 128 MiB."""
_EPOCHS = 50
"""Epochs of coordinate descent in a step with L1. Newton's method on the weights that are then not
zero finishes the step."""
_SHORTEST = 1e-10
_REFINEMENTS = 6
"""A scaled Hessian gets a ridge of the root of a roundoff, without which a direction that the
objective does not see would have no bound. So many steps of refinement take it out of directions
with a hundred times its curvature."""


class _State(NamedTuple):
    theta: jax.Array
    steps: jax.Array
    settled: jax.Array


def solve(
    objective: Callable, params: Any, batch: Any, *, bounds: Any = None, max_steps: int = 100
) -> Any:
    """The parameters that minimise an objective, for use inside ``jit``, ``vmap`` and ``grad``.

    It is Newton's method with a line search, in the dtype of ``params``. There is no certificate;
    :func:`jaxclf.minimize` gives one. The result can be differentiated, forward and reverse and
    more than once, with respect to whatever floating numbers the objective and the batch hold. The
    start has no derivative.

    Under ``jax.enable_x64(True)`` with float64 parameters and data, derivatives agree with
    differences of certified fits to 1e-6 and better. A direction that the objective does not see
    has no derivative, so differentiate what does not see it either: probabilities, or centred
    intercepts of a softmax. Where a weight is about to leave zero, or its bound, the derivative
    is that of the side on which it stays.

    Args:
      objective: a twice differentiable, convex ``(params, batch) -> ()`` with a unique minimum, but
        for directions that it does not see, such as a shift of all logits of a softmax. It may hold
        traced numbers, such as the strength of a penalty. An objective of
        :func:`jaxclf.make_objective` may have an L1 penalty.
      params: the start, a pytree of floating arrays of one dtype.
      batch: the rows, or whatever the objective takes.
      bounds: ``(lower, upper)``, between which the weights of a linear model must lie, as in
        :func:`jaxclf.minimize`. They may be traced, and have derivatives.
      max_steps: the most steps.

    Returns:
      A pytree like ``params``. It is NaN where no minimum was reached in ``max_steps``, as without
      a penalty on separated classes.

    Raises:
      TypeError: parameters that are not floating.
      ValueError: more than 4096 parameters, as the Hessian is formed.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from jaxclf import losses, make_batch, make_objective, penalties
      >>> from jaxclf.models import linear
      >>> batch = make_batch(np.arange(6.0)[:, None], np.array([0, 0, 1, 0, 1, 1]))
      >>> start = linear.LinearParams(jnp.zeros(1), jnp.zeros(()))
      >>> def weight(strength):
      ...     penalty = penalties.l2(strength)
      ...     objective = make_objective(linear.logits, losses.bernoulli_nll, penalty)
      ...     return solve(objective, start, batch).weights[0]
      >>> value, slope = jax.value_and_grad(weight)(0.1)
      >>> print(f"{value:.3f} {slope:.2f}")
      0.878 -2.03
    """
    checks.check_number("max_steps", max_steps, at_least=1)
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"params must be floating, got dtype {jnp.result_type(leaf)}")
    # Some rules of derivatives in JAX 0.10 take no arrays of NumPy.
    params, batch = jax.tree.map(jnp.asarray, (params, batch))
    start, unravel = ravel_pytree(params)
    smooth, part = _parts(objective, params, bounds)
    if len(start) > _MOST_PARAMETERS:
        raise ValueError(
            f"solve takes at most {_MOST_PARAMETERS} parameters, got {len(start)}; jaxclf.minimize "
            "takes more"
        )

    def value(theta):
        return smooth(unravel(theta), batch)

    gradient = jax.grad(value)
    if part is None:
        optimality, step = gradient, _newton_step
    else:

        def optimality(theta):
            return theta - part.proximal_map(theta - gradient(theta), 1.0)

        start, step = jnp.clip(start, part.lower, part.upper), _proximal_step

    def run(_, guess):
        return _minimised(value, gradient, part, step, guess, max_steps)

    with jax.default_matmul_precision("highest"):
        root = jax.lax.custom_root(optimality, start, run, _solved)
    return unravel(root)


def _parts(objective: Callable, params: Any, bounds: Any) -> tuple[Callable, BoundedL1 | None]:
    """The smooth part of an objective, and the other part of each parameter, if there is one."""
    if bounds is not None and not (
        isinstance(objective, Objective) and is_linear(objective.logits_fn)
    ):
        raise TypeError("bounds need the logits of models.linear.logits")
    if not isinstance(objective, Objective):
        return objective, None
    penalty = objective.strengths
    check_factors_finite("solve", penalty)
    if bounds is None and isinstance(penalty.l1, int | float) and penalty.l1 == 0:
        return objective, None
    if isinstance(penalty.l1, GroupNorms):
        raise ValueError("solve takes no group penalty; minimize does, outside of jit and grad")
    smooth = Objective(objective.logits_fn, objective.loss, Penalty(0.0, penalty.l2))
    ends = (-np.inf, np.inf) if bounds is None else _ends(bounds, params.weights)
    dtype = ravel_pytree(params)[0].dtype

    def of_parameters(of_weights, of_others):
        def of_leaf(on: bool, x):
            return jnp.broadcast_to(of_weights if on else of_others, jnp.shape(x))

        return ravel_pytree(jax.tree.map(of_leaf, penalised(params), params))[0].astype(dtype)

    return smooth, BoundedL1(*map(of_parameters, (penalty.l1, *ends), BoundedL1(0.0)))


def _ends(bounds: Any, weights: Any) -> tuple:
    """The lower and the upper bounds of weights, which are checked unless they are traced."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(bounds)):
        return tuple(bounds)
    _, *ends = bounded(Penalty(), bounds, weights).l1
    return tuple(end.reshape(jnp.shape(weights)) for end in ends)


def _minimised(value, gradient, part, step, start, max_steps: int):
    """Steps with a line search until one promises no more than rounding; NaN if none does."""
    eps = float(jnp.finfo(start.dtype).eps)

    def whole(theta):
        return value(theta) + (0 if part is None else jnp.sum(part.terms(theta)))

    def body(s: _State) -> _State:
        before, g = whole(s.theta), gradient(s.theta)
        direction = step(gradient, s.theta, g, part)
        promised = -jnp.vdot(g, direction)
        if part is not None:
            promised += jnp.sum(part.terms(s.theta) - part.terms(s.theta + direction))
        noise = 10 * eps * jnp.abs(before)

        def at(length):
            theta = s.theta + length * direction
            if part is None:
                return theta
            # Rounding must not keep a weight from the bound at which it ends.
            return part.within(theta, eps * (jnp.abs(s.theta) + jnp.abs(direction)))

        def too_long(length):
            after = whole(at(length))
            enough = after <= before - 1e-4 * length * promised + noise
            return ~enough & (length > _SHORTEST)

        one = jnp.ones((), s.theta.dtype)
        length = jax.lax.while_loop(too_long, lambda length: length / 2, one)
        # Newton's step from where this is so small ends at rounding.
        return _State(at(length), s.steps + 1, promised <= eps**0.75 * jnp.abs(before))

    def unfinished(s: _State):
        return ~s.settled & (s.steps < max_steps) & jnp.all(jnp.isfinite(s.theta))

    begin = _State(start, jnp.zeros((), int), jnp.zeros((), bool))
    end = jax.lax.while_loop(unfinished, body, begin)
    return jnp.where(end.settled, end.theta, jnp.nan)


def _newton_step(gradient, theta, g, _):
    def product(v):
        return jax.jvp(gradient, (theta,), (v,))[1]

    return -_solved(product, g)


def _solved(product: Callable, b):
    """The x with ``product(x) = b``, for a symmetric Hessian in which some rows may be those of the
    identity: those of weights that L1 holds at zero, or a bound holds."""
    identity = jnp.eye(len(b), dtype=b.dtype)
    matrix = jax.vmap(product, out_axes=1)(identity)
    held = jnp.all(matrix == identity, 1)
    b = jnp.where(held, b, b - matrix @ jnp.where(held, b, 0))
    matrix = jnp.where(held[:, None] | held[None], identity, matrix)
    ridge = float(jnp.finfo(b.dtype).eps) ** 0.5
    diagonal = jnp.diagonal(matrix)
    root = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    factor = jax.lax.linalg.cholesky(matrix / root[:, None] / root[None] + ridge * identity)

    def rough(b):
        return jax.scipy.linalg.cho_solve((factor, True), b / root) / root

    x = rough(b)
    for _ in range(_REFINEMENTS):
        x = x + rough(b - matrix @ x)
    return x


def _proximal_step(gradient, theta, g, part):
    """To the minimum of the quadratic model with the penalty, by coordinate descent."""
    size = len(theta)
    hessian = jax.vmap(jax.linearize(gradient, theta)[1], out_axes=1)(
        jnp.eye(size, dtype=theta.dtype)
    )
    diagonal = jnp.diagonal(hessian)
    safe = jnp.where(diagonal > 0, diagonal, 1)

    def coordinate(j, carry):
        u, slope = carry  # the slope of the quadratic at u
        of_weight = BoundedL1(*(x[j] for x in part))
        new = of_weight.proximal_map(u[j] - slope[j] / safe[j], 1 / safe[j])
        change = jnp.where(diagonal[j] > 0, new - u[j], 0)
        return u.at[j].add(change), slope + change * hessian[j]

    def epoch(_, carry):
        return jax.lax.fori_loop(0, size, coordinate, carry)

    u, _ = jax.lax.fori_loop(0, _EPOCHS, epoch, (theta, g))
    # The minimum among points with these zeros and signs, and these weights at their bounds, if it
    # keeps the signs and lies within the bounds.
    (l1, lower, upper), signs = part, jnp.sign(u)
    active = ((u != 0) | (l1 == 0)) & (lower < u) & (u < upper)
    masked = jnp.where(active[:, None], hessian, jnp.eye(size, dtype=theta.dtype))
    target = jnp.where(active, hessian @ theta - g - l1 * signs, u)
    exact = jnp.where(active, _solved(lambda x: masked @ x, target), u)
    fits = ((jnp.sign(exact) == signs) | (l1 == 0)) & (lower <= exact) & (exact <= upper)
    return jnp.where(jnp.all(fits & jnp.isfinite(exact)), exact, u) - theta
