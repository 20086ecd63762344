"""The spectrum of a Hessian that is too large to write down, from its products with vectors.

Products read the rows in chunks, so that host arrays, memory maps among them, need not fit on the
device. Largest and smallest eigenpairs are ARPACK's; the density is Lanczos quadrature.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree

from jaxclf import checks
from jaxclf.objectives import Batch, Objective, check_rows, plus_offset
from jaxclf.penalties import penalty_value
from jaxclf.sparse_rows import check_dense

_ROWS = 8192
WHICH = {"largest": "LA", "smallest": "SA", "both": "BE", "magnitude": "LM"}

Product = Callable[[Any, Any], Any]
"""A function ``(params, direction) -> direction``, which returns a pytree like its direction."""


class Eigenpairs(NamedTuple):
    """Eigenvalues in ascending order, and their unit eigenvectors."""

    values: np.ndarray
    """The eigenvalues, ``(k,)`` float64."""
    vectors: Any
    """The eigenvectors: a pytree like the directions, with a first axis of length k."""


class Density(NamedTuple):
    """Gauss quadrature of the spectral measure, averaged over probes."""

    nodes: np.ndarray
    """The Ritz values, ``(probes, steps)``."""
    weights: np.ndarray
    """The weights of the nodes, ``(probes, steps)``; they sum to one in each row."""

    def at(self, grid: np.ndarray, width: float) -> np.ndarray:
        """The density on a grid, each node a Gaussian of standard deviation ``width``."""
        bumps = np.exp(-0.5 * ((np.asarray(grid)[:, None, None] - self.nodes) / width) ** 2)
        total = np.sum(bumps * self.weights, (1, 2)) / len(self.nodes)
        return total / (width * np.sqrt(2 * np.pi))

    def moment(self, order: int) -> float:
        """An estimate of ``tr(Hᵒ) / P``."""
        return float(np.mean(np.sum(self.weights * self.nodes**order, 1)))


def hessian_product(objective: Objective, batch: Batch, *, rows_at_once: int = _ROWS) -> Product:
    """``∇²F(params) v`` of ``F = Σ ωᵢ lossᵢ + penalty``, by a forward sweep over a reverse one.

    Args:
      objective: an objective from :func:`jaxclf.make_objective`.
      batch: rows, on the device or the host.
      rows_at_once: the rows of a chunk, which bound the memory.

    Source: Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994).
    """

    def part(params, v, rows: Batch):
        def value(p):
            return jnp.sum(rows.weights * objective.per_example(p, rows._replace(weights=None)))

        return jax.jvp(jax.grad(value), (params,), (v,))[1]

    return _summed(part, objective, batch, rows_at_once)


def gauss_newton_product(
    objective: Objective, batch: Batch, *, rows_at_once: int = _ROWS
) -> Product:
    """``(Σ ωᵢ Jᵢᵀ ℓ″ᵢ Jᵢ + penalty″) v``, J the Jacobian of the logits in the parameters.

    The matrix is the Hessian where the logits are affine, and never has negative curvature where
    the loss is convex in them. The arguments are those of :func:`hessian_product`.

    Source: Schraudolph, Fast curvature matrix-vector products, Neural Computation 14 (2002).
    """

    def part(params, v, rows: Batch):
        def logits(p):
            z = jax.vmap(objective.logits_fn, (None, 0))(p, rows.features)
            return z if rows.offset is None else plus_offset(z, rows.offset)

        def bend(z, u, label, weight):
            slope = jax.grad(lambda z: objective.loss(z, label))
            return weight * jax.jvp(slope, (z,), (u,))[1]

        z, u = jax.jvp(logits, (params,), (v,))
        bent = jax.vmap(bend)(z, u, rows.labels, rows.weights)
        return jax.vjp(logits, params)[1](bent)[0]

    return _summed(part, objective, batch, rows_at_once)


def _summed(part: Callable, objective: Objective, batch: Batch, rows_at_once: int) -> Product:
    """A product that sums ``part`` over chunks of rows and adds the product of the penalty."""
    checks.check_number("rows_at_once", rows_at_once, at_least=1)
    check_dense("a spectrum", batch.features)
    check_rows(batch)
    n = len(batch.labels)
    given = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    shares, part = given / given.sum(), jax.jit(part)

    @jax.jit
    def of_penalty(params, v):
        slope = jax.grad(lambda p: penalty_value(objective.penalty, p))
        return jax.jvp(slope, (params,), (v,))[1]

    def product(params, v):
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        total = jax.tree.map(jnp.zeros_like, v)
        if objective.penalty is not None:
            total = of_penalty(params, v)
        for first in range(0, n, rows_at_once):
            chunk = slice(first, first + rows_at_once)
            rows = Batch(
                jax.tree.map(lambda x, c=chunk: jnp.asarray(x[c]), batch.features),
                jnp.asarray(batch.labels[chunk]),
                jnp.asarray(shares[chunk], dtype),
                None if batch.offset is None else jnp.asarray(batch.offset[chunk]),
            )
            total = jax.tree.map(jnp.add, total, part(params, v, rows))
        return total

    return product


def layer_products(product: Product, params: dict) -> dict[str, Product]:
    """The product with the diagonal block of each top-level entry, such as a layer of a Flax model.

    Returns:
      ``{name: (params, direction of that entry) -> direction}``.
    """

    def of_layer(name: str, params, v):
        whole = jax.tree.map(jnp.zeros_like, params) | {name: v}
        return product(params, whole)[name]

    return {name: partial(of_layer, name) for name in params}


def eigenpairs(
    product: Product,
    params,
    count: int,
    *,
    key,
    which: str = "largest",
    tol: float = 1e-6,
    max_restarts: int | None = None,
    like=None,
) -> Eigenpairs:
    """Extreme eigenpairs of a symmetric product, by restarted Lanczos iteration.

    Args:
      product: a product, from :func:`hessian_product` for instance.
      params: the point at which the product is taken.
      count: k, less than the number of parameters.
      key: the random key of the first direction; the result depends on it by rounding alone.
      which: ``largest``, ``smallest``, ``both`` ends (an odd one is from the top) or by
        ``magnitude``.
      tol: the relative tolerance of the eigenvalues; at the lower end it is relative to the size of
        the Hessian. Rounding to float32 allows 1e-6 or so.
      max_restarts: the most restarts of the iteration; by default ten for each parameter.
      like: a pytree like a direction, if that is not like the parameters: an entry of them, for a
        product of :func:`layer_products`.

    Raises:
      ValueError: a count or an end that there is not.
      RuntimeError: the iteration did not converge.

    Source: Lehoucq, Sorensen and Yang, ARPACK Users' Guide (1998).
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    checks.check_option("which", which, WHICH)
    multiply, size, unravel, dtype = _flat(product, params, params if like is None else like)
    if not 1 <= count < size:
        raise ValueError(f"count must be at least 1 and below {size} parameters, got {count}")
    first = np.asarray(jax.random.normal(key, (size,), dtype), np.float64)
    # ARPACK starts in the range of the operator: with a singular one it would miss the zeros.
    image = multiply(first / np.linalg.norm(first))
    shift = float(np.linalg.norm(image)) if which in ("smallest", "both") else 0.0
    operator = LinearOperator(
        (size, size), matvec=lambda v: multiply(v) + shift * v.reshape(-1), dtype=np.float64
    )
    try:
        values, vectors = eigsh(
            operator, count, which=WHICH[which], v0=first, tol=tol, maxiter=max_restarts
        )
    except ArpackNoConvergence as error:
        raise RuntimeError(f"the eigenvalues did not converge: {error}") from None
    values = values - shift
    order = np.argsort(values)
    stacked = [unravel(jnp.asarray(vectors[:, i], dtype)) for i in order]
    return Eigenpairs(values[order], jax.tree.map(lambda *x: np.stack(x), *stacked))


