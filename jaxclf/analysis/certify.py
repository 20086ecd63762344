"""Verdicts on convexity: a proof, a witness, or what was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks, losses
from jaxclf.analysis import closed_forms
from jaxclf.analysis.certify_model import search_model
from jaxclf.analysis.certify_risk import Rows, search, second_moment_extremes
from jaxclf.analysis.disciplined import disciplined
from jaxclf.analysis.jensen import Jensen, refutes
from jaxclf.analysis.sigmoid_polynomials import Exact, exact_curvature
from jaxclf.objectives import Batch, Objective, make_objective
from jaxclf.penalties import Penalty, check_strengths, is_smooth
from jaxclf.sparse_rows import check_dense

_MARGINS = (losses.hinge, losses.squared_hinge, losses.logistic_margin, losses.zero_one)
_SCALES = (0.5, 2.0, 8.0)
_PER_SCALE = 200
_STEPS = (1.0, 0.25, 2.0**-4, 2.0**-6)
_GRID = 2.0**-20
"""Points are rounded to multiples of this number, so that the middle of two points is exact."""


class Convex(NamedTuple):
    """The verdict that a loss is convex in its logits for every label that was asked for.

    With data the verdict is that the objective is convex in the weights.
    """

    proof: tuple[str, ...]
    """The reasons that the proof rests on."""
    curvature: tuple[Exact, ...] = ()
    """The exact second derivatives, one for each label for which it is known."""
    strong_convexity: float = 0.0
    """A lower bound on every eigenvalue of the objective's Hessian, if data were given."""
    ridge: float | None = None
    """The smallest λ that is proven to make the objective convex, if data were given."""


class NonConvex(NamedTuple):
    """The verdict that a loss is not convex for some label.

    With data the verdict is that the objective is not convex in the weights.
    """

    label: Any
    """The label for which the loss is not convex; ``None`` with data."""
    witness: Jensen
    """Three points that break Jensen's inequality in interval arithmetic. With data they are
    weights. For a model they are its parameters in one vector, and they break the inequality in
    float64 by more than rounding."""
    curvature: Exact | None = None
    """The signs and extremes of the second derivative for ``label``, if it is known exactly."""
    ridge: float | None = None
    """The λ per unit of λmax(XᵀX/n) with which ``l2(λ)`` makes the risk of linear logits convex.
    The Hessian is at least ``-ridge · XᵀX/n``, whichever of the labels the rows have. ``None``
    means that the curvature for one of the labels is not known. With data this is the smallest λ
    that is proven to make the objective convex."""
    smallest_eigenvalue: float | None = None
    """The smallest eigenvalue of the objective's Hessian that the search saw, if data were given.
    The ``l2`` of the penalty must grow by at least the absolute value of this number."""


class Unknown(NamedTuple):
    """The verdict that neither a proof nor a witness was found; samples never prove convexity."""

    label: Any
    smallest_eigenvalue: float
    """The smallest eigenvalue of the Hessian over the points that were tried. The Hessian is in the
    logits, and with data in the weights."""
    points: int
    curvature: Exact | None = None
    """The exact curvature, if it is known. It is then negative by so little that no three points
    show it."""
    ridge: float | None = None
    """The smallest λ that is proven to make the objective convex, if data were given."""


