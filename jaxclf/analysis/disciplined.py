"""Convexity by the rules of composition, on the jaxpr of any loss.

What is known of a number as a function of the logits: constant, affine, convex, concave or nothing,
and its sign. Sums, maxima and non-negative multiples keep convexity; a convex function that does
not decrease, of a convex one, is convex. The rules prove; what they cannot prove may still be true.

Source: Grant, Boyd and Ye, Disciplined convex programming, in Global Optimization (2006).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import activations
from jaxclf.analysis.jaxpr_walk import Constant, traced, walk

_BENDS_UP, _BENDS_DOWN = ("affine", "convex"), ("affine", "concave")


class Term(NamedTuple):
    """A number as a function of the logits."""

    shape: str
    """``affine``, ``convex``, ``concave`` or ``unknown``."""
    sign: int = 0
    """1 where it is never negative, -1 where it is never positive, 0 where neither is known."""
    reasons: frozenset[str] = frozenset()
    """What convexity rests on."""


def disciplined(loss: Callable, label, num_logits: int | None) -> Term:
    """What the rules say of ``loss(·, label)``.

    Args:
      loss: ``(logits, label) -> ()``.
      label: of one example.
      num_logits: K, or ``None`` for a loss of one logit ``()``.
    """
    logits = np.empty(() if num_logits is None else (num_logits,), object)
    for place in np.ndindex(logits.shape):
        logits[place] = Term("affine")
    closed = traced(lambda z: loss(z, label), logits.shape)
    result = walk(closed, logits, _RULES, lambda name: Term("unknown"), _CALLS)[()]
    return _term(result)


def _term(x) -> Term:
    if isinstance(x, Term):
        return x
    value = float(x.value)
    return Term("affine", int(np.sign(value))) if np.isfinite(value) else Term("unknown")


def _because(reason: str, *terms: Term) -> frozenset[str]:
    return frozenset((reason,)).union(*(t.reasons for t in terms))


def _add(a, b, **_):
    if (isinstance(a, Constant) and a.value == 0) or (isinstance(b, Constant) and b.value == 0):
        return b if isinstance(a, Constant) and a.value == 0 else a
    a, b = _term(a), _term(b)
    sign = a.sign if a.sign == b.sign else 0
    reasons = a.reasons | b.reasons
    for shape in ("affine", "convex", "concave"):
        if a.shape in ("affine", shape) and b.shape in ("affine", shape):
            return Term(shape, sign, reasons)
    return Term("unknown", sign)


def _negative(a, **_):
    flipped = {"convex": "concave", "concave": "convex"}
    return Term(flipped.get(a.shape, a.shape), -a.sign, a.reasons)


def _multiply(a, b, **_):
    if isinstance(b, Constant):
        a, b = b, a
    if isinstance(a, Constant):
        if a.value == 0:
            return Constant(0.0)
        scaled = b if a.value > 0 else _negative(b)
        return scaled if a.value == a.value else Term("unknown")
    return Term("unknown", a.sign * b.sign)


def _divide(a, b, **_):
    if isinstance(b, Constant) and b.value != 0:
        return _multiply(Constant(1 / b.value), a)
    return Term("unknown", _term(a).sign * _term(b).sign)


def _maximum(a, b, **_):
    a, b = _term(a), _term(b)
    sign = 1 if 1 in (a.sign, b.sign) else (-1 if a.sign == b.sign == -1 else 0)
    if a.shape in _BENDS_UP and b.shape in _BENDS_UP:
        return Term("convex", sign, _because("a maximum of convex functions is convex", a, b))
    return Term("unknown", sign)


def _relu_like(a, b, **params):
    """A maximum, which is never negative where one side is the constant zero."""
    found = _maximum(a, b, **params)
    zero = any(isinstance(x, Constant) and x.value >= 0 for x in (a, b))
    return found._replace(sign=1) if zero else found


def _minimum(a, b, **_):
    return _negative(_relu_like(*(Constant(-x.value) if isinstance(x, Constant) else _negative(x)
                                  for x in (a, b))))  # fmt: skip


def _absolute(a, **_):
    if a.shape == "affine" or (a.shape == "convex" and a.sign == 1):
        return Term("convex", 1, _because("the absolute value of an affine function is convex", a))
    return Term("unknown", 1)


def _square(a, **_):
    if a.shape == "affine":
        return Term("convex", 1, _because("the square of an affine function is convex", a))
    if (a.shape, a.sign) in (("convex", 1), ("concave", -1)):
        reason = "the square of a convex function that is never negative is convex"
        return Term("convex", 1, _because(reason, a))
    return Term("unknown", 1)


def _power(a, *, y, **_):
    if y == 1:
        return a
    return _square(a) if y == 2 else Term("unknown", 1 if y % 2 == 0 else 0)


def _increasing_convex(formula: str) -> Callable:
    def rule(a, **_):
        if a.shape in _BENDS_UP:
            reason = f"{formula} is convex and increasing, so of a convex function it is convex"
            return Term("convex", 1, _because(reason, a))
        return Term("unknown", 1)

    return rule


def _each(rule: Callable) -> Callable:
    """A rule of entries, over arrays of one shape."""

    def over(*arrays):
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
        spread = [np.broadcast_to(x, shape) for x in arrays]
        result = np.empty(shape, object)
        for place in np.ndindex(shape):
            result[place] = rule(*(_term(x[place]) for x in spread))
        return result

    return over


def _log_sum_exp(*terms: Term) -> Term:
    if all(t.shape in _BENDS_UP for t in terms):
        reason = "log Σ exp is convex and increasing, so of convex functions it is convex"
        return Term("convex", 0, _because(reason, *terms))
    return Term("unknown")


def _log_softmax(z: np.ndarray) -> np.ndarray | None:
    """``z_k - log Σ exp z`` of a vector, concave where z is affine."""
    if z.ndim != 1:
        return None
    result = np.empty(z.shape, object)
    for place in np.ndindex(z.shape):
        row = [_term(x) for x in z]
        fine = all(t.shape == "affine" for t in row)
        total = _log_sum_exp(*row)
        result[place] = Term("concave", -1, total.reasons) if fine else Term("unknown", -1)
    return result


def _log_add_exp(a, b) -> np.ndarray:
    found = _each(_log_sum_exp)(a, b)
    for place in np.ndindex(found.shape):
        one = (np.broadcast_to(x, found.shape)[place] for x in (a, b))
        if any(isinstance(x, Constant) and x.value >= 0 for x in one):
            found[place] = found[place]._replace(sign=1)
    return found


_SOFTPLUS = _increasing_convex("log(1 + exp)")
_RULES = {
    "add": _add,
    "add_any": _add,
    "sub": lambda a, b, **_: _add(
        a, Constant(-b.value) if isinstance(b, Constant) else _negative(b)
    ),
    "neg": _negative,
    "mul": _multiply,
    "div": _divide,
    "max": _relu_like,
    "min": _minimum,
    "abs": _absolute,
    "square": _square,
    "integer_pow": _power,
    "exp": _increasing_convex("exp"),
    "logistic": lambda a, **_: Term("unknown", 1),
}

_CALLS = (
    (activations._softplus, _each(_SOFTPLUS)),
    (jnp.logaddexp, _log_add_exp),
    (activations._log_softmax, _log_softmax),
    (jax.nn.log_softmax, _log_softmax),
)
