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
from jaxclf.inference.fitted import Fit, fit_of
from jaxclf.inference.influence import influence_of
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine
from jaxclf.objectives import Batch, Objective
from jaxclf.promotion import standard_promotion
from jaxclf.solvers.inputs import params_like
from jaxclf.solvers.solve import solve

INTERVALS = ("percentile", "bca")
_NUMBERS_AT_ONCE = 2**24
"""The most numbers, of products with the Hessians of the lanes, that are held at once: 128 MiB."""


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
    point; rounding is not in it. It is infinite where the refit has no minimum."""
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
    rows and are lanes of one program, ``vmap`` of :func:`jaxclf.solve`. Each has a bound on its
    gap.

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
    checks.check_number("draws", draws, at_least=2)
    checks.check_number("level", level, above=0, at_most=1 - 1e-12)
    fit = fit_of(objective, params, batch)
    n = len(fit.weights)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), "uint32")))
    counts = rng.multinomial(n, np.full(n, 1 / n), draws)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        like = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        start = jax.tree.map(jnp.asarray, params_like(like, fit.params))

        def of(p):
            found = lp.stacked(_matrices(p)) if statistic is None else statistic(p)
            return jnp.ravel(jnp.asarray(found, jnp.float64))

        run = jax.jit(jax.vmap(partial(_lane, objective, fit, of, start), (0, None)))
        rows = jax.tree.map(jnp.asarray, (fit.rows.features, fit.rows.labels))
        size = max(1, _NUMBERS_AT_ONCE // (n * fit.inverse.shape[0] * fit.logits.shape[1]))
        size = min(size, draws)
        # Every call has as many lanes, so that one program serves; the last ones may repeat.
        starts = [*range(0, draws - size + 1, size)]
        starts += [draws - size] * (starts[-1] + size < draws)
        replicates, gaps = np.empty((draws, len(of(start)))), np.empty(draws)
        for first in starts:
            part = slice(first, first + size)
            replicates[part], gaps[part] = run(counts[part] * fit.weights, rows)
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


def _bca(replicates, estimate: float, moved, tails) -> np.ndarray:
    """The quantiles of the corrected interval (Efron and Tibshirani, equations 14.10 to 14.15)."""
    below = np.mean(replicates < estimate) + np.mean(replicates == estimate) / 2
    bias = special.ndtri(np.clip(below, 0.5 / len(replicates), 1 - 0.5 / len(replicates)))
    acceleration = np.sum(moved**3) / (6 * np.sum(moved**2) ** 1.5)
    z = bias + special.ndtri(tails)
    return special.ndtr(bias + z / (1 - acceleration * z))


def _matrices(params) -> Affine:
    weights, b = params
    return Affine(jnp.atleast_2d(weights), None if b is None else jnp.atleast_1d(b))


def _lane(objective: Objective, fit: Fit, of: Callable, start, weights, rows):
    """The statistic of one refit, and the bound on its gap."""
    features, labels = rows
    found = solve(objective, start, Batch(features, labels, weights), max_steps=50)
    return of(found), _gap(fit, _matrices(found), features, labels, weights / jnp.sum(weights))


def _gap(fit: Fit, v: Affine, features, labels, shares):
    """The bound of :mod:`jaxclf.certificates.local_bound`, without rounding."""
    if fit.self_concordance is None:
        return jnp.asarray(jnp.inf)
    x, intercept = features.astype(v.weights.dtype), v.intercept is not None
    z = lp.affine_map(v)(x)
    slopes = lp.slopes(fit.loss, z, labels, shares)
    g = lp.with_ridge(Affine(slopes.T @ x, jnp.sum(slopes, 0) if intercept else None), fit.l2, v)
    hessian = lp.block_hessian(fit.loss, x, z, labels, shares, None, intercept=intercept)
    K, d = v.weights.shape
    width = d + intercept
    ridge = np.append(np.full(d, fit.l2), [0.0] * intercept)
    unseen = jnp.where(ridge == 0, jnp.diagonal(hessian).reshape(K, width).mean(0), 0)
    hessian = hessian + jnp.diag(np.tile(ridge, K))
    if fit.ignores_shifts:
        hessian = hessian + jnp.kron(jnp.full((K, K), 1 / K), jnp.diag(unseen))
    inverse = jnp.linalg.inv(hessian)
    flat = lp.stacked(g).ravel()
    squared = jnp.maximum(flat @ inverse @ flat, 0)
    design = jnp.pad(x, ((0, 0), (0, int(intercept))), constant_values=1.0)
    parts = inverse.reshape(K, width, K, width)
    longest = jnp.stack([jnp.sum(design @ parts[k, :, k] * design, 1) for k in range(K)])
    longest = jnp.max(jnp.where(shares[None] > 0, longest, 0))
    q = fit.self_concordance * jnp.sqrt(longest * squared)
    return jnp.where(q < 1, squared * growth(q), jnp.inf)