def certify_convexity(
    loss: Callable,
    *,
    num_logits: int | None = None,
    labels: Iterable | None = None,
    data: Batch | None = None,
    penalty: Penalty | None = None,
    model: Callable | None = None,
    params: Any = None,
    seed: int = 0,
) -> Convex | NonConvex | Unknown:
    """Judges whether a loss is convex in its logits, and so the risk of models with affine logits.

    With ``data`` the question is whether ``Σᵢ ωᵢ loss(W xᵢ, yᵢ) + penalty(W)`` is convex in all of
    W. A feature that is always 1 is an intercept that the penalty counts. A ridge may make this sum
    convex where the loss alone is not; see :mod:`jaxclf.analysis.certify_risk`. With a ``model`` of
    hidden layers the question is about the model's parameters, and a witness answers it or nothing
    does (:mod:`jaxclf.analysis.certify_model`).

    A convex function of an affine one is convex, and so are means with non-negative weights and
    sums with a convex penalty. A proof for the loss is therefore a proof for the objective of a
    linear model. A hidden layer is not affine, so nothing follows for a model that has one.

    Three ways are tried in turn: the rules of disciplined convex programming on the jaxpr; for one
    logit the exact second derivative as a polynomial in σ(z), whose real roots are isolated; and a
    search for the most negative curvature, where three points must break Jensen's inequality in
    interval arithmetic.

    Args:
      loss: ``(logits, label) -> ()``, traceable; one of :mod:`jaxclf.losses` or your own. The
        verdict is on its formula: a stopped gradient or a derivative rule of its own changes
        nothing (:func:`jaxclf.analysis.proofs.prove_convex` proves no loss whose derivative may be
        another one).
      num_logits: K, or ``None`` for a loss of a single logit ``()``.
      labels: the labels to ask for; by default 0 and 1 (-1 and 1 for the margin losses of
        :mod:`jaxclf.losses`, not for your own), or 0 … K-1. With data they are the labels of the
        rows.
      data: rows of :func:`jaxclf.make_batch`, with labels ``(n,)``. A witness takes some time:
        dense Hessians of at most 4096 weights, and every row three times in interval arithmetic.
        The loss must be traceable in its label too.
      penalty: a penalty of :mod:`jaxclf.penalties`, with data only.
      model: ``(params, features) -> logits``, with data only, such as the logits of
        :func:`jaxclf.models.flax_module.flax_module`; by default ``W x``.
      params: the parameters of the model, at and around which negative curvature is sought.
      seed: the seed of the search.

    Raises:
      TypeError, ValueError: a loss that does not take such logits and labels; arguments that do not
        go together; a search over more than 4096 weights.

    Example:
      >>> from jaxclf import certify_convexity, losses
      >>> type(certify_convexity(losses.bernoulli_nll)).__name__
      'Convex'
      >>> certify_convexity(losses.sigmoid_squared_error, labels=[1]).curvature.pieces[0].sign
      -1

    Source: Grant, Boyd and Ye (2006); Boyd and Vandenberghe, Convex Optimization (2004), section
    3.2.
    """
    if num_logits is not None:
        checks.check_number("num_logits", num_logits, at_least=1)
    if data is None and penalty is not None:
        raise ValueError("a penalty is judged together with data: the loss has no weights")
    if data is not None and labels is not None:
        raise ValueError("labels are those of the data: give one of both")
    if data is not None:
        check_dense("certify_convexity", data.features)
    strengths = penalty or Penalty()
    check_strengths(strengths)
    if data is not None and data.offset is not None:
        raise ValueError("certify_convexity takes data without an offset")
    if model is not None:
        if data is None or params is None:
            raise ValueError("a model is judged together with data and params")
        if num_logits is not None:
            raise ValueError("num_logits is that of the model: leave it out")
        checks.check_features(np.asarray(data.features))
        return _verdict_on_model(make_objective(model, loss, penalty), params, data, seed)
    rows = None if data is None else _rows(data)
    asked = _labels(loss, num_logits) if labels is None else list(labels)
    if rows is not None:
        asked = np.unique(rows.labels).tolist()
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
        elif rows is None:
            doubts.append(_refuted(loss, label, num_logits, exact, seed))
        else:  # the rows are to refute it
            doubts.append(None)
    if rows is not None:
        _check_labels(loss, num_logits, asked)
    known = tuple(exact for exact in curvatures if exact is not None)
    lowest = _lowest(loss, num_logits, curvatures, not doubts)
    verdict = doubts[0] if doubts else Convex(tuple(sorted(proofs)), known)
    for doubt in doubts if rows is None else ():
        if isinstance(doubt, NonConvex):
            verdict = doubt._replace(ridge=None if lowest is None else max(0.0, -min(lowest)))
            break
    if rows is None:
        return verdict
    lowest = None if lowest is None else dict(zip(asked, lowest, strict=True))
    return _verdict_on_risk(loss, num_logits, verdict, lowest, rows, strengths, seed)


