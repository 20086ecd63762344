"""A bound on the gap of a point from the inverse of the Hessian there, for many parameters.

With ``ν² = gᵀ A⁻¹ g``, and R the self-concordance times the largest ``‖e_k ⊗ x̃ᵢ‖`` in the norm of
A⁻¹, the gap is at most ``ν² growth(ν R)``, see :mod:`jaxclf.certificates.local_bound`, which also
bounds the rounding of A⁻¹, at more cost. Here ν has the rounding of the gradient to first order,
and R is taken from ``Σⱼ |x̃ᵢⱼ| √(A⁻¹)ⱼⱼ``, which no such length exceeds.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.certificates.duality import Known
from jaxclf.certificates.local_bound import growth
from jaxclf.inference.hessian import stacked, unflattened
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import to_host

_OPERATIONS = 32
"""The roundings of a slope, beside those of the sums before and after it."""


def gap_by_inverse(
    loss: Callable, rows: Rows, v: Affine, gradient: np.ndarray, inverse: np.ndarray, known: Known
) -> float:
    """The bound at a point with this gradient, infinite where ``ν R`` is not below one."""
    roots = np.sqrt(np.diagonal(inverse))
    lengths = unflattened(roots, v)
    sizes, longest = to_host(_sizes(loss, like=(rows, v))(rows, v, lengths))
    unit = (len(rows.weights) + rows.features.shape[1] + _OPERATIONS) * np.finfo(np.float64).eps
    nu = np.sqrt(max(gradient @ inverse @ gradient, 0.0)) + unit * stacked(sizes).ravel() @ roots
    q = known.self_concordance * longest * nu
    return float(nu**2 * growth(q)) if q < 1 else np.inf


@programs_by_shape
def _sizes(loss: Callable) -> Callable:
    """What relative errors of all terms may change in the gradient, and the largest length."""

    def at(rows: Rows, v: Affine, lengths: Affine):
        z = lp.logits(rows.features, v)
        sizes = rows._replace(features=jnp.abs(rows.features))
        terms = lp.logits(sizes.features, jax.tree.map(jnp.abs, v)) + lp.offset_size(z, rows.labels)
        curved = jnp.abs(lp.logit_hessians(loss, z, rows.labels))
        slopes = 1 + jnp.abs(jax.vmap(jax.grad(loss))(z, rows.labels))
        slopes = slopes + jnp.einsum("nkj,nj->nk", curved, terms)
        weighted = slopes * rows.weights[:, None]
        found = lp.transpose_product(sizes.features, weighted, intercept=v.intercept is not None)
        reach = lp.logits(sizes.features, lengths)
        return found, jnp.max(jnp.where(rows.weights[:, None] > 0, reach, 0))

    return jax.jit(at)
