"""The function under test as a scalar function of one flat vector.

``theta`` is the float64 vector of all floating entries of the chosen arguments. Everything that
evaluates in float64 runs inside ``jax.enable_x64``, so no global setting changes. Compiled programs
are keyed by the function and the layout of its arguments: checking it again at other values
compiles nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxprs_in_params

_JITTED = type(jax.jit(lambda: None))


class Leaf(NamedTuple):
    """Where one floating array of the arguments sits in ``theta``."""

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
    """How ``theta`` and the other arrays make up the arguments; hashable, so jit can key on it."""

    treedef: Any
    kinds: tuple
    """Per leaf of the arguments: a :class:`Leaf`, an index into ``data``, or ``(value,)``."""
    scalar_only: bool
    """Whether an array output is refused: a supplied gradient knows no cotangent."""

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
    """``(n,)`` float64, each entry representable in its leaf's dtype."""
    data: list
    scales: np.ndarray
    """``(n,)`` size of each coordinate, at least a tenth of its array's median; 1 if all are 0."""
    skipped: tuple[str, ...]
    """Chosen leaves without a derivative: integers, booleans, empty arrays."""
    argnums: tuple[int, ...]

    def native_parts(self, theta) -> list:
        """``theta`` as arrays in the dtypes under test."""
        parts = self.layout.split(theta)
        return [p.astype(leaf.dtype) for p, leaf in zip(parts, self.layout.leaves, strict=True)]

    def round(self, theta) -> np.ndarray:
        """``theta`` rounded to what the dtypes under test can represent."""
        return _concatenate(self.native_parts(theta))

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
        # Its own traces would keep constants at one precision, see Derivatives.
        fn = fn.__wrapped__
    try:
        hash(fn)
    except TypeError:
        fn = partial(fn)  # hashed by identity
    theta = _concatenate(parts)
    layout = Layout(treedef, tuple(kinds), scalar_only)
    scales = _concatenate([_natural_scales(part) for part in layout.split(theta)])
    return Problem(
        fn, layout, theta, data, scales, tuple(skipped),
        tuple(sorted(used)) if argnums is None else tuple(argnums),
    )  # fmt: skip


def _natural_scales(part: np.ndarray) -> np.ndarray:
    sizes = np.abs(part)
    typical = np.median(sizes[sizes > 0]) if part.any() else 1.0
    return np.maximum(sizes, 0.1 * typical if part.any() else 1.0)


def _concatenate(parts) -> np.ndarray:
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
    # Always the same draw: another one would be another function to compile.
    rng = np.random.default_rng(1)
    return sum((rng.normal(size=jnp.shape(o)) * o).sum() for o in outputs)


def _exact(fn, layout, theta, data):
    return jnp.asarray(scalar(fn, layout, layout.split(theta), data), jnp.float64)


# --- the programs, in float64 but for the last ----------------------------------------------------


def _line(fn, layout, theta, data, direction, steps):
    return jax.lax.map(lambda h: _exact(fn, layout, theta + h * direction, data), steps)


def _forward(fn, layout, theta, data, direction):
    along = partial(_exact, fn, layout, data=data)
    return jax.jvp(lambda t: along(t), (theta,), (direction,))[1]


def _supplied(grad, layout, argnums, parts, data) -> list:
    """The supplied gradient as one array per leaf, whatever pytree it comes in."""
    gradient = grad(*layout.arguments(parts, data))
    if len(argnums) == 1 and not (isinstance(gradient, tuple) and len(gradient) == 1):
        gradient = (gradient,)
    if not isinstance(gradient, tuple | list) or len(gradient) != len(argnums):
        raise ValueError(f"grad must return one gradient for each of the arguments {argnums}")
    found = {}
    for i, tree in zip(argnums, gradient, strict=True):
        for path, value in jax.tree_util.tree_leaves_with_path(tree):
            found[f"args[{i}]" + jax.tree_util.keystr(path)] = value
    for leaf in layout.leaves:
        if leaf.name not in found:
            raise ValueError(f"grad returns no entry for {leaf.name}")
        shape = np.shape(found[leaf.name])
        if shape != leaf.shape:
            raise ValueError(f"grad of {leaf.name} must have shape {leaf.shape}, got {shape}")
    return [found[leaf.name] for leaf in layout.leaves]


def _gradient_function(fn, grad, layout, argnums, data):
    """``theta -> gradient``, traceable: of the function, or as supplied."""
    if grad is None:
        return lambda theta: jax.grad(_exact, argnums=2)(fn, layout, theta, data)

    def supplied(theta):
        parts = _supplied(grad, layout, argnums, layout.split(theta), data)
        return jnp.concatenate([jnp.ravel(p).astype(jnp.float64) for p in parts])

    return supplied


def _gradient(fn, grad, layout, argnums, theta, data):
    return _gradient_function(fn, grad, layout, argnums, data)(theta)


def _hessian_products(fn, grad, layout, argnums, theta, data, direction):
    gradient = _gradient_function(fn, grad, layout, argnums, data)
    forward = jax.jvp(gradient, (theta,), (direction,))[1]
    reverse = jax.grad(lambda t: jnp.vdot(gradient(t), direction))(theta)
    return forward, reverse


