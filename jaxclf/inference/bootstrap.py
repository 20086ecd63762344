"""The bootstrap: refits to rows drawn with replacement, as lanes of one program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxclf import checks
from jaxclf.certificates.local_bound import growth
from jaxclf.inference.fitted import fit_of, in_users_units, users_params
from jaxclf.inference.influence import influence_of
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine
from jaxclf.objectives import Batch, Objective
from jaxclf.programs import programs_by_shape
from jaxclf.promotion import standard_promotion
from jaxclf.solvers.inputs import params_like

INTERVALS = ("percentile", "bca")
_NUMBERS_AT_ONCE = 2**24
"""The most numbers of the curvatures of the lanes' rows, of their Hessians, or of products of pairs
of columns, that are held at once: 128 MiB."""

_SETTLED = 1e-10
"""The squared Newton decrement from which the last step is made. A step about cubes it."""
_MOST_STEPS = 50
_OPERATIONS = 32
"""The roundings of a slope, beside those of the sums before and after it."""


class Bootstrap(NamedTuple):
    """The statistic of many refits."""

    estimate: np.ndarray
    """The statistic of the fit, ``(m,)``."""
    replicates: np.ndarray
    """The statistic of each refit, ``(draws, m)``; NaN where the refit has no minimum."""
    standard_error: np.ndarray
    """The standard deviation of the finite replicates, ``(m,)``."""
    lower: np.ndarray
    upper: np.ndarray
    gap_bounds: np.ndarray
    """A bound on each refit's objective less its minimum, ``(draws,)``, by the Hessian at the
    point, with the rounding of the gradient to first order. It is infinite where the refit has no
    minimum."""
    interval: str
    level: float


@standard_promotion
def bootstrap(
    objective: Objective,
    params: Any,
    batch: Batch,
    key: Any,
    *,
    draws: int = 1000,
    statistic: Callable | None = None,
    interval: str = "percentile",
    level: float = 0.95,
) -> Bootstrap:
    """Refits to ``draws`` samples of the rows, drawn with replacement, and intervals from them.

    A sample is a weighting of the rows by how often each was drawn, so that all refits share the
    rows and are lanes of one program. Each has a bound on its gap.

    - ``percentile``: quantiles of the replicates.
    - ``bca``: quantiles that are corrected for bias and for how the error changes with the
      statistic (acceleration), which comes from the exact influence of the rows.

    Args:
      objective: an objective of :func:`jaxclf.make_objective` with the logits of
        :func:`jaxclf.models.linear.logits`, and with an L2 penalty or none.
      params: a fit, or a start.
      batch: the rows, in memory. Weights multiply how often a row was drawn.
      key: a JAX random key.
      draws: the number of refits.
      statistic: ``params -> (m,)`` or ``()``, a differentiable function of float64 parameters in
        the form of ``params``. By default the parameters as ``(K (d + 1),)``, the intercept of each
        logit last.
      interval: ``percentile`` or ``bca``.
      level: the probability of the intervals.

    Raises:
      TypeError, ValueError: as :func:`jaxclf.inference.infer`; options that do not exist; too many
        refits without a minimum, as where a sample is separated without a penalty.

    Example:
      >>> import jax, numpy as np
      >>> from jaxclf import losses, make_batch, make_objective, penalties
      >>> from jaxclf.models import linear
      >>> x = np.arange(20.0)[:, None] / 10
      >>> batch = make_batch(x, (np.arange(20) * 7 % 20 < np.arange(20)).astype(int))
      >>> objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(0.01))
      >>> start = linear.LinearParams(np.zeros(1), np.zeros(()))
      >>> found = bootstrap(objective, start, batch, jax.random.key(0), draws=50)
      >>> print(found.replicates.shape, bool((found.gap_bounds < 1e-9).all()))
      (50, 2) True

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), sections 13 and 14.
    """
    checks.check_option("interval", interval, INTERVALS)
    checks.check_integer("draws", np.array(draws))
    checks.check_number("draws", draws, at_least=2)
    checks.check_number("level", level, above=0, at_most=1 - 1e-12)
    fit = fit_of(objective, params, batch)
    n, concordance = len(fit.weights), fit.self_concordance
    if concordance is None:
        raise ValueError("the loss must have a known self_concordance, see jaxclf.state_facts")
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), "uint32")))
    counts = _counts(rng, n, draws)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        like = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        start = jax.tree.map(jnp.asarray, params_like(like, users_params(fit)))

        def of(p):
            found = lp.stacked(_matrices(p)) if statistic is None else statistic(p)
            return jnp.ravel(jnp.asarray(found, jnp.float64))

        run = _lanes(fit.loss, fit.ignores_shifts, concordance, like=(fit.params, counts.shape))
        ridge = fit.ridge.reshape(len(fit.params.weights), -1)
        size = max(1, _NUMBERS_AT_ONCE // max(n * len(ridge) ** 2, ridge.size**2))
        thetas, gaps = [], []
        for first in range(0, draws, size):
            shares = counts[first : first + size] * fit.weights
            # A sample may have rows without weight alone. It has no minimum.
            shares = shares / np.maximum(shares.sum(1, keepdims=True), np.finfo(float).tiny)
            theta, gap = run(fit.params, *fit.rows[:2], shares, ridge)
            thetas.append(np.asarray(theta))
            gaps.append(np.asarray(gap))
        thetas, gaps = np.concatenate(thetas), np.concatenate(gaps)
        thetas[~np.isfinite(gaps)] = np.nan
        thetas = in_users_units(fit, thetas.ravel()).reshape(thetas.shape)
        if statistic is None:
            replicates = thetas.reshape(draws, -1)
        else:
            replicates = np.asarray(jax.jit(jax.vmap(lambda t: of(_in_form(start, t))))(thetas))
        estimate = np.asarray(of(start))
    kept = np.isfinite(replicates).all(1)
    if kept.sum() < max(2, 0.9 * draws):
        raise ValueError(
            f"{draws - kept.sum()} of {draws} refits have no minimum, as their samples are "
            "separated: add an L2 penalty"
        )
    used = replicates[kept]
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if interval == "bca":
        each = [influence_of(fit, like, lambda p, j=j: of(p)[j]) for j in range(len(estimate))]
        shares = np.stack([_bca(u, e, i * fit.weights, tails) for u, e, i in
                           zip(used.T, estimate, each, strict=True)])  # fmt: skip
    else:
        shares = np.broadcast_to(tails, (len(estimate), 2))
    ends = np.stack([np.quantile(u, share) for u, share in zip(used.T, shares, strict=True)])
    return Bootstrap(
        estimate, replicates, used.std(0, ddof=1), ends[:, 0], ends[:, 1], gaps, interval, level
    )


def _counts(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """How often each of n rows is drawn, ``(draws, n)``."""
    drawn = rng.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * draws).reshape(draws, n)


def _bca(replicates, estimate: float, moved, tails) -> np.ndarray:
    """The quantiles of the corrected interval (Efron and Tibshirani, equations 14.10 to 14.15)."""
    below = np.mean(replicates < estimate) + np.mean(replicates == estimate) / 2
    bias = special.ndtri(np.clip(below, 0.5 / len(replicates), 1 - 0.5 / len(replicates)))
    acceleration = np.sum(moved**3) / (6 * np.sum(moved**2) ** 1.5)
    z = bias + special.ndtri(tails)
    return special.ndtr(bias + z / (1 - acceleration * z))


def _in_form(like, theta):
    """Parameters in the form of ``like`` from a stacked matrix."""
    d = like.weights.shape[-1]
    weights = theta[:, :d].reshape(like.weights.shape)
    b = None if like.intercept is None else theta[:, d].reshape(jnp.shape(like.intercept))
    return like._replace(weights=weights, intercept=b)


def _matrices(params) -> Affine:
    weights, b = params
    return Affine(jnp.atleast_2d(weights), None if b is None else jnp.atleast_1d(b))


@programs_by_shape
def _lanes(loss: Callable, ignores_shifts: bool, concordance: float) -> Callable:
    """The refits of lanes ``(L, n)`` of weights that sum to one: ``(thetas, gap bounds)``.

    Each is Chebyshev's method: with s the step of Newton's and T the third derivative, a step is
    ``s + ½ H⁻¹ T[s, s]``, which takes no further exponentials. Where it does not lower the
    decrement, the step is Newton's with the length ``log(1 + q) / q``, where q is the concordance
    times the largest change of a logit (Sun and Tran-Dinh, 2019). That needs no value.
    The products of pairs of columns are made once, where they are few, so that the Hessians of all
    lanes are one product.
    """

    def refit(v: Affine, features, labels, shares, ridge):
        K, width, lanes = len(v.weights), ridge.shape[1], len(shares)
        x = features.astype(ridge.dtype)
        x = jnp.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=1.0)
        pairs = None
        if len(x) * width**2 <= _NUMBERS_AT_ONCE:
            pairs = (x[:, :, None] * x[:, None, :]).reshape(len(x), width * width)
        shifts = jnp.full((K, K), 1 / K) * ignores_shifts

        def of_rows(theta):
            z = jnp.einsum("lkd,nd->lnk", theta, x)
            each = jax.vmap(jax.vmap(jax.grad(loss)), (0, None))(z, labels)
            return each, jax.vmap(partial(lp.logit_hessians, loss), (0, None))(z, labels)

        def squares(weights):
            """``Σᵢ wᵢ x̃ᵢ x̃ᵢᵀ`` of weights ``(L, n, K, K)``."""
            if pairs is not None:
                found = jnp.einsum("lnkj,np->lkjp", weights, pairs)
            else:
                weights = weights.transpose(0, 2, 3, 1).reshape(-1, len(x))
                found = jax.lax.map(lambda w: (w[:, None] * x).T @ x, weights)
            return found.reshape(lanes, K, K, width, width)

        def squared_lengths(blocks):
            """``x̃ᵢᵀ B x̃ᵢ`` of blocks ``(L, K, D, D)``, as ``(L, K, n)``."""
            if pairs is not None:
                return jnp.einsum("lkp,np->lkn", blocks.reshape(lanes, K, -1), pairs)
            found = jax.lax.map(
                lambda b: jnp.sum(x @ b * x, 1), blocks.reshape(lanes * K, width, width)
            )
            return found.reshape(lanes, K, -1)

        def gradient(slopes, theta, x, ridge):
            return jnp.einsum("lnk,nd->lkd", slopes * shares[..., None], x) + ridge[None] * theta

        def third(theta, moved):
            """``ℓ‴ᵢ[m, m]`` of rows whose logits move by m, ``(L, n, K)``."""

            def along(z, m, label):
                def slopes_along(z):
                    return jax.jvp(lambda z: jax.grad(loss)(z, label), (z,), (m,))[1]

                return jax.jvp(slopes_along, (z,), (m,))[1]

            z = jnp.einsum("lkd,nd->lnk", theta, x)
            if len(z) == 1:  # all lanes are at one point
                return jax.vmap(jax.vmap(along), (None, 0, None))(z[0], moved, labels)
            return jax.vmap(jax.vmap(along), (0, 0, None))(z, moved, labels)

        def from_half(factor, root, half):
            """``H⁻¹ b`` from the solution of the lower half."""
            found = jax.lax.linalg.triangular_solve(
                factor, half, left_side=True, lower=True, transpose_a=True
            )
            return (found[..., 0] / root).reshape(lanes, K, width)

        def at(theta):
            each, curved = of_rows(theta)
            g = gradient(each, theta, x, ridge)
            H = squares(curved * shares[..., None, None])
            seen = jnp.einsum("lkkdd->ld", H) / K
            unseen = jnp.where((ridge == 0).all(0), 1.0, 0.0)[None] * seen
            H = H + jnp.einsum("kj,ld,de->lkjde", shifts, unseen, jnp.eye(width))
            H = H + jnp.einsum("kj,kd,de->kjde", jnp.eye(K), ridge, jnp.eye(width))[None]
            matrix = H.transpose(0, 1, 3, 2, 4).reshape(lanes, K * width, K * width)
            root = jnp.sqrt(jnp.einsum("lpp->lp", matrix))
            factor = jnp.linalg.cholesky(matrix / root[:, :, None] / root[:, None])
            scaled = (g.reshape(lanes, -1) / root)[..., None]
            half = jax.lax.linalg.triangular_solve(factor, scaled, left_side=True, lower=True)
            squared = jnp.sum(half**2, (1, 2))
            step = from_half(factor, root, half)
            # Half of the third derivative along the step, by which the gradient is then left.
            bent = third(theta, jnp.einsum("lkd,nd->lnk", step, x))
            bent = jnp.einsum("lnk,nd->lkd", bent * shares[..., None] / 2, x)
            scaled = (bent.reshape(lanes, -1) / root)[..., None]
            half = jax.lax.linalg.triangular_solve(factor, scaled, left_side=True, lower=True)
            bend = from_half(factor, root, half)
            return matrix / root[:, :, None] / root[:, None], root, (step, bend), squared

        def roundoff(theta, inverse):
            """The length of the gradient's rounding errors in the norm of the inverse Hessian."""
            each, curved = of_rows(theta)
            terms = jnp.einsum("lkd,nd->lnk", jnp.abs(theta), jnp.abs(x))
            terms = jax.vmap(lambda z: z + lp.offset_size(z, labels))(terms)
            slopes = 1 + jnp.abs(each) + jnp.einsum("lnkj,lnj->lnk", jnp.abs(curved), terms)
            sizes = gradient(slopes, jnp.abs(theta), jnp.abs(x), ridge)
            unit = (len(x) + width + _OPERATIONS) * jnp.finfo(x.dtype).eps
            roots = jnp.sqrt(jnp.einsum("lpp->lp", inverse))
            return unit * jnp.sum(sizes.reshape(lanes, -1) * roots, 1)

        def whole(good, _):
            return jnp.ones(lanes, x.dtype)

        def shortened(good, step):
            largest = jnp.max(jnp.abs(jnp.einsum("lkd,nd->lnk", step, x)), (1, 2))
            q = jnp.maximum(concordance * largest, 1e-12)
            return jnp.where(good, 1.0, jnp.log1p(q) / q)

        def moved_by(theta, step, bend, length):
            bend = jnp.where((length < 1)[:, None, None], 0, bend)
            return theta - length[:, None, None] * step - bend

        def body(carry):
            theta, (step, bend), squared, length, count = carry
            tried = moved_by(theta, step, bend, length)
            _, _, steps, then = at(tried)
            good = ~(then >= squared) | (length < 1)
            old = theta, step, bend
            new = tried, *steps
            theta, *steps = (
                jnp.where(good[:, None, None], a, b) for a, b in zip(new, old, strict=True)
            )
            length = jax.lax.cond(jnp.all(good), whole, shortened, good, steps[0])
            return theta, tuple(steps), jnp.where(good, then, squared), length, count + 1

        def unfinished(carry):
            *_, squared, _, count = carry
            return jnp.any(squared > _SETTLED) & (count < _MOST_STEPS)

        # All lanes start from one point, whose logits and slopes are computed once.
        start = lp.stacked(v)[None]
        _, _, steps, squared = at(start)
        start = jnp.broadcast_to(start, steps[0].shape)
        begin = start, steps, squared, jnp.ones_like(squared), 1
        theta, steps, _, length, _ = jax.lax.while_loop(unfinished, body, begin)
        theta = moved_by(theta, *steps, length)
        matrix, root, _, squared = at(theta)
        inverse = jnp.linalg.inv(matrix) / root[:, :, None] / root[:, None]
        decrement = jnp.sqrt(squared) + roundoff(theta, inverse)
        squared = decrement**2
        blocks = inverse.reshape(lanes, K, width, K, width)
        lengths = squared_lengths(jnp.einsum("lkdke->lkde", blocks))
        longest = jnp.max(jnp.where(shares[:, None] > 0, lengths, 0), (1, 2))
        q = concordance * jnp.sqrt(longest * squared)
        return theta, jnp.where(q < 1, squared * growth(q), jnp.inf)

    return jax.jit(refit)
