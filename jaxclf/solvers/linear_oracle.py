"""The oracle of a linear model whose rows are in memory.

The oracle keeps the logits of a point, so that a line search reads no features. Its curvature may
come from a sample of rows, which is an oracle too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import preconditioner as pre
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.conjugate_gradients import TRACED, Control
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.linear_algebra.sampling import Drawn, draw, gather
from jaxclf.programs import jit_by_shape
from jaxclf.scaling import mesh
from jaxclf.scaling.devices import on_accelerator
from jaxclf.solvers.oracle import Model, Passes, Point, Ray, move
from jaxclf.sparse_rows import is_sparse

_GRAM_ROWS = 4
"""Rows per feature that the preconditioner is made of."""
_BLOCK_ROWS = 4, 16
"""Rows per feature that the factor of each logit is made of, by what it may cost. The rows are
drawn for that logit. A weak penalty needs many: softmax regression on MNIST with C = 1778, from the
solution for C = 1000, takes 375 passes with two, 133 with eight, and 93 with 16 or with 32."""
_QUICKER = 2
"""How many times as quick the multiplications of a factor are as those of a product with the
Hessian, which reads more for each of them."""
_FEWEST_ROWS = 1500
_FEWEST_TO_NARROW = 2**22
"""Multiplications of a product with the Hessian above which a problem in float64 makes it in
float32. Features in float32 are then not widened: softmax regression on MNIST with C = 1778, from
the solution before, takes 17 s in place of 42 s."""
_MOST_WORK_ON_ACCELERATORS = 2**41
"""The most multiplications of a metric of all rows. They take an H200 0.1 s."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "l2", "places"],
    meta_fields=["loss", "measures_curvature", "narrows"],
)
@dataclass(frozen=True)
class LinearOracle:
    """``Σ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²`` with 64-bit mode on for its scalars."""

    loss: Callable
    """``(logits (K,), label) -> ()``, convex, twice differentiable."""
    rows: Rows
    """The rows; their weights sum to one."""
    l2: Any
    """The strength λ: one for all weights, ``(1, d)`` or ``(K, d)``."""
    measures_curvature: bool = True
    """Whether a step measures the curvature along itself. That curvature is known where steps only
    go to minima of the quadratic of all rows."""
    places: Any = None
    """The places of a sample's rows among the rows whose logits a point keeps; else ``None``."""
    narrows: bool = True
    """Whether the curvature of a large problem in float64 is made in float32."""

    @property
    def control(self) -> Control:
        return TRACED

    @property
    def num_rows(self) -> int:
        return len(self.rows.weights)

    @property
    def logits_differ(self) -> bool:
        """Whether the strengths of logits differ. A shift of all logits is then penalised."""
        return jnp.ndim(self.l2) == 2 and len(self.l2) > 1

    most_rows = num_rows

    @property
    def passes(self) -> Passes:
        return Passes(start=1.0, ray=1.0, trial=0.0, product=1.0)

    @property
    def noise(self) -> float:
        return float(jnp.finfo(self.rows.weights.dtype).eps)

    def evaluate(self, v: Affine) -> Point:
        """The point, reached by a step of length 1 from a start that any point improves on.

        So one program is compiled for an evaluation and for a step.
        """
        nowhere = _nowhere(self, v)._replace(value=np.float64(np.inf))
        moved = move(self, nowhere, v, -np.inf, 1.0, 1.0)
        if float(moved.length) == 1:
            return moved.point._replace(params=v)
        # The search went on because the value or the slope at length 1 is not a number.
        return moved.point._replace(params=v, value=np.nan, largest=np.nan)

    def logits(self, point: Point) -> jax.Array:
        """The logits of the oracle's rows, ``(n, K)``, in the dtype of their weights."""
        if not isinstance(point.kept, jax.Array):  # from an oracle that keeps none
            z = lp.logits(self.rows.features, point.params)
        else:
            z = point.kept if self.places is None else point.kept[self.places]
        return z.astype(self.rows.weights.dtype)

    def is_narrow(self, v: Affine) -> bool:
        """Whether the curvature is made in float32, which suffices for a solve to a fifth."""
        rows = self.rows
        large = rows.features.size * len(v.weights) >= _FEWEST_TO_NARROW
        return self.narrows and large and rows.weights.dtype == np.float64

    def exact(self) -> LinearOracle:
        return replace(self, narrows=False)

    def ray(self, point: Point, d: Affine) -> Ray:
        loss, rows, l2 = self.loss, self.rows, self.l2
        v, z = point.params, point.kept
        dz = lp.logits(rows.features, d)
        ww, wd, dd = (_penalty_product(l2, *pair) for pair in ((v, v), (v, d), (d, d)))
        curvature = None
        if self.measures_curvature:
            curvature = lp.curvature_along(loss, z, *rows[1:], dz) + dd

        def at(t):
            near = z + t.astype(z.dtype) * dz
            values, slopes = lp.losses_and_slopes(loss, near, rows.labels)
            by_row = values, jnp.sum(slopes * dz, 1)
            risk, rise = (jnp.sum((rows.weights * x).astype(jnp.float64)) for x in by_row)
            penalty = 0.5 * (ww + 2 * t * wd + t * t * dd)
            return risk + penalty, rise + wd + t * dd

        def arrive(t, value) -> tuple[Point, None]:
            new, near = lp.add_scaled(v, t, d), lp.add_scaled(z, t, dz)
            residuals = lp.slopes(loss, near, *rows[1:])
            g = lp.transpose_product(rows.features, residuals, intercept=v.intercept is not None)
            g = lp.with_ridge(g, l2, new)
            return Point(new, value, g, lp.largest(g), bound_by_strength(l2, g), near), None

        return Ray(at, arrive, curvature)

    def product(self, point: Point) -> Callable:
        z = self.logits(point)
        if mesh.in_use_along(mesh.ROWS) > 1 and not lp.is_softmax(self.loss):
            return partial(self._product_over_mesh, point.params, z)
        maps = lp.curvature(self.loss, z, self.rows.labels)

        def product(d: Affine) -> Affine:
            h = lp.hessian_product(self.rows.features, maps, self.rows.weights, d)
            return lp.with_ridge(h, self.l2, d)

        return product

    def _product_over_mesh(self, v: Affine, z, d: Affine) -> Affine:
        """The product, for which each device makes the curvature of its own rows.

        Automatic differentiation of all rows gives maps that a device cannot use for its own rows.
        """
        h, _ = blocks.reduce(self.rows, blocks.product_block(self.loss), v, z, d)
        return lp.with_ridge(h, self.l2, d)

    def model(
        self, point: Point, size: int, old: Model | None, budget: int, rng: np.random.Generator
    ) -> tuple[Model, float]:
        """The curvature of ``size`` rows, and the passes that it took.

        Rows are drawn where ``size`` is less than their number. The memory of the old model's
        sample may be overwritten. With a ``budget`` the metric has a factor for each logit.
        """
        if self.is_narrow(point.params):
            rows = self.rows._replace(weights=self.rows.weights.astype(np.float32))
            return replace(self, rows=rows).model(point, size, old, budget, rng)
        (n, d), sparse = self.rows.features.shape, is_sparse(self.rows.features)
        num_logits = len(point.params.weights)
        fewer = n if sparse else _enough(max(_GRAM_ROWS * d, _FEWEST_ROWS), n, d**2)
        importance = self._importance(point) if min(size, fewer) < n else None
        known = 0 if old is None else old.block_rows
        many = max((x for x in _BLOCK_ROWS if x >= known and self._price(x) <= budget), default=0)
        if old is not None and many:
            metric, read = self._blocks(point, old.metric.args[0].ignores_shifts, many, rng)
        elif old is not None and known:
            metric, many, read = old.metric, known, 0.0
        else:
            few = None if fewer >= n else draw(self.rows.weights, importance, fewer, rng)
            metric, read = Partial(pre.apply, _gram_metric(self, point, few)), fewer / n
        price = np.inf
        if not (sparse or self.logits_differ) and pre.is_worth_blocks(n, d, num_logits):
            price = self._price(min((x for x in _BLOCK_ROWS if x > many), default=many))
        oracle = self
        if size < n:
            oracle = self._drawn(importance, size, None if old is None else old.oracle, rng)
            read += size / n
        return Model(oracle, metric, many, price), read

    def _price(self, rows_per_feature: int) -> float:
        """The products that take as long as a factor for each logit, made of so many rows."""
        n, d = self.rows.features.shape
        return rows_per_feature * d**2 / (2 * _QUICKER * n)

    def sampled(
        self, point: Point, size: int, old: LinearOracle | None, rng: np.random.Generator
    ) -> LinearOracle:
        """The oracle of ``size`` rows, drawn by their curvature.

        The memory of the old sample may be overwritten.
        """
        return self._drawn(self._importance(point), size, old, rng)

    def _importance(self, point: Point) -> np.ndarray:
        return np.asarray(_row_importance(self, point), np.float64)

    def _drawn(self, importance, size: int, old: LinearOracle | None, rng) -> LinearOracle:
        drawn = draw(self.rows.weights, importance, size, rng)
        room = None if old is None or old.places is None else old.rows.features
        return replace(self, rows=gather(self.rows, drawn, room), places=drawn.places)

    def _blocks(
        self, point: Point, ignores_shifts, rows_per_feature: int, rng
    ) -> tuple[Partial, float]:
        """The metric with a factor for each logit, and the passes that it took.

        The rows of a factor are drawn by their curvature in its logit.
        """
        (n, d), places = self.rows.features.shape, None
        used = _curvatures(self, point)
        num_logits = len(used)
        fewer = _enough(max(rows_per_feature * d, _FEWEST_ROWS), n, num_logits * d**2)
        if fewer < n:
            drawn = [draw(x, x.astype(np.float64), fewer, rng) for x in np.asarray(used)]
            places, used = (np.stack(x) for x in zip(*drawn, strict=True))
        metric = _block_metric(self, point, used, places, ignores_shifts)
        return Partial(pre.apply, metric), num_logits * fewer / n