def _slope_line(fn, grad, layout, argnums, theta, data, direction, along, steps):
    gradient = _gradient_function(fn, grad, layout, argnums, data)
    return jax.lax.map(lambda h: jnp.vdot(gradient(theta + h * direction), along), steps)


def _native_gradient(fn, layout, parts, data):
    return jax.grad(lambda p: scalar(fn, layout, p, data))(parts)


class Programs(NamedTuple):
    """The compiled programs: each keyed by the function and the layout of its arguments."""

    line: Callable
    gradient: Callable
    forward: Callable
    hessian_products: Callable
    slope_line: Callable
    native_gradient: Callable
    native_value: Callable


def _make_programs() -> Programs:
    # Fresh partials, because jit shares its traces between wrappers of one function.
    by_function = {"static_argnums": (0, 1)}
    by_gradient = {"static_argnums": (0, 1, 2, 3)}
    return Programs(
        jax.jit(partial(_line), **by_function),
        jax.jit(partial(_gradient), **by_gradient),
        jax.jit(partial(_forward), **by_function),
        jax.jit(partial(_hessian_products), **by_gradient),
        jax.jit(partial(_slope_line), **by_gradient),
        jax.jit(partial(_native_gradient), **by_function),
        jax.jit(partial(scalar), **by_function),
    )


_SHARED = _make_programs()


# --- what the check asks for ----------------------------------------------------------------------


class Derivatives:
    """Values and derivatives of a problem, compiled where JAX can trace the function.

    A function that JAX cannot trace (NumPy inside, Python control flow on values) is evaluated
    point by point; it needs ``grad`` unless JAX can still differentiate it eagerly.
    """

    def __init__(self, problem: Problem, grad: Callable | None):
        self.problem, self.grad = problem, grad
        self._key = (problem.fn, problem.layout)
        self._gradient_key = (problem.fn, grad, problem.layout, problem.argnums)
        with jax.enable_x64(True):
            value = _trace(partial(_exact, *self._key, data=problem.data), problem.theta)
            gradient = value and _trace(
                _gradient_function(*self._gradient_key, problem.data), problem.theta
            )
        self.traceable, self.grad_traceable = value is not None, gradient is not None
        if not self.traceable:
            self._refuse_fixed_dtypes()
        # What fn and its gradient compute in when their arguments are float64.
        self.value_dtype = _narrowest_float(value) if value else np.dtype(np.float64)
        self.dtype = _narrowest_float(gradient) if gradient else np.dtype(np.float64)
        # JAX (0.10 to 0.12) converts a NumPy constant inside fn once, to the precision of the day,
        # for as long as any trace with it lives: at another precision it then has the wrong type.
        # Programs with such constants are therefore not kept, so that fn works afterwards.
        self._keep = not any(_wide_constants(jaxpr) for jaxpr in (value, gradient) if jaxpr)
        self._programs = _SHARED if self._keep else _make_programs()

    def _refuse_fixed_dtypes(self) -> None:
        """Raises TypeError if JAX can trace fn in its own dtypes but not in float64."""
        parts = self._native_parts(self.problem.theta, by_jax=True)
        native = partial(scalar, self.problem.fn, self.problem.layout, data=self.problem.data)
        try:
            jax.make_jaxpr(native)(parts)
        except Exception:
            return  # not traceable at all: NumPy inside, or Python control flow on values
        raise TypeError(
            "fn can be traced with the given arguments but not in float64: it fixes a dtype "
            "inside (a float32 scan carry, say; use the dtype of its arguments), or closes over "
            "64-bit NumPy arrays that JAX still holds at another precision"
        )

    def line(self, theta, direction, steps) -> np.ndarray:
        """``F(theta + h · direction)`` for each step h."""
        layout, data = self.problem.layout, self.problem.data
        with jax.enable_x64(True):
            if self.traceable:
                return np.asarray(self._programs.line(*self._key, theta, data, direction, steps))
            points = [layout.split(theta + h * direction) for h in steps]
            return np.array([float(scalar(self.problem.fn, layout, p, data)) for p in points])

    def gradient(self, theta) -> np.ndarray:
        """The gradient under test, computed in float64."""
        layout, argnums, data = self.problem.layout, self.problem.argnums, self.problem.data
        with jax.enable_x64(True):
            if self.grad_traceable:
                return np.asarray(self._programs.gradient(*self._gradient_key, theta, data))
            if self.grad is None:
                exact = partial(_exact, self.problem.fn, layout, data=data)
                return np.asarray(jax.grad(exact)(jnp.asarray(theta)))
            parts = layout.split(jnp.asarray(theta) if self.traceable else theta)
            parts = [np.asarray(p) for p in _supplied(self.grad, layout, argnums, parts, data)]
            # It cannot be traced, so what it computes in shows only in what it returns.
            self.dtype = min((p.dtype for p in parts), key=lambda d: d.itemsize)
            return _concatenate(parts)

    def forward_slope(self, theta, direction) -> float:
        """The forward-mode derivative along a direction."""
        with jax.enable_x64(True):
            return float(self._programs.forward(*self._key, theta, self.problem.data, direction))

    def hessian_products(self, theta, direction) -> tuple[np.ndarray, np.ndarray]:
        """``H · direction`` by forward-over-reverse and by reverse-over-reverse."""
        with jax.enable_x64(True):
            data = self.problem.data
            both = self._programs.hessian_products(*self._gradient_key, theta, data, direction)
            return np.asarray(both[0]), np.asarray(both[1])

    def slope_line(self, theta, direction, along, steps) -> np.ndarray:
        """``⟨gradient(theta + h · direction), along⟩`` for each step h."""
        data = self.problem.data
        with jax.enable_x64(True):
            key = self._gradient_key
            slopes = self._programs.slope_line(*key, theta, data, direction, along, steps)
            return np.asarray(slopes)

    def native_value(self, theta) -> float:
        """The value in the dtypes under test, evaluated eagerly: randomness is not frozen."""
        by_jax = self.traceable or self.grad is None
        parts = self._native_parts(theta, by_jax=by_jax)
        return float(scalar(self.problem.fn, self.problem.layout, parts, self.problem.data))

    def native(self, points: list[np.ndarray], num_values: int) -> tuple[np.ndarray, np.ndarray]:
        """Gradients at the points and values at the first few of them, as the caller gets them.

        That is: in the dtypes under test and under the caller's settings, widened afterwards.
        """
        self.release()
        gradients = np.array([self._native_gradient(theta) for theta in points])
        values = np.array([self._native_value(theta) for theta in points[:num_values]])
        self.release()
        return gradients, values

    def _native_value(self, theta) -> float:
        if not self.traceable:
            return self.native_value(theta)
        parts = self._native_parts(theta, by_jax=True)
        return float(self._programs.native_value(*self._key, parts, self.problem.data))

    def _native_gradient(self, theta) -> np.ndarray:
        layout, argnums, data = self.problem.layout, self.problem.argnums, self.problem.data
        parts = self._native_parts(theta, by_jax=self.traceable or self.grad is None)
        if self.grad is not None:
            return _concatenate(_supplied(self.grad, layout, argnums, parts, data))
        if self.traceable:
            return _concatenate(self._programs.native_gradient(*self._key, parts, data))
        return _concatenate(jax.grad(lambda p: scalar(self.problem.fn, layout, p, data))(parts))

    def release(self) -> None:
        """Forgets the programs that must not outlive their precision."""
        if not self._keep:
            self._programs = _make_programs()
            gc.collect()

    def _native_parts(self, theta, *, by_jax: bool) -> list:
        parts = self.problem.native_parts(theta)
        return [jnp.asarray(p) for p in parts] if by_jax else parts


