"""Proofs, by a direction, that a classifier without a penalty has no finite minimiser.

A log loss has no minimiser exactly if there is a direction along which no row's own class loses its
lead and some row's own class gains. Every row is right or undecided along such a direction.
Complete separation is the case in which all rows gain.

There are two proofs. Parameters that put every row on the right side of every boundary are a
direction themselves: the loss falls along their ray as long as it is positive. The loss has no
minimiser if it is still positive where the smallest margin is large, as for log loss; a hinge,
which is zero there, has one. Otherwise a linear programme finds a direction, which counts only if
exact arithmetic confirms it.

Source: Albert and Anderson, On the existence of maximum likelihood estimates in logistic regression
models, Biometrika 71 (1984).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.certificates.duality import FLUSHED
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra.problem import Affine, Rows, affine_map, without_offset
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.chunks import Chunked
from jaxclf.scaling.sharing import gather_over_mesh, local_rows
from jaxclf.sparse_rows import is_sparse, of_numbers, to_csr

_WIDEST = 1e6
"""The largest entry of a direction whose leads are to rise by one."""
_SURE_MARGIN = 30.0
"""A margin at which a logistic loss is about 1e-13 and a hinge is zero."""
_MOST_NUMBERS = 2**21
"""The most numbers in the programme's matrix. The programme then takes a second."""
_NOTHING = 1e-7
"""An entry of a direction may come from the tolerance of the programme if it is at most so much,
with the largest entry being one."""


def is_separated(
    loss: Callable, rows: Rows | Chunked, params: Affine, z: Any, value: float
) -> bool:
    """Whether parameters prove by their own direction that there is no finite minimiser.

    An offset does not change along a direction, so margins are without it.

    Args:
      loss: a loss that takes ``(K,)`` logits.
      rows: the data, in memory or in chunks.
      params: the parameters.
      z: the logits at the parameters where they are known, else ``None``.
      value: the mean loss at the parameters.
    """
    if not _has_hard_labels(rows):
        return False
    weights = local_rows(_held(rows).weights)
    margins = local_rows(blocks.reduce(rows, blocks.margins_block, params, z, features=False)[1])
    smallest = np.min(margins, where=weights > 0, initial=np.inf)
    smallest = float(gather_over_mesh(smallest).min())
    if smallest <= 0 or not separates(rows, params):
        return False
    far = _scaled((params, z), _SURE_MARGIN / smallest)
    return 0 < float(blocks.reduce(rows, blocks.risk_block(loss), *far, features=False)[0]) < value


def _has_hard_labels(rows: Rows | Chunked) -> bool:
    """Whether all labels of all processes are hard: soft ones have a finite minimiser."""
    return bool(gather_over_mesh(are_hard(local_rows(without_offset(_held(rows).labels)))).all())


def _held(rows: Rows | Chunked) -> Rows:
    return rows.rows if isinstance(rows, Chunked) else rows


def are_hard(labels: np.ndarray) -> bool:
    """Whether each row has one label, a class and no probability."""
    return labels.ndim == 1 and bool((labels == np.round(labels)).all())


def separates(rows: Rows | Chunked, params: Affine) -> bool:
    """Whether every row has a hard label, and is on the right side of every boundary.

    Margins must be larger than rounding. Rows of weight zero do not count. 64-bit mode must be on.
    """
    if not _has_hard_labels(rows):
        return False
    v = jax.tree.map(lambda x: x.astype(np.float64), params)
    block = _sure_margins_block
    margins = blocks.reduce(rows, block, v, None, jax.tree.map(abs, v))[1]
    weights = local_rows(_held(rows).weights)
    smallest = np.min(local_rows(margins), where=weights > 0, initial=np.inf)
    return float(gather_over_mesh(smallest).min()) > 0


def _sure_margins_block(x, z, labels, weights, sizes):
    """The margins of the rows, less what rounding may have added to them."""
    terms = jnp.max(affine_map(sizes)(of_numbers(lambda x: jnp.abs(x) + FLUSHED, x)), 1)
    error = 4 * (x.shape[1] + 4) * float(np.finfo(np.float64).eps) * terms
    return None, blocks.margins_of(z, labels) - error


@jit_by_shape
def _scaled(tree: Any, factor) -> Any:
    return jax.tree.map(lambda x: x * jnp.asarray(factor, x.dtype), tree)