def bound_by_strength(l2, g: Affine) -> jax.Array:
    """``‖∇_W F‖² / (2 λ)``, a bound on the gap where the intercept is at its minimum; infinite
    without a penalty."""
    squares = g.weights.astype(jnp.float64) ** 2 / (2 * jnp.where(l2 > 0, l2, 1))
    return jnp.where(jnp.all(l2 > 0), jnp.sum(squares), jnp.inf)


def _enough(size: int, n: int, multiplications: int) -> int:
    """The number of rows that a metric is made of, where ``size`` rows would suffice.

    Each row takes ``multiplications``. All rows are used in three cases: a sample of most rows
    saves nothing, drawn rows would have to travel between the devices of a mesh, and an accelerator
    multiplies sooner than the host draws.
    """
    quick = on_accelerator() and n * multiplications <= _MOST_WORK_ON_ACCELERATORS
    return n if mesh.in_use() or quick or 2 * size > n else size


def _penalty_product(l2, a: Affine, b: Affine):
    """``Σ λ a b`` over the weights, the part that is penalised."""
    return jnp.sum(l2 * (a.weights.astype(jnp.float64) * b.weights.astype(jnp.float64)))


@jit_by_shape
def _nowhere(oracle: LinearOracle, v: Affine) -> Point:
    """A point whose parameters and logits are zero and whose value is infinite."""
    weights = oracle.rows.weights
    z = jnp.zeros((len(weights), len(v.weights)), weights.dtype)
    return Point(jax.tree.map(jnp.zeros_like, v), jnp.inf, kept=z * weights[:, None])


