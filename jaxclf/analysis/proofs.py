"""Proofs that a loss is convex in its logits for every label of a range, in milliseconds.

The label is a symbol of which only the range is known, so a proof for the formula is a proof for
all labels at once.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache

import jax
import numpy as np

from jaxclf.analysis.atoms import Atoms, single
from jaxclf.analysis.disciplined import Term, curvature_of
from jaxclf.analysis.formulas import Span
from jaxclf.analysis.jaxpr_walk import Constant, traced

_MOST_LABELS = 64
"""The most integer labels that are proven one by one."""


def prove_convex(
    loss: Callable, *, logits_shape: tuple[int, ...], low, high
) -> tuple[str, ...] | None:
    """The reasons why ``loss(·, label)`` is convex for every label of a range, or ``None``.

    The proof is of the formula, in exact real arithmetic and for finite logits. It also says that
    JAX's derivative is one of the function (a subgradient at kinks), except where JAX returns NaN,
    as at the kink of a norm. There is therefore no proof for a loss with a stopped gradient that
    does not cancel, nor for a loss with a derivative rule that the library does not know.

    Args:
      loss: ``(logits, label) -> ()``, traceable in the logits.
      logits_shape: ``()`` or ``(K,)``.
      low, high: arrays of the label's shape and dtype: ``low <= label <= high`` for every entry.
        Integer labels are integers between them.

    Returns:
      The reasons, or ``None`` without a proof, which is no proof of the opposite.

    Raises:
      ValueError: if the bounds do not fit each other or the loss returns no single number.

    Source: Grant, Boyd and Ye (2006); Boyd and Vandenberghe, Convex Optimization (2004), section
    3.2.
    """
    low, high = np.asarray(low), np.asarray(high)
    if low.shape != high.shape or low.dtype != high.dtype:
        raise ValueError(
            f"low and high must be of one shape and dtype, got {low.shape} {low.dtype} and "
            f"{high.shape} {high.dtype}"
        )
    bounds = np.stack([low.astype(float), high.astype(float)])
    if not np.isfinite(bounds).all() or (low > high).any():
        raise ValueError("low and high must be finite, and low must not be above high")
    if not _stopped_gradients_are_seen():
        return None
    if (low == high).all():
        found = _with_label(loss, logits_shape, low)
    else:
        found = _with_range(loss, logits_shape, low, high)
        if found is None and low.ndim == 0 and low.dtype.kind in "iub":
            if int(high) - int(low) >= _MOST_LABELS:
                return None
            each = []
            for value in range(int(low), int(high) + 1):
                each.append(_with_label(loss, logits_shape, np.asarray(value, low.dtype)))
                if each[-1] is None:
                    return None
            found = frozenset().union(*each)
    return None if found is None else tuple(sorted(found))


@cache
def _stopped_gradients_are_seen() -> bool:
    """Whether the jaxpr of a function shows stopped gradients, as it does in JAX 0.10."""
    equations = traced(lambda z: 2 * jax.lax.stop_gradient(z), ()).eqns
    return "stop_gradient" in [equation.primitive.name for equation in equations]


def _with_range(loss, shape: tuple, low, high) -> frozenset[str] | None:
    label = jax.ShapeDtypeStruct(low.shape, low.dtype)
    try:
        closed = traced(loss, shape, label)
    except jax.errors.ConcretizationTypeError:  # Python branches on the label or on a logit
        return None
    return _reasons(curvature_of(closed, shape, (_symbols(low, high),), derivatives=True))


def _with_label(loss, shape: tuple, label: np.ndarray) -> frozenset[str] | None:
    try:
        closed = traced(lambda z: loss(z, label), shape)
    except jax.errors.ConcretizationTypeError:
        return None
    return _reasons(curvature_of(closed, shape, (), derivatives=True))


def _reasons(term: Term) -> frozenset[str] | None:
    if term.shape == "affine":
        return frozenset({"an affine function is convex"})
    return term.reasons if term.shape == "convex" else None


def _symbols(low: np.ndarray, high: np.ndarray) -> Callable[[Atoms], np.ndarray]:
    """A function that makes the entries of the label.

    An entry is a symbol of known range, or a constant where the range holds only one value.
    """
    kind = "class" if np.issubdtype(low.dtype, np.integer) else "number"

    def make(atoms: Atoms) -> np.ndarray:
        result = np.empty(low.shape, object)
        for place in np.ndindex(low.shape):
            ends = [_exact(bound[place]) for bound in (low, high)]
            if ends[0] == ends[1]:
                result[place] = Constant(low[place])
            else:
                result[place] = single(atoms.atom(kind, place, True, Span(*ends)))
        return result

    return make


def _exact(x) -> Fraction:
    return Fraction(int(x)) if np.issubdtype(x.dtype, np.integer) else Fraction(float(x))
