"""A step length where the slope along a line has nearly vanished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST_TRIALS = 20


class Found(NamedTuple):
    """Where the search ended."""

    length: Any
    value: Any
    trials: Any


class Bracket(NamedTuple):
    """Where the minimum of a convex φ lies, from what the trials have told: floating numbers."""

    low: Any
    low_value: Any
    low_slope: Any
    high: Any
    high_slope: Any
    went: Any
    """-1 if the end on the left moved last, 1 if that on the right, 0 before both."""


class _Search(NamedTuple):
    """The state of a search. Loops carry it as one array: XLA makes a kernel for each array that
    changes, and compiling a kernel takes some 5 ms."""

    bracket: Bracket
    length: Any
    value: Any
    slope: Any
    trials: Any


def open_bracket(value, slope) -> Bracket:
    """All t > 0, before the first trial."""
    zero, unknown = jnp.zeros_like(value), jnp.full_like(value, jnp.inf)
    return Bracket(zero, value, slope, unknown, unknown, zero)


def narrowed(b: Bracket, length, value, slope, is_left) -> Bracket:
    """The bracket after a trial that is left of the minimum, or right of it."""
    went = jnp.where(is_left, -1.0, 1.0)
    kept = jnp.where(went == b.went, 0.5, 1.0)
    # A rise with a falling slope, or NaN, says nothing about where between.
    useful = jnp.isfinite(slope) & (slope > 0)
    return Bracket(
        low=jnp.where(is_left, length, b.low),
        low_value=jnp.where(is_left, value, b.low_value),
        low_slope=jnp.where(is_left, slope, kept * b.low_slope),
        high=jnp.where(is_left, b.high, length),
        high_slope=jnp.where(is_left, kept * b.high_slope, jnp.where(useful, slope, jnp.inf)),
        went=went,
    )


def next_trial(b: Bracket, first):
    """The length to try: by regula falsi between two ends, farther out without a right one."""
    width = b.high - b.low
    secant = b.low - b.low_slope * width / (b.high_slope - b.low_slope)
    inside = jnp.clip(secant, b.low + 0.1 * width, b.high - 0.1 * width)
    inside = jnp.where(jnp.isfinite(b.high_slope), inside, b.low + 0.3 * width)
    return jnp.where(jnp.isinf(b.high), jnp.maximum(first, 2.5 * b.low), inside)


def packed(numbers: Any) -> jax.Array:
    """Numbers in a NamedTuple, or in NamedTuples in it, as one array.

    Each is selected at its place. XLA makes one kernel of all selections, where a stack would need
    one for each number.
    """
    leaves = jax.tree.leaves(numbers)
    place, array = np.arange(len(leaves)), leaves[0]
    for i, x in enumerate(leaves):
        array = jnp.where(place == i, x, array)
    return array


def unpacked(kind: Any, array: jax.Array) -> Any:
    """The NamedTuple like ``kind`` that was packed in an array."""
    return jax.tree.unflatten(jax.tree.structure(kind), list(array))


def line_search(
    at: Callable,
    value,
    slope,
    first,
    *,
    noise,
    wolfe_c2: float,
    while_loop: Callable = jax.lax.while_loop,
) -> Found:
    """Finds t > 0 with ``φ(t) ≤ φ(0) + noise`` and ``|φ′(t)| ≤ wolfe_c2 · |φ′(0)|``.

    Values cannot tell two points apart whose difference is below rounding; slopes can, so they
    decide, and the value only guards against a rise. A trial is left of the minimum if its slope is
    negative and it did not rise, else right of it; between both the next one is by regula falsi in
    the Illinois variant, kept from the ends: where one end stays, its slope counts half from then
    on, or a slope that is nearly the same everywhere but at the minimum would keep it there. On a
    convex φ this is a bracketed root of its slope. May be traced.

    Args:
      at: ``t -> (φ(t), φ′(t))``.
      value: φ(0).
      slope: φ′(0) < 0.
      first: the first t.
      noise: what rounding may add to a value.
      wolfe_c2: in (0, 1); small where a trial is cheap.
      while_loop: another one where ``at`` cannot be traced.

    Returns:
      The last t, or the best one left of the minimum, possibly 0, if no trial was good.

    Sources: Hager and Zhang, A new conjugate gradient method with guaranteed descent and an
    efficient line search, SIAM J. Optim. 16 (2005), the approximate Wolfe conditions; Dowell and
    Jarratt, A modified regula falsi method, BIT 11 (1971).
    """
    start, limits = _begin(value, slope, first, noise, wolfe_c2)

    def step(array):
        following, length = _following(array, limits)
        return _told(following, *at(length))

    return _found(while_loop(lambda array: _unfinished(array, limits), step, start), limits)


_LIKE = _Search(Bracket(*range(6)), *range(4))


def _is_left(s: _Search, limits):
    value, _, _, noise, _ = limits
    return (s.slope < 0) & (s.value <= value + noise)


def _is_good(s: _Search, limits):
    value, slope, _, noise, wolfe_c2 = limits
    return (jnp.abs(s.slope) <= wolfe_c2 * -slope) & (s.value <= value + noise)


@jax.jit
def _begin(*limits):
    """The search before its first trial, and the numbers that it is held against.

    The start counts as a trial of length 0, which lies left of the minimum.
    """
    limits = jnp.stack([jnp.asarray(x, jnp.result_type(float)) for x in limits])
    value, slope = limits[:2]
    none = jnp.zeros_like(value)
    return packed(_Search(open_bracket(value, slope), none, value, slope, none)), limits


@jax.jit
def _following(array, limits):
    """The search with the next trial's length, and that length."""
    s = unpacked(_LIKE, array)
    b = narrowed(s.bracket, s.length, s.value, s.slope, _is_left(s, limits))
    length = next_trial(b, limits[2])
    return packed(s._replace(bracket=b, length=length, trials=s.trials + 1)), length


@jax.jit
def _told(array, value, slope):
    """The search with what the trial has found."""
    value, slope = (jnp.asarray(x, array.dtype) for x in (value, slope))
    return packed(unpacked(_LIKE, array)._replace(value=value, slope=slope))


@jax.jit
def _unfinished(array, limits):
    s = unpacked(_LIKE, array)
    return (s.trials == 0) | (~_is_good(s, limits) & (s.trials < MOST_TRIALS))


@jax.jit
def _found(array, limits) -> Found:
    """The last trial if it is good, else the best known, if it came closer from the left."""
    s = unpacked(_LIKE, array)
    last = _is_good(s, limits) | _is_left(s, limits)
    length = jnp.where(last, s.length, s.bracket.low)
    trials = s.trials.astype(jnp.int32)
    return Found(length, jnp.where(last, s.value, s.bracket.low_value), trials)
