"""The function under test as a scalar function of one flat vector.

``theta`` is the float64 vector of all floating entries of the chosen arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_JITTED = type(jax.jit(lambda: None))


class Leaf(NamedTuple):
    """The place of one floating array of the arguments in ``theta``."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    start: int
    stop: int

    def coordinate(self, index: int) -> str:
        """``theta[index]`` as the user would write it: ``args[0]['w'][2, 3]``."""
        position = np.unravel_index(index - self.start, self.shape) if self.shape else ()
        return self.name + (f"[{', '.join(str(int(i)) for i in position)}]" if position else "")


class Layout(NamedTuple):
    """The plan by which ``theta`` and the other arrays make up the arguments.

    A layout is hashable, so jit can key on it.
    """

    treedef: Any
    kinds: tuple
    """For each leaf of the arguments a :class:`Leaf`, an index into ``data``, or ``(value,)``."""
    scalar_only: bool
    """Whether an array output is refused, because a supplied gradient knows no cotangent."""

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        return tuple(kind for kind in self.kinds if isinstance(kind, Leaf))

    def split(self, theta) -> list:
        """``theta`` as one array per leaf."""
        return [theta[leaf.start : leaf.stop].reshape(leaf.shape) for leaf in self.leaves]

    def arguments(self, parts, data) -> tuple:
        """The arguments with their floating leaves replaced by ``parts``."""
        parts = iter(parts)

        def fill(kind):
            if isinstance(kind, Leaf):
                return next(parts)
            return data[kind] if isinstance(kind, int) else kind[0]

        return self.treedef.unflatten([fill(kind) for kind in self.kinds])


class Problem(NamedTuple):
    """A function, the point at which its derivatives are tested, and what was left out."""

    fn: Callable
    layout: Layout
    theta: np.ndarray
    """The point, ``(n,)`` float64; each entry is representable in its leaf's dtype."""
    data: list
    scales: np.ndarray
    """The size of each coordinate, ``(n,)``, at least a tenth of its array's median; 1 if all are
    0."""
    skipped: tuple[str, ...]
    """Chosen leaves without a derivative: integers, booleans, empty arrays."""
    argnums: tuple[int, ...]

    def native_parts(self, theta) -> list:
        """``theta`` as arrays in the dtypes under test."""
        parts = self.layout.split(theta)
        return [p.astype(leaf.dtype) for p, leaf in zip(parts, self.layout.leaves, strict=True)]

    def round(self, theta) -> np.ndarray:
        """``theta`` rounded to what the dtypes under test can represent."""
        return concatenate(self.native_parts(theta))

    def name(self, index: int) -> str:
        """The coordinate ``theta[index]`` as the user would write it."""
        leaf = next(leaf for leaf in self.layout.leaves if leaf.start <= index < leaf.stop)
        return leaf.coordinate(index)


def make_problem(
    fn: Callable, args: tuple, argnums: tuple[int, ...] | None, *, scalar_only: bool
) -> Problem:
    """Finds the floating leaves of the chosen arguments; ``None`` chooses every argument."""
    flat, treedef = jax.tree_util.tree_flatten_with_path(tuple(args))
    chosen = range(len(args)) if argnums is None else argnums
    kinds, parts, data, skipped, used = [], [], [], [], set()
    start = 0
    for path, value in flat:
        argnum, name = path[0].idx, "args" + jax.tree_util.keystr(path)
        is_array = isinstance(value, np.ndarray | np.generic | jax.Array)
        dtype = jnp.result_type(value) if is_array or isinstance(value, float) else None
        floating = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
        if argnum in chosen and floating and np.size(value):
            shape, size = np.shape(value), np.size(value)
            kinds.append(Leaf(name, shape, np.dtype(dtype), start, start + size))
            parts.append(np.asarray(value).astype(dtype))
            start += size
            used.add(argnum)
            continue
        is_complex = isinstance(value, complex) or (
            dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating)
        )
        if argnum in chosen and (argnums is not None or floating or is_complex):
            what = "empty" if floating else str(dtype or type(value).__name__)
            skipped.append(f"{name} ({what})")
        if is_array:
            kinds.append(len(data))
            data.append(value)
        else:
            kinds.append((value,))
    if isinstance(fn, _JITTED):
        # The traces of fn itself would keep constants at one precision, see Derivatives.
        fn = fn.__wrapped__
    try:
        hash(fn)
    except TypeError:
        fn = partial(fn)  # hashed by identity
    theta = concatenate(parts)
    layout = Layout(treedef, tuple(kinds), scalar_only)
    scales = concatenate([_natural_scales(part) for part in layout.split(theta)])
    return Problem(
        fn, layout, theta, data, scales, tuple(skipped),
        tuple(sorted(used)) if argnums is None else tuple(argnums),
    )  # fmt: skip


def _natural_scales(part: np.ndarray) -> np.ndarray:
    sizes = np.abs(part)
    typical = np.median(sizes[sizes > 0]) if part.any() else 1.0
    return np.maximum(sizes, 0.1 * typical if part.any() else 1.0)


def concatenate(parts) -> np.ndarray:
    flat = [np.asarray(part).astype(np.float64).ravel() for part in parts]
    return np.concatenate(flat) if flat else np.empty(0)


def scalar(fn: Callable, layout: Layout, parts, data):
    """``⟨c, fn(args)⟩`` with a fixed random cotangent c; ``fn(args)`` itself if it is a scalar."""
    outputs = jax.tree.leaves(fn(*layout.arguments(parts, data)))
    outputs = [o for o in outputs if jnp.issubdtype(jnp.result_type(o), jnp.floating)]
    if not outputs:
        raise TypeError("fn returns no real floating number: there is nothing to differentiate")
    if len(outputs) == 1 and jnp.ndim(outputs[0]) == 0:
        return outputs[0]
    if layout.scalar_only:
        shapes = ", ".join(str(jnp.shape(o)) for o in outputs)
        raise ValueError(f"grad= needs an fn with one scalar output, got {shapes}")
    # The draw is always the same: another draw would be another function to compile.
    rng = np.random.default_rng(1)
    return sum((rng.normal(size=jnp.shape(o)) * o).sum() for o in outputs)
