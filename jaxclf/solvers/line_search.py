"""A step length where the slope along a line has nearly vanished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST_TRIALS = 20


class Found(NamedTuple):
    """The result of a line search."""

    length: Any
    value: Any
    trials: Any


class Bracket(NamedTuple):
    """The interval in which the trials have put the minimum of a convex φ, in floating numbers."""

    low: Any
    low_value: Any
    low_slope: Any
    high: Any
    high_slope: Any
    went: Any
    """-1 if the left end moved last, 1 if the right end did, 0 before any move."""


class _Search(NamedTuple):
    """The state of a search. Loops carry it as one array: XLA makes a kernel for each array that
    changes, and compiling a kernel takes some 5 ms."""

    bracket: Bracket
    length: Any
    value: Any
    slope: Any
    trials: Any


def open_bracket(value, slope) -> Bracket:
    """The bracket before the first trial, which holds all t > 0."""
    zero, unknown = jnp.zeros_like(value), jnp.full_like(value, jnp.inf)
    return Bracket(zero, value, slope, unknown, unknown, zero)


def narrowed(b: Bracket, length, value, slope, is_left) -> Bracket:
    """The bracket after a trial that is left of the minimum, or right of it."""
    went = jnp.where(is_left, -1.0, 1.0)
    kept = jnp.where(went == b.went, 0.5, 1.0)
    # A rise with a falling slope, or NaN, does not say where between the ends the minimum is.
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
    """The length to try next: by regula falsi between two ends, farther out without a right end."""
    width = b.high - b.low
    secant = b.low - b.low_slope * width / (b.high_slope - b.low_slope)
    inside = jnp.clip(secant, b.low + 0.1 * width, b.high - 0.1 * width)
    inside = jnp.where(jnp.isfinite(b.high_slope), inside, b.low + 0.3 * width)
    return jnp.where(jnp.isinf(b.high), jnp.maximum(first, 2.5 * b.low), inside)


def packed(numbers: Any) -> jax.Array:
    """The numbers of a NamedTuple, and of NamedTuples in it, as one array.

    Each number is selected at its place. XLA makes one kernel of all selections, where a stack
    would need one for each number.
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

    Values cannot tell two points apart whose difference is below rounding. Slopes can, so slopes
    decide, and the value only guards against a rise. A trial is left of the minimum if its slope is
    negative and its value did not rise, else it is right of the minimum. Between two such trials
    the next one comes from regula falsi in the Illinois variant, and is kept away from the ends. In
    this variant the slope of an end that stays counts half from then on. Otherwise a slope that is
    nearly the same everywhere but at the minimum would keep that end in its place. On a convex φ
    the search brackets a root of the slope. It may be traced.

    Args:
      at: ``t -> (φ(t), φ′(t))``.
      value: φ(0).
      slope: φ′(0) < 0.
      first: the first t.
      noise: the most that rounding may add to a value.
      wolfe_c2: a number in (0, 1), which is small where a trial is cheap.
      while_loop: the function that runs the loop; another one where ``at`` cannot be traced.

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
    """The search before its first trial, and the numbers that trials are compared with.

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
    """The search with the value and the slope of the trial."""
    value, slope = (jnp.asarray(x, array.dtype) for x in (value, slope))
    return packed(unpacked(_LIKE, array)._replace(value=value, slope=slope))


@jax.jit
def _unfinished(array, limits):
    s = unpacked(_LIKE, array)
    return (s.trials == 0) | (~_is_good(s, limits) & (s.trials < MOST_TRIALS))


@jax.jit
def _found(array, limits) -> Found:
    """The last trial if it is good or left of the minimum, else the left end of the bracket."""
    s = unpacked(_LIKE, array)
    last = _is_good(s, limits) | _is_left(s, limits)
    length = jnp.where(last, s.length, s.bracket.low)
    trials = s.trials.astype(jnp.int32)
    return Found(length, jnp.where(last, s.value, s.bracket.low_value), trials)
