"""Whether parameters prove that a classifier without a penalty has no finite minimiser.

If they put every row on the right side of every boundary, the loss along their ray falls as long as
it is positive. It has no minimiser if it is still positive where the smallest margin is large, as
for log loss; a hinge, which is zero there, has one.

Source: Albert and Anderson, On the existence of maximum likelihood estimates in logistic regression
models, Biometrika 71 (1984).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.programs import programs_by_shape
from jaxclf.scaling.chunks import Chunked, of_all
from jaxclf.scaling.sharing import own_rows
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers import row_blocks as blocks
from jaxclf.solvers.linear_problem import Affine, Rows

_SURE_MARGIN = 30.0
"""A margin at which a logistic loss is about 1e-13 and a hinge is zero."""


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
    """The same of rows that are read in chunks, for parameters with that mean loss."""
    labels, weights = (own_rows(x) for x in source.rows[1:])
    if labels.ndim != 1 or not of_all(source, (labels == np.round(labels)).all()).all():
        return False
    found = blocks.reduce(source, blocks.margins_block, params, None)[1]
    smallest = np.min(found, where=weights > 0, initial=np.inf)
    smallest = float(of_all(source, smallest).min())
    if smallest <= 0:
        return False
    far = jax.tree.map(lambda x: x * jnp.asarray(_SURE_MARGIN / smallest, x.dtype), params)
    return 0 < float(blocks.reduce(source, blocks.risk_block(loss), far, None)[0]) < value