def spectral_density(
    product: Product, params, *, key, num_probes: int = 4, num_steps: int = 64
) -> Density:
    """The distribution of the eigenvalues, from a few random probes.

    Lanczos iteration from a random unit vector gives a quadrature of its spectral measure that is
    exact for polynomials of degree ``2 num_steps - 1``. Their average over probes is the density.

    Args:
      product: a product, from :func:`hessian_product` for instance.
      params: the point at which the product is taken.
      key: the random key of the probes.
      num_probes: the number of probes.
      num_steps: the number of products for each probe.

    Source: Lin, Saad and Yang, Approximating spectral densities of large matrices, SIAM Review 58
    (2016), section 3.2.
    """
    from scipy.linalg import eigh_tridiagonal

    checks.check_number("num_probes", num_probes, at_least=1)
    checks.check_number("num_steps", num_steps, at_least=1)
    multiply, size, _, dtype = _flat(product, params, params)
    steps = min(num_steps, size)
    nodes, weights = np.zeros((num_probes, steps)), np.zeros((num_probes, steps))
    for i, probe_key in enumerate(jax.random.split(key, num_probes)):
        probe = np.asarray(jax.random.normal(probe_key, (size,), dtype), np.float64)
        diagonal, beside = _lanczos(multiply, probe, steps)
        values, vectors = eigh_tridiagonal(diagonal, beside)
        # A row has fewer nodes where the probe's own subspace ends: the rest has weight zero.
        nodes[i, : len(values)], weights[i, : len(values)] = values, vectors[0] ** 2
    return Density(nodes, weights)


def _lanczos(multiply: Callable, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The diagonal and off-diagonal of ``Qᵀ H Q``, with full reorthogonalisation."""
    basis = np.zeros((steps, len(start)))
    basis[0] = start / np.linalg.norm(start)
    diagonal, beside = [], []
    for j in range(steps):
        image = multiply(basis[j])
        diagonal.append(basis[j] @ image)
        for _ in range(2):  # one pass would leave what rounding lets through
            image = image - basis[: j + 1].T @ (basis[: j + 1] @ image)
        length = np.linalg.norm(image)
        if j + 1 == steps or length <= 1e-10 * max(map(abs, diagonal)):
            break
        beside.append(length)
        basis[j + 1] = image / length
    return np.array(diagonal), np.array(beside)


def _flat(product: Product, params, like):
    """The product on float64 host vectors, their length, the way back, and the dtype inside."""
    flat, unravel = ravel_pytree(like)

    def multiply(v: np.ndarray) -> np.ndarray:
        found = product(params, unravel(jnp.asarray(v.reshape(-1), flat.dtype)))
        return np.asarray(ravel_pytree(found)[0], np.float64)

    return multiply, len(flat), unravel, flat.dtype


def dense_eigenpairs(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All eigenvalues of a symmetric matrix on the host, in rising order, and its eigenvectors.

    LAPACK's divide and conquer is the fastest way, but it fails on rare matrices whose eigenvalues
    repeat hundreds of times. Its QR iteration takes nine times as long and does not fail there.
    """
    try:
        return np.linalg.eigh(matrix)
    except np.linalg.LinAlgError:
        return scipy.linalg.eigh(matrix, driver="ev")
