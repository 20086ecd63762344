"""Verdicts on convexity: a proof, a witness, or what was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks, losses
from jaxclf.analysis.disciplined import disciplined
from jaxclf.analysis.jensen import Jensen, refutes
from jaxclf.analysis.sigmoid_polynomials import Exact, exact_curvature

_MARGINS = (losses.hinge, losses.squared_hinge, losses.logistic_margin, losses.zero_one)
_SCALES = (0.5, 2.0, 8.0)
_PER_SCALE = 200
_STEPS = (1.0, 0.25, 2.0**-4, 2.0**-6)
_GRID = 2.0**-20
"""Points are rounded to multiples of it, so that the middle of two is exact."""


class Convex(NamedTuple):
    """The loss is convex in its logits for every label that was asked of."""

    proof: tuple[str, ...]
    """What it rests on."""
    curvature: tuple[Exact, ...] = ()
    """Of each label, where the second derivative is known exactly."""


class NonConvex(NamedTuple):
    """The loss is not convex for some label."""

    label: Any
    witness: Jensen
    """Three points that break Jensen's inequality, in interval arithmetic."""
    curvature: Exact | None = None
    """Of that label, where the second derivative is known exactly: its signs and extremes."""
    ridge: float | None = None
    """λ per unit of λmax(XᵀX/n) with which ``l2(λ)`` makes the risk of linear logits convex: the
    Hessian is at least ``-ridge · XᵀX/n``, whichever of the labels the rows have. ``None`` where
    the curvature of one of them is not known exactly."""


class Unknown(NamedTuple):
    """Neither a proof nor a witness was found: samples never prove convexity."""

    label: Any
    smallest_eigenvalue: float
    """Of the Hessian in the logits, over the points that were tried."""
    points: int
    curvature: Exact | None = None
    """Where it is known exactly, and so slightly negative that no three points show it."""


def certify_convexity(
    loss: Callable,
    *,
    num_logits: int | None = None,
    labels: Iterable | None = None,
    seed: int = 0,
) -> Convex | NonConvex | Unknown:
    """Whether a loss is convex in its logits, and so the risk of any model with affine logits.

    A convex function of an affine one is convex, and so are means with non-negative weights and
    sums with a convex penalty: a proof for the loss is one for the objective of a linear model. A
    hidden layer is not affine, and nothing follows for it.

    Three ways are tried in turn: the rules of disciplined convex programming on the jaxpr; for one
    logit the exact second derivative as a polynomial in σ(z), whose real roots are isolated; and a
    search for the most negative curvature, whose place must break Jensen's inequality in interval
    arithmetic.

    Args:
      loss: ``(logits, label) -> ()``, traceable; one of :mod:`jaxclf.losses` or your own. Its
        softplus, log-softmax and sigmoid are known as such if they are those of
        :mod:`jaxclf.activations` or, but for ``logsumexp``, of ``jax.nn``.
      num_logits: K, or ``None`` for a loss of a single logit ``()``.
      labels: those to ask of; by default 0 and 1 (-1 and 1 for losses of a margin), or 0 … K-1.
      seed: of the search.

    Raises:
      TypeError, ValueError: a loss that does not take such logits and labels.

    Source: Grant, Boyd and Ye (2006); Boyd and Vandenberghe, Convex Optimization (2004), section
    3.2.
    """
    if num_logits is not None:
        checks.check_number("num_logits", num_logits, at_least=1)
    asked = _labels(loss, num_logits) if labels is None else list(labels)
    if not asked:
        raise ValueError("labels must not be empty")
    proofs, curvatures, doubts = set(), [], []
    for label in asked:
        term = disciplined(loss, label, num_logits)
        exact = exact_curvature(loss, label) if num_logits is None else None
        curvatures.append(exact)
        if term.shape in ("affine", "convex"):
            proofs |= term.reasons or {"an affine function is convex"}
        elif exact is not None and all(piece.sign >= 0 for piece in exact.pieces):
            proofs.add("the second derivative is a polynomial in σ(z) that is nowhere negative")
        else:
            doubts.append(_refuted(loss, label, num_logits, exact, seed))
    known = tuple(exact for exact in curvatures if exact is not None)
    for doubt in doubts:
        if isinstance(doubt, NonConvex):
            whole = len(known) == len(asked)
            ridge = max(0.0, *(-exact.lowest for exact in known)) if whole else None
            return doubt._replace(ridge=ridge)
    return doubts[0] if doubts else Convex(tuple(sorted(proofs)), known)


def _labels(loss: Callable, num_logits: int | None) -> Sequence:
    if num_logits is None:
        return (-1, 1) if loss in _MARGINS else (0, 1)
    return range(num_logits)


def _refuted(loss, label, num_logits, exact: Exact | None, seed: int) -> NonConvex | Unknown:
    """A witness where the curvature is most negative, or what was seen."""
    shape = () if num_logits is None else (num_logits,)
    rng = np.random.default_rng(seed)
    points = np.concatenate([scale * rng.normal(size=(_PER_SCALE, *shape)) for scale in _SCALES])
    if exact is not None and np.isfinite(exact.lowest_at):
        points[0] = exact.lowest_at
    values, vectors = _curvatures(loss, label, points.reshape(len(points), -1), shape)
    for i in np.argsort(values)[:10]:
        for step in _STEPS:
            along = step * vectors[i].reshape(shape)
            a, b = (np.round((points[i] + side * along) / _GRID) * _GRID for side in (-1, 1))
            if (witness := refutes(loss, label, a, b)) is not None:
                return NonConvex(label, witness, exact)
    return Unknown(label, float(values.min()), len(points), exact)


def _curvatures(loss, label, points: np.ndarray, shape: tuple):
    """The smallest eigenvalue of the Hessian at each point, and its vector; NaN counts as zero."""

    def flat(z):
        return loss(z.reshape(shape), label)

    with jax.enable_x64(True):
        hessians = np.asarray(jax.vmap(jax.hessian(flat))(jnp.asarray(points)))
    values, vectors = np.linalg.eigh(np.nan_to_num(hessians))
    return values[:, 0], vectors[:, :, 0]
