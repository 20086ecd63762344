"""Values and derivatives of the function under test, compiled where JAX can trace it.

Everything that evaluates in float64 runs inside ``jax.enable_x64``, so no global setting changes.
Compiled programs are keyed by the function and the layout of its arguments, so checking a function
again at other values compiles nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxprs_in_params

from jaxclf.analysis.gradcheck.problem import Problem, concatenate, scalar


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
    """A traceable ``theta -> gradient``: JAX's gradient of the function, or the supplied one."""
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
    """The compiled programs, each keyed by the function and the layout of its arguments."""

    line: Callable
    gradient: Callable
    forward: Callable
    hessian_products: Callable
    slope_line: Callable
    native_gradient: Callable
    native_value: Callable


def _make_programs() -> Programs:
    # The partials are fresh, because jit shares its traces between wrappers of one function.
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
        # The dtypes in which fn and its gradient compute when their arguments are float64.
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
            # The gradient cannot be traced, so its dtype inside shows only in what it returns.
            self.dtype = min((p.dtype for p in parts), key=lambda d: d.itemsize)
            return concatenate(parts)

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
        """The value in the dtypes under test, evaluated eagerly to keep randomness alive."""
        by_jax = self.traceable or self.grad is None
        parts = self._native_parts(theta, by_jax=by_jax)
        return float(scalar(self.problem.fn, self.problem.layout, parts, self.problem.data))

    def native(self, points: list[np.ndarray], num_values: int) -> tuple[np.ndarray, np.ndarray]:
        """Gradients at the points and values at the first few of them, as the caller gets them.

        Both are computed in the dtypes under test and under the caller's settings, and widened
        afterwards.
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
            return concatenate(_supplied(self.grad, layout, argnums, parts, data))
        if self.traceable:
            return concatenate(self._programs.native_gradient(*self._key, parts, data))
        return concatenate(jax.grad(lambda p: scalar(self.problem.fn, layout, p, data))(parts))

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
    """Yields every equation of a jaxpr and of the jaxprs inside it."""
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
    """The narrowest floating dtype that numbers depending on the inputs are converted to inside."""
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
