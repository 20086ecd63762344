"""A step length where the slope along a line has nearly vanished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_TRIALS = 20


class Found(NamedTuple):
    """Where the search ended."""

    length: Any
    value: Any
    trials: Any


class _Search(NamedTuple):
    low: Any
    low_value: Any
    low_slope: Any
    high: Any
    high_slope: Any
    length: Any
    value: Any
    slope: Any
    trials: Any
    went: Any
    """-1 if the end on the left moved last, 1 if that on the right, 0 before both."""


def line_search(
    at: Callable,
    value,
    slope,
    first,
    *,
    noise,
    flatness: float,
    while_loop: Callable = jax.lax.while_loop,
) -> Found:
    """Finds t > 0 with ``φ(t) ≤ φ(0) + noise`` and ``|φ′(t)| ≤ flatness · |φ′(0)|``.

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
      flatness: in (0, 1); small where a trial is cheap.
      while_loop: another one where ``at`` cannot be traced.

    Returns:
      The last t, or the best one left of the minimum, possibly 0, if no trial was good.

    Sources: Hager and Zhang, A new conjugate gradient method with guaranteed descent and an
    efficient line search, SIAM J. Optim. 16 (2005), the approximate Wolfe conditions; Dowell and
    Jarratt, A modified regula falsi method, BIT 11 (1971).
    """
    widest = jnp.result_type(float)
    value, slope, first = (jnp.asarray(x, widest) for x in (value, slope, first))

    def good(s: _Search):
        return (jnp.abs(s.slope) <= flatness * -slope) & (s.value <= value + noise)

    def trial(t, **ends) -> dict:
        new_value, new_slope = at(t)
        return {"length": t, "value": new_value, "slope": new_slope} | ends

    def step(s: _Search) -> _Search:
        left = (s.slope < 0) & (s.value <= value + noise)
        went = jnp.where(left, -1, 1).astype(jnp.int32)
        kept = jnp.where(went == s.went, 0.5, 1.0)
        low = jnp.where(left, s.length, s.low)
        low_slope = jnp.where(left, s.slope, kept * s.low_slope)
        low_value = jnp.where(left, s.value, s.low_value)
        high = jnp.where(left, s.high, s.length)
        # A rise with a falling slope, or NaN, says nothing about where between.
        useful = jnp.isfinite(s.slope) & (s.slope > 0)
        here = jnp.where(useful, s.slope, jnp.inf)
        high_slope = jnp.where(left, kept * s.high_slope, here)
        width = high - low
        secant = low - low_slope * width / (high_slope - low_slope)
        inside = jnp.clip(secant, low + 0.1 * width, high - 0.1 * width)
        inside = jnp.where(jnp.isfinite(high_slope), inside, low + 0.3 * width)
        t = jnp.where(jnp.isinf(high), 2.5 * low, inside)
        ends = {"low": low, "low_value": low_value, "low_slope": low_slope}
        ends |= {"high": high, "high_slope": high_slope}
        return _Search(trials=s.trials + 1, went=went, **trial(t, **ends))

    zero, infinity = jnp.zeros_like(value), jnp.full_like(value, jnp.inf)
    ends = {"low": zero, "low_value": value, "low_slope": slope}
    ends |= {"high": infinity, "high_slope": infinity}
    counts = {"trials": jnp.ones((), jnp.int32), "went": jnp.zeros((), jnp.int32)}
    start = _Search(**counts, **trial(first, **ends))
    end = while_loop(lambda s: ~good(s) & (s.trials < _TRIALS), step, start)
    # The last trial is good, or the best known if it came closer from the left.
    last = good(end) | ((end.slope < 0) & (end.value <= value + noise))
    length = jnp.where(last, end.length, end.low)
    return Found(length, jnp.where(last, end.value, end.low_value), end.trials)
