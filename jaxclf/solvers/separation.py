"""Whether a classifier without a penalty has no finite minimiser, proven by a direction.

A log loss has no minimiser exactly if there is a direction along which no row's own class loses its
lead and some row's gains: every row is right or undecided in it. Complete separation is the case in
which all rows gain.

There are two proofs. Parameters that put every row on the right side of every boundary are a
direction themselves: the loss falls along their ray as long as it is positive. It has no minimiser
if it is still positive where the smallest margin is large, as for log loss; a hinge, which is zero
there, has one. Otherwise a linear programme finds a direction, which counts only if exact
arithmetic confirms it.

Source: Albert and Anderson, On the existence of maximum likelihood estimates in logistic regression
models, Biometrika 71 (1984).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.programs import programs_by_shape
from jaxclf.scaling.chunks import Chunked, of_all
from jaxclf.scaling.sharing import local_rows
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers import row_blocks as blocks
from jaxclf.solvers.linear_problem import Affine, Rows

_SURE_MARGIN = 30.0
"""A margin at which a logistic loss is about 1e-13 and a hinge is zero."""
_MOST_NUMBERS = 2**21
"""In the programme's matrix, which takes a second then."""
_NOTHING = 1e-7
"""An entry of a direction, its largest being one, that the programme's tolerance may have made."""


@programs_by_shape
def make_separated(loss: Callable) -> Callable:
    """``(params, their logits (n, K) if known, rows) -> ()`` bool."""

    @jax.jit
    def separated(affine: Affine, z, rows: Rows):
        z = lp.logits(rows.features, affine) if z is None else z
        if rows.labels.ndim != 1:
            return jnp.asarray(False)
        # Soft labels have a finite minimiser.
        hard = jnp.all(rows.labels == jnp.round(rows.labels))
        margins = blocks.margins_of(z, rows.labels)
        smallest = jnp.min(jnp.where(rows.weights > 0, margins, jnp.inf)).astype(jnp.float64)
        far = z.astype(jnp.float64) * (_SURE_MARGIN / jnp.maximum(smallest, 1e-300))
        values = [jnp.sum(rows.weights * lp.losses(loss, at, rows.labels)) for at in (z, far)]
        return hard & (smallest > 0) & (values[1] > 0) & (values[1] < values[0])

    return separated


def separated_in_chunks(loss: Callable, source: Chunked, params: Affine, value: float) -> bool:
    """Whether parameters with that mean loss prove it for rows that are read in chunks."""
    labels, weights = (local_rows(x) for x in source.rows[1:])
    if labels.ndim != 1 or not of_all(source, (labels == np.round(labels)).all()).all():
        return False
    found = blocks.reduce(source, blocks.margins_block, params, None)[1]
    smallest = np.min(found, where=weights > 0, initial=np.inf)
    smallest = float(of_all(source, smallest).min())
    if smallest <= 0:
        return False
    far = jax.tree.map(lambda x: x * jnp.asarray(_SURE_MARGIN / smallest, x.dtype), params)
    return 0 < float(blocks.reduce(source, blocks.risk_block(loss), far, None)[0]) < value


def runaway(features, labels, weights, num_logits: int, *, intercept: bool) -> Affine | None:
    """A direction that proves that there is no finite minimiser, or ``None`` if none was found.

    Args:
      features: ``(n, d)``, of the host.
      labels: ``(n,)`` hard labels: classes of several logits; of one logit, positive or not.
      weights: ``(n,)``; rows of weight zero do not count.
      num_logits: K.
      intercept: whether the model has one.
    """
    (n, d), several = features.shape, num_logits > 1
    width = d + intercept
    if n * width * (2 * (num_logits - 1) if several else 1) > _MOST_NUMBERS:
        return None
    used = np.asarray(weights) > 0
    x, y = np.asarray(features, np.float64)[used], np.asarray(labels)[used]
    n = len(x)
    scale = np.abs(x).max(0)
    scale = np.where(scale > 0, scale, 1)
    extended = np.c_[x / scale, np.ones((n, int(intercept)))]
    leads = _leads(extended, y, num_logits)
    found = _solved(leads, width if several else 0)
    if found is None:
        return None
    entries = np.where(np.abs(found) > _NOTHING * np.abs(found).max(), found, 0)
    direction = entries.reshape(num_logits, width)
    direction[:, :d] /= scale
    if not _is_proof(np.c_[x, np.ones((n, int(intercept)))], y, direction):
        return None
    return Affine(direction[:, :d], direction[:, d] if intercept else None)


def _leads(x: np.ndarray, y: np.ndarray, num_logits: int):
    """The matrix that takes a direction to the change of each lead over each rival."""
    import scipy.sparse  # only where a fit without a penalty has no bound

    if num_logits == 1:
        return scipy.sparse.csr_array(np.where(y > 0, 1.0, -1.0)[:, None] * x)
    parts = []
    for k in range(num_logits):
        rows = np.flatnonzero(y != k)
        difference = np.eye(num_logits)[y[rows]] - np.eye(num_logits)[k]
        products = difference[:, :, None] * x[rows][:, None]
        parts.append(scipy.sparse.csr_array(products.reshape(len(rows), -1)))
    return scipy.sparse.vstack(parts)


def _solved(leads, held: int) -> np.ndarray | None:
    """The direction in a box that raises the leads most and lowers none; its first so many entries,
    those of the first of several classes, are zero."""
    from scipy.optimize import linprog

    total = np.asarray(leads.sum(0)).ravel()
    bounds = np.tile([-1.0, 1.0], (len(total), 1))
    bounds[:held] = 0
    found = linprog(-total, A_ub=-leads, b_ub=np.zeros(leads.shape[0]), bounds=bounds)
    if found.status != 0 or not -found.fun > 1e-6:
        return None
    return found.x


def _is_proof(x: np.ndarray, y: np.ndarray, direction: np.ndarray) -> bool:
    """Whether no lead falls and one rises, in rational arithmetic where floats cannot tell."""
    if len(direction) == 1:  # one logit is the lead of the second of two classes
        direction, y = np.concatenate([np.zeros_like(direction), direction]), (y > 0).astype(int)
    changes = x @ direction.T
    leads = np.take_along_axis(changes, y[:, None], 1) - changes
    off = (np.abs(x) @ np.abs(direction).T).max(1, keepdims=True)
    off = 8 * x.shape[1] * np.finfo(np.float64).eps * off
    if (leads < -off).any():
        return False
    rises = bool((leads > off).any())
    for i, k in np.argwhere(np.abs(leads) <= off):
        lead = _product(x[i], direction[y[i]]) - _product(x[i], direction[k])
        if lead < 0:
            return False
        rises = rises or lead > 0
    return rises


def _product(x: np.ndarray, row: np.ndarray) -> Fraction:
    terms = (Fraction(a) * Fraction(b) for a, b in zip(x, row, strict=True) if a and b)
    return sum(terms, Fraction(0))
