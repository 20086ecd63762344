"""The oracle of a linear model whose rows are read in chunks; it keeps no logits and no features.

A pass over the rows gives the value, the gradient, and each row's curvature. Rows are drawn by
their curvature, as many as fit in memory beside their logits. The Hessian is made of the drawn
rows, so that conjugate gradients read no file. Where the drawn rows do not suffice, or so few would
fit that they say nothing, every product is a pass. Within a chunk logits are made for one block of
rows at a time, so that n × K numbers are never held, whatever the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import preconditioner as pre
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.conjugate_gradients import ON_HOST, Control
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.linear_algebra.sampling import Drawn, draw, gather
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.chunks import Chunked, bytes_of_row, room_for
from jaxclf.scaling.sharing import placed
from jaxclf.solvers.linear_oracle import LinearOracle, bound_by_strength
from jaxclf.solvers.oracle import Model, Passes, Point, Ray
from jaxclf.solvers.start import ignores_shifts
from jaxclf.sparse_rows import from_csr, is_sparse, to_csr
from jaxclf.stored_rows import StoredRows

_FEWEST_PER_UNKNOWN = 2
"""A sample with fewer rows per feature, or per logit, says little."""
_TAKEN_AT_ONCE = 4096
"""Rows of a sample that are read at once."""
ARRAYS_OF_LOGITS = 6
"""A solver may hold so many arrays of all logits at once, of rows in memory or of a sample."""


class _Curvature(NamedTuple):
    """The curvature that a pass over the rows finds at a point, if it was asked for."""

    scale: jax.Array | None
    """The curvature in each logit, ``Σ ωᵢ ℓ″ᵢ[k, k]``, ``(K,)``."""
    rows: np.ndarray | None
    """The mean of each row's ``ℓ″ᵢ[k, k]``, ``(n,)``."""