def _verdict_on_model(objective: Objective, params, data: Batch, seed: int) -> NonConvex | Unknown:
    found = search_model(objective, params, data, seed)
    if found.witness is None:
        return Unknown(None, found.curvature, found.points)
    return NonConvex(None, found.witness, smallest_eigenvalue=found.curvature)


def _rows(data: Batch) -> Rows:
    features = np.asarray(data.features, np.float64)
    checks.check_features(features)
    labels = np.asarray(data.labels)
    checks.check_shape("labels", labels, (len(features),))
    weights = np.ones(len(labels)) if data.weights is None else np.asarray(data.weights, float)
    checks.check_weights(weights, num_rows=len(labels))
    used = weights > 0
    features = features.reshape(len(features), -1)[used]
    return Rows(features, labels[used], weights[used] / weights.sum())


def _check_labels(loss, num_logits: int | None, asked: Sequence) -> None:
    """Refuses a label for which the loss is no number."""
    with jax.enable_x64(True):
        zero = jnp.zeros(() if num_logits is None else (num_logits,))
        for label in asked:
            if not np.isfinite(value := float(loss(zero, label))):
                raise ValueError(f"the loss of label {label} is {value} where all logits are zero")


def _lowest(loss, num_logits, curvatures: Sequence[Exact | None], convex: bool) -> list | None:
    """A lower bound on the curvature for each label, or ``None`` if a label has no bound."""
    bounds = [None if exact is None else exact.lowest for exact in curvatures]
    if num_logits is not None:
        with suppress(ValueError):  # no closed form
            bounds = [closed_forms.curvature(loss, num_logits).lower] * len(bounds)
    if convex:  # 0 is a bound where no other is known
        return [0.0 if bound is None else max(0.0, bound) for bound in bounds]
    return None if None in bounds else bounds


def _verdict_on_risk(
    loss, num_logits, proven: Convex | None, lowest: dict | None, rows: Rows, penalty: Penalty, seed
) -> Convex | NonConvex | Unknown:
    """The verdict on the objective over given rows."""
    ridge = float(penalty.l2)
    needed = None
    if lowest is not None:
        each = np.array([lowest[label] for label in rows.labels.tolist()])
        needed = second_moment_extremes(rows, np.maximum(-each, 0))[1] if (each < 0).any() else 0.0
    if proven is not None or (needed is not None and ridge >= needed):
        bounds = f"the risk's Hessian is at least -{needed!r} I, that of l2 is {ridge!r} I"
        proof = (bounds,) if proven is None else proven.proof
        proof = (*proof, "logits are linear in the weights; means and convex penalties keep it")
        more = second_moment_extremes(rows, each)[0] if each.min() > 0 else -needed
        # The sum of both is rounded downwards.
        strong = max(0.0, float(np.nextafter(ridge + more, -np.inf))) if more else ridge
        return Convex(proof, () if proven is None else proven.curvature, strong, needed)
    found = search(loss, num_logits, rows, ridge, seed)
    if found.witness is None or not is_smooth(penalty):
        return Unknown(None, found.curvature, found.points, None, needed)
    return NonConvex(None, found.witness, None, needed, found.curvature)


def _labels(loss: Callable, num_logits: int | None) -> Sequence:
    if num_logits is None:
        return (-1, 1) if loss in _MARGINS else (0, 1)
    return range(num_logits)


def _refuted(loss, label, num_logits, exact: Exact | None, seed: int) -> NonConvex | Unknown:
    """A witness where the curvature is most negative, or the verdict that none was found."""
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
    """The smallest eigenvalue of the Hessian at each point and its eigenvector; NaN counts as 0."""

    def flat(z):
        return loss(z.reshape(shape), label)

    with jax.enable_x64(True):
        hessians = np.asarray(jax.vmap(jax.hessian(flat))(jnp.asarray(points)))
    values, vectors = np.linalg.eigh(np.nan_to_num(hessians))
    return values[:, 0], vectors[:, :, 0]