@jit_by_shape
def _curvatures(oracle: LinearOracle, point: Point) -> jax.Array:
    """The curvatures ``ωᵢ ℓ″ᵢ[k, k]``, ``(K, n)``."""
    diagonal = lp.curvatures(oracle.loss, oracle.logits(point), oracle.rows.labels)
    return diagonal.T * oracle.rows.weights[None]


@jit_by_shape
def _row_importance(oracle: LinearOracle, point: Point) -> jax.Array:
    """The trace of each row's part of the Hessian in the logits."""
    return jnp.sum(_curvatures(oracle, point), 0)


@jit_by_shape
def _gram_metric(oracle: LinearOracle, point: Point, drawn: Drawn | None) -> pre.Preconditioner:
    """The preconditioner made of the drawn rows, or of all rows, at their logits."""
    rows, z = oracle.rows, oracle.logits(point)
    total = len(z)
    if drawn is not None:
        rows, z = gather(rows, drawn, None), z[drawn.places]
    chosen = pre.kind(len(z), total, rows.features.shape[1], z.shape[1])
    if oracle.logits_differ:
        chosen = "diagonal"
    elif is_sparse(rows.features):
        chosen = pre.kind_of_sparse(rows.features.shape, rows.features.size, z.shape[1])
    diagonal = lp.curvatures(oracle.loss, z, rows.labels)
    ignored = lp.ignores_shifts(lp.curvature(oracle.loss, z, rows.labels), z)
    ignored = ignored & (not oracle.logits_differ)
    return pre.make_preconditioner(
        rows.features,
        rows.weights * jnp.mean(diagonal, 1),
        rows.weights @ diagonal,
        jnp.asarray(oracle.l2, z.dtype),
        ignored,
        intercept=point.params.intercept is not None,
        chosen=chosen,
    )


@jit_by_shape
def _block_metric(
    oracle: LinearOracle, point: Point, used, places, ignores_shifts
) -> pre.Preconditioner:
    """The preconditioner with a factor for each logit; ``used`` are curvatures ``(K, m)`` of the
    rows at ``places``, or of all rows."""
    intercept, features = point.params.intercept is not None, oracle.rows.features

    def factor(one):
        return pre.block_factor(features, *one, oracle.l2, intercept=intercept)

    factors = jax.lax.map(factor, (used, places))
    return pre.Preconditioner(jnp.ones(len(used), used.dtype), ignores_shifts, factors)