def _trace(function: Callable, theta):
    """The jaxpr of a function, or ``None`` if JAX cannot trace it."""
    try:
        return jax.make_jaxpr(function)(theta)
    except (jax.errors.JAXTypeError, TypeError):
        return None


def _equations(jaxpr):
    """Every equation of a jaxpr, those of the jaxprs inside it too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _wide_constants(closed) -> bool:
    """Whether a closed jaxpr holds 64-bit NumPy arrays."""
    literals = [v.val for e in _equations(closed.jaxpr) for v in e.invars if isinstance(v, Literal)]
    inner = [c for e in _equations(closed.jaxpr) for p in e.params.values() for c in _consts(p)]
    arrays = [c for c in (*closed.consts, *literals, *inner) if isinstance(c, np.ndarray)]
    return any(a.ndim and a.dtype.itemsize == 8 for a in arrays)


def _consts(parameter) -> list:
    return list(parameter.consts) if isinstance(parameter, ClosedJaxpr) else []


def _narrowest_float(closed) -> np.dtype:
    """The narrowest floating dtype that what depends on the inputs is converted to inside."""
    narrowed = _narrowed(closed.jaxpr, [True] * len(closed.jaxpr.invars))
    return min(narrowed, key=lambda d: d.itemsize, default=np.dtype(np.float64))


def _narrowed(jaxpr, depends: list[bool]):
    """Yields the dtypes that numbers depending on the flagged inputs are narrowed to."""
    dependent = {v for v, flag in zip(jaxpr.invars, depends, strict=True) if flag}
    for equation in jaxpr.eqns:
        flags = [isinstance(v, Var) and v in dependent for v in equation.invars]
        if not any(flags):
            continue
        dependent.update(equation.outvars)
        if equation.primitive.name == "convert_element_type":
            source, target = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
            if (
                jnp.issubdtype(source, jnp.floating)
                and jnp.issubdtype(target, jnp.floating)
                and target.itemsize < source.itemsize
            ):
                yield np.dtype(target)
        for inner in jaxprs_in_params(equation.params):
            # Operands line up from the end (a branch index or a condition may come before them);
            # where they do not line up at all, everything is taken to depend on theta.
            count = len(inner.invars)
            aligned = flags[-count:] if count <= len(flags) else [True] * count
            yield from _narrowed(inner, aligned if count else [])