def runaway(
    features, labels, weights, num_logits: int, *, intercept: bool, sides: Any = True
) -> Affine | None:
    """A direction that proves that there is no finite minimiser, or ``None`` if none was found.

    Args:
      features: ``(n, d)``, on the host.
      labels: ``(n,)`` hard labels: classes for several logits; positive or not for one logit.
      weights: ``(n,)``; rows of weight zero do not count.
      num_logits: K.
      intercept: whether the model has one.
      sides: whether each weight may go down, and up, without end: ``(2, K, d)``, or one answer for
        all.
    """
    (n, d), several = features.shape, num_logits > 1
    width = d + intercept
    if n * width * (2 * (num_logits - 1) if several else 1) > _MOST_NUMBERS:
        return None
    features = to_csr(features).toarray() if is_sparse(features) else features
    rows = _rows_of(features, labels, weights)
    if rows is None:
        return None
    x, y = rows
    scale = np.abs(x).max(0)
    scale = np.where(scale > 0, scale, 1)
    leads = _leads(_extended(x / scale, intercept), y, num_logits)
    sides = np.broadcast_to(sides, (2, num_logits, d))
    ends = np.pad(sides, ((0, 0), (0, 0), (0, int(intercept))), constant_values=True)
    ends = ends * np.array([-1.0, 1.0])[:, None, None]
    if several and sides.all():  # a softmax ignores what all classes have in common
        ends[:, 0] = 0
    ends = ends.reshape(2, -1)
    # The first linear programme finds directions that are exact, the second those with margins.
    for solved in (_steepest, _widest):
        found = solved(leads, ends)
        if found is None:
            return None
        direction = _tidied(found.reshape(num_logits, width))
        with np.errstate(over="ignore"):
            direction[:, :d] /= scale
        largest = np.abs(direction).max()
        if not np.isfinite(largest):
            return None
        direction = np.ldexp(direction, -np.frexp(largest)[1])  # it fits into any dtype
        falls, rises = direction[:, :d] < 0, direction[:, :d] > 0
        inside = ~(falls & ~sides[0] | rises & ~sides[1]).any()
        if inside and _is_proof(_extended(x, intercept), y, direction):
            return Affine(direction[:, :d], direction[:, d] if intercept else None)
    return None


def proves(features, labels, weights, direction: Affine) -> bool:
    """Whether along a direction no row's own class loses its lead, and some row's gains.

    The arguments are those of :func:`runaway`.
    """
    features = to_csr(features).toarray() if is_sparse(features) else features
    rows, intercept = _rows_of(features, labels, weights), direction.intercept is not None
    if rows is None:
        return False
    entries = np.column_stack([np.asarray(x, np.float64) for x in jax.tree.leaves(direction)])
    return _is_proof(_extended(rows[0], intercept), rows[1], entries)


def _rows_of(features, labels, weights) -> tuple[np.ndarray, np.ndarray] | None:
    """The rows that count, with float64 features; ``None`` for integers that float64 rounds."""
    used = np.asarray(weights) > 0
    x = np.asarray(features, np.float64)[used]
    if np.dtype(features.dtype).kind in "iu" and np.abs(x).max(initial=0) > 2.0**53:
        return None
    return x, np.asarray(labels)[used]


def _extended(x: np.ndarray, intercept: bool) -> np.ndarray:
    return np.c_[x, np.ones((len(x), int(intercept)))]


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


def _steepest(leads, ends: np.ndarray) -> np.ndarray | None:
    """The direction between its ends that raises the leads most and lowers none; ``None`` if none
    does."""
    return _maximum(np.asarray(leads.sum(0)).ravel(), leads, ends)


def _widest(leads, ends: np.ndarray) -> np.ndarray | None:
    """The direction that raises by at least one as many leads as possible, and lowers none.

    It maximises ``Σ min(leadᵢ, 1)``, so that a lead that can rise is no longer at the mercy of
    rounding.
    """
    import scipy.sparse

    count, size = leads.shape
    joined = scipy.sparse.hstack([leads, -scipy.sparse.eye_array(count)])
    ends = np.c_[_WIDEST * ends, np.repeat([[0.0], [1.0]], count, 1)]
    found = _maximum(np.repeat([0.0, 1.0], [size, count]), joined, ends)
    return None if found is None else found[:size]


def _maximum(gain: np.ndarray, rises, ends: np.ndarray) -> np.ndarray | None:
    """The point between two ends that gains most where nothing falls; ``None`` if nothing is
    gained."""
    from scipy.optimize import linprog

    found = linprog(-gain, A_ub=-rises, b_ub=np.zeros(rises.shape[0]), bounds=ends.T)
    return found.x if found.status == 0 and -found.fun > 1e-6 else None


def _tidied(direction: np.ndarray) -> np.ndarray:
    """A direction ``(K, width)`` without what rounding left of zeros and of equal classes."""
    nothing = _NOTHING * np.abs(direction).max()
    direction = np.where(np.abs(direction) > nothing, direction, 0)
    for k, row in enumerate(direction):
        equal = (np.abs(direction[k:] - row) <= nothing).all(1)
        direction[k:][equal] = row
    return direction


def _is_proof(x: np.ndarray, y: np.ndarray, direction: np.ndarray) -> bool:
    """Whether no lead falls and one rises, in rational arithmetic where floats cannot tell."""
    if len(direction) == 1:  # one logit is the lead of the second of two classes
        direction, y = np.concatenate([np.zeros_like(direction), direction]), (y > 0).astype(int)
    changes = x @ direction.T
    leads = np.take_along_axis(changes, y[:, None], 1) - changes
    error = (np.abs(x) @ np.abs(direction).T).max(1, keepdims=True)
    error = 8 * x.shape[1] * np.finfo(np.float64).eps * error
    if not (leads >= -error).all():  # one may be no number
        return False
    rises = bool((leads > error).any())
    for i, k in np.argwhere(np.abs(leads) <= error):
        lead = _product(x[i], direction[y[i]]) - _product(x[i], direction[k])
        if lead < 0:
            return False
        rises = rises or lead > 0
    return rises


def _product(x: np.ndarray, row: np.ndarray) -> Fraction:
    terms = (Fraction(a) * Fraction(b) for a, b in zip(x, row, strict=True) if a and b)
    return sum(terms, Fraction(0))
