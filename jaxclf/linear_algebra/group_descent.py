"""Descent group by group on a quadratic with norms of groups of its rows.

Like :mod:`jaxclf.linear_algebra.coordinate_descent` it runs on the host's processor.

Source: Yuan and Lin, Model selection and estimation in regression with grouped variables, J. R.
Stat. Soc. B 68 (2006), section 2.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra.coordinate_descent import Minimum
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import to_host

_EPOCHS = 200
"""The most epochs of a descent."""
_ACCURACY = 0.1
"""The share of the first epoch's change, in the norm of the curvature, at which a descent ends."""


class GroupModel(NamedTuple):
    """The quadratic ``⟨G, D⟩ + ½ ⟨D, H D⟩`` in ``D = U - W``, all of them ``(m, K)``."""

    hessian: Any
    """H, ``(m, m)``, with the ridge."""
    w: Any
    g: Any


class Groups(NamedTuple):
    """The groups of consecutive rows of U, filled up to a size for which programs are kept."""

    starts: np.ndarray
    lengths: np.ndarray
    strengths: np.ndarray
    l1: np.ndarray
    count: Any
    longest: int
    """The rows of the longest group; so many rows of zeros come last in U."""


class _Descent(NamedTuple):
    u: Any
    r: Any
    """The slope of the quadratic at u, ``G + H (U - W)``."""
    moved: Any
    first: Any
    whole: Any
    epochs: Any


def minimum(model: GroupModel, groups: Groups) -> Minimum:
    """The minimum of the quadratic and the norms, found on the host's processor."""
    *arrays, longest = groups
    run = _descent(longest, like=(model, arrays))
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return to_host(run(model, *arrays))


@programs_by_shape
def _descent(longest: int):
    return jax.jit(partial(_descended, longest))


def _descended(longest: int, model: GroupModel, starts, lengths, strengths, l1, count) -> Minimum:
    hessian, w, g = model
    among, places = jnp.arange(longest), jnp.arange(len(starts))

    def rows(x, place):
        return jax.lax.dynamic_slice_in_dim(x, starts[place], longest)

    def curvature(place):
        """A bound on the largest eigenvalue of the Hessian of a group."""
        own = jax.lax.dynamic_slice(hessian, (starts[place],) * 2, (longest, longest))
        inside = (among[:, None] < lengths[place]) & (among[None] < lengths[place])
        return jnp.max(jnp.sum(jnp.abs(jnp.where(inside, own, 0)), 1))

    curvatures = jax.lax.map(curvature, places)
    floor = 1e-6 * jnp.max(curvatures) + jnp.finfo(w.dtype).tiny
    curvatures = jnp.maximum(curvatures, floor)

    def one(place, state):
        u, r, _ = state
        own, steepness = rows(u, place), curvatures[place]
        inside = (among < lengths[place])[:, None]
        target = jnp.where(inside, own - rows(r, place) / steepness, 0)
        soft = jnp.sign(target) * jnp.maximum(jnp.abs(target) - l1[place] / steepness, 0)
        norm = jnp.sqrt(jnp.sum(soft * soft))
        kept = jnp.maximum(norm - strengths[place] / steepness, 0) / jnp.where(norm > 0, norm, 1)
        change = jnp.where(inside, kept * soft - own, 0)

        def moved_by(state):
            u, r, moved = state
            across = rows(hessian, place)
            r = r + (across[0][:, None] * change if longest == 1 else across.T @ change)
            u = jax.lax.dynamic_update_slice_in_dim(u, own + change, starts[place], 0)
            return u, r, moved + steepness * jnp.sum(change * change)

        return jax.lax.cond(jnp.any(change != 0), moved_by, lambda state: state, state)

    def epoch(s: _Descent, order, many) -> _Descent:
        def at(k, state):
            return one(order[k], state)

        u, r, moved = jax.lax.fori_loop(0, many, at, (s.u, s.r, jnp.zeros((), w.dtype)))
        return s._replace(u=u, r=r, moved=moved, epochs=s.epochs + 1)

    def used_of(u):
        def used(place):
            inside = (among < lengths[place])[:, None]
            return jnp.any((rows(u, place) != 0) & inside) | (strengths[place] == 0)

        return jax.vmap(used)(places) & (places < count)

    def round_of(s: _Descent) -> _Descent:
        s = epoch(s, places, count)
        s = s._replace(first=jnp.where(s.epochs == 1, s.moved, s.first), whole=s.moved)
        used, before = used_of(s.u), s.moved
        order, many = jnp.argsort(~used, stable=True), jnp.sum(used)

        def unfinished(s):
            return (s.epochs < _EPOCHS) & (s.moved > 1e-2 * before)

        return jax.lax.while_loop(unfinished, lambda s: epoch(s, order, many), s)

    def unfinished(s: _Descent):
        return (s.epochs < _EPOCHS) & (s.whole > _ACCURACY**2 * s.first)

    zero = jnp.zeros((), w.dtype)
    start = _Descent(w, g, zero, zero, zero + jnp.inf, jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(lambda s: (s.epochs == 0) | unfinished(s), round_of, start)

    def penalty(u):
        def of_group(place):
            own = jnp.where((among < lengths[place])[:, None], rows(u, place), 0)
            norm = strengths[place] * jnp.sqrt(jnp.sum(own * own))
            return norm + l1[place] * jnp.sum(jnp.abs(own))

        return jnp.where(
            jnp.arange(len(starts)) < count, jax.vmap(of_group)(jnp.arange(len(starts))), 0
        )

    change = end.u - w
    curved = jnp.sum(change * (hessian @ change))
    lower = jnp.sum((penalty(w) - penalty(end.u)).astype(jnp.float64))
    promised = lower - jnp.sum((g * change).astype(jnp.float64)) - curved / 2
    return Minimum(change, promised, curved)