@dataclass(frozen=True)
class ChunkedOracle:
    """``Σ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²`` with 64-bit mode on for its scalars."""

    loss: Callable
    """``(logits (K,), label) -> ()``, convex, twice differentiable."""
    source: Chunked
    """Rows, with float64 weights that sum to one."""
    l2: Any
    """The strength λ: one for all weights, ``(1, d)`` or ``(K, d)``."""
    dtype: np.dtype
    """The dtype that the solver computes in."""
    most_rows: int
    """The most rows of a sample. Where more are wanted, every product reads all rows."""
    _room: list = field(default_factory=list)
    """The memory of the largest sample, once there is one."""

    @property
    def control(self) -> Control:
        return ON_HOST

    @property
    def num_rows(self) -> int:
        return len(self.source.rows.weights)

    @property
    def passes(self) -> Passes:
        return Passes(start=1.0, ray=0.0, trial=1.0, product=1.0)

    @property
    def noise(self) -> float:
        return float(jnp.finfo(self.dtype).eps)

    def evaluate(self, v: Affine, *, curved: bool = False) -> Point:
        """The point, with its curvature where that is asked for or costs little."""
        curved = curved or lp.curvature_is_cheap(self.loss, len(v.weights))
        block = blocks.evaluation_block(self.loss, curved, v.intercept is not None)
        sums, rows = blocks.reduce(self.source, block, v, None)
        value, g, largest, bound = _penalised(*sums[:2], v, self.l2)
        kept = _Curvature(sums[2], rows)
        return Point(v, float(value), g, float(largest), float(bound), kept)

    def ray(self, point: Point, d: Affine) -> Ray:
        tried = {0.0: (point, None)}

        def at(t):
            there = self.evaluate(_added(point.params, t, d))
            rise = float(_dot(there.gradient, d))
            tried[float(t)] = there, rise
            return there.value, rise

        return Ray(at, lambda t, value: tried[float(t)])

    def product(self, point: Point) -> Callable:
        def product(d: Affine) -> Affine:
            h, _ = blocks.reduce(
                self.source, blocks.product_block(self.loss), point.params, None, d
            )
            return _with_ridge(h, self.l2, d)

        return product

    def model(
        self, point: Point, size: int, old: Model | None, budget: int, rng: np.random.Generator
    ) -> tuple[Model, float]:
        """The curvature of ``size`` rows, and the passes that it took.

        The memory of the old model's sample may be overwritten.
        """
        read, n, v = 0.0, self.num_rows, point.params
        if point.kept.scale is None:
            point, read = self.evaluate(v, curved=True), 1.0
        if size < n:
            weights = np.asarray(self.source.rows.weights)
            drawn = draw(weights, weights * point.kept.rows, size, rng)
            sample = LinearOracle(self.loss, self._take(drawn), self.l2, narrows=False)
            before = old if old is not None and isinstance(old.oracle, LinearOracle) else None
            found, share = sample.model(point._replace(kept=None), size, before, budget, rng)
            return found, read + (1 + share) * size / n
        d, scale = v.weights.shape[1], point.kept.scale
        differ = np.ndim(self.l2) == 2 and len(self.l2) > 1
        kind, features = pre.kind(n, n, d, len(scale)), self.source.rows.features
        if is_sparse(features) or isinstance(features, StoredRows):
            kind = pre.kind_of_sparse((n, d), features.size, len(scale))
        by_columns = not differ and kind == "columns"
        block = blocks.moments_block(self.loss, by_columns, v.intercept is not None)
        moments, _ = blocks.reduce(self.source, block, v, None)
        ignored = not differ and ignores_shifts(self.loss, v, self.source.rows.labels)
        metric = _of_moments(
            moments, scale, np.asarray(self.l2, self.dtype), ignored, num_features=d
        )
        return Model(self, Partial(pre.apply, metric)), read + 1

    def is_narrow(self, v: Affine) -> bool:
        return False

    def exact(self) -> ChunkedOracle:
        return self

    def _take(self, drawn: Drawn) -> Rows:
        """The drawn rows on the device; the next drawn rows overwrite them."""
        rows, source = self.source.rows, self.source
        weights = drawn.weights.astype(self.dtype)
        places = np.asarray(drawn.places)
        if isinstance(rows.features, jax.Array):
            return gather(rows, drawn._replace(weights=weights), None)
        labels = jax.tree.map(lambda x: placed(np.asarray(x)[places], None), rows.labels)
        sample = Rows(self._features_at(places), labels, weights)
        return sample if source.adapted is None else source.adapted(sample)

    def _features_at(self, places: np.ndarray) -> Any:
        features = self.source.rows.features
        if is_sparse(features) or isinstance(features, StoredRows):
            matrix = (to_csr(features) if is_sparse(features) else features)[places]
            # Few sizes, so that few programs are compiled.
            return from_csr(matrix, room=1 << max(10, (matrix.nnz - 1).bit_length()))
        if not self._room:
            self._room.append(room_for(self.most_rows, features))
        room = self._room[0]
        for first in range(0, len(places), _TAKEN_AT_ONCE):
            some, which = np.unique(places[first : first + _TAKEN_AT_ONCE], return_inverse=True)
            room[first : first + len(which)] = features[some][which]
        return placed(room[: len(places)], None)


def most_rows(source: Chunked, num_logits: int, memory: float) -> int:
    """The number of rows of a sample that takes at most ``memory`` bytes.

    It is 0 where so few rows say nothing, and where rows would have to travel between devices.
    """
    rows, d = source.rows, source.rows.features.shape[1]
    row_bytes = bytes_of_row(rows.features) + 4 * ARRAYS_OF_LOGITS * num_logits
    most = min(len(rows.features), int(memory // row_bytes))
    enough = most >= _FEWEST_PER_UNKNOWN * max(d, num_logits)
    return most if enough and source.mesh is None else 0


# These programs run between two passes.

_added, _dot, _with_ridge = map(jit_by_shape, (lp.add_scaled, lp.dot, lp.with_ridge))
_of_moments = jit_by_shape(pre.of_moments, static_argnames="num_features")


@jit_by_shape
def _penalised(risk, g: Affine, v: Affine, l2):
    """The value, its gradient with its largest entry, and a bound on the gap."""
    g = lp.with_ridge(g, l2, v)
    value = risk + jnp.sum(lp.penalty_terms(v.weights.astype(jnp.float64), 0.0, l2))
    return value, g, lp.largest(g), bound_by_strength(l2, g)
