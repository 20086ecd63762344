"""Evaluates a function's jaxpr over objects instead of numbers, one object for each entry.

Every array becomes an object array of constants (:class:`Constant`) and of the objects that the
caller's rules make of the rest. Constants are folded as JAX would compute them, so that masks and
one-hot labels disappear. Primitives that only move entries about are run on the places of the
entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Constant(NamedTuple):
    """An entry that does not depend on the logits."""

    value: Any


_MOVES = frozenset(("dynamic_slice", "gather"))
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "checkpoint": "jaxpr",
          "remat2": "jaxpr", "custom_jvp_call": "call_jaxpr",
          "custom_vjp_call": "call_jaxpr"}  # fmt: skip
_OF_ENTRIES = frozenset(
    ("add", "add_any", "sub", "mul", "div", "rem", "neg", "max", "min", "abs", "sign", "exp", "log",
     "log1p", "expm1", "sqrt", "rsqrt", "square", "pow", "integer_pow", "logistic", "tanh", "sin",
     "cos", "tan", "sinh", "cosh", "asinh", "atan", "erf", "erfc", "floor", "ceil", "stop_gradient",
     "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "select_n", "is_finite",
     "convert_element_type")
)  # fmt: skip
"""Primitives that work entry by entry."""
_FOLDS = {"reduce_sum": "add", "reduce_max": "max", "reduce_min": "min"}

Rules = Mapping[str, Callable]
"""A rule ``(entries…, **params) -> entry`` for each name of a primitive that works entry by entry.
The shape and dtype of the primitive's result are among the params as ``aval``."""
Calls = Sequence[tuple[Callable, Callable]]
"""Pairs of a known function and its rule ``(object arrays…) -> object array``. A rule returns
``None`` to have the walk look inside the call. A call is recognised if it is of the same kind and
has the same jaxpr as the function's call, whatever its name."""
Arrays = Mapping[str, Callable]
"""A rule ``(equation, object arrays) -> object arrays`` for each name of a primitive, calls
included. A rule returns ``None`` to leave the equation to the other rules."""


def traced(function: Callable, shape: tuple[int, ...], *others):
    """The jaxpr of ``(logits, *others) -> ()`` for float64 logits of a shape."""
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, jnp.float64), *others)
    if [aval.shape for aval in closed.out_avals] != [()]:
        given = ", ".join(str(aval.shape) for aval in closed.out_avals)
        raise ValueError(f"the function must return one number (), got {given}")
    return closed


def walk(
    closed,
    arguments: np.ndarray | Sequence[np.ndarray],
    rules: Rules,
    unknown: Callable,
    calls: Calls = (),
    arrays: Arrays = MappingProxyType({}),
) -> np.ndarray:
    """The result of a function over objects.

    Args:
      closed: the jaxpr of the function, from :func:`traced`.
      arguments: an object array for each argument, or for the only argument.
      rules: the rules for entries that are not all constant. The rules for ``select_n``, ``and``,
        ``or`` and ``convert_element_type`` are asked where the constants do not decide.
      unknown: ``(primitive name) -> entry``, for primitives without a rule.
      calls: the rules for whole functions.
      arrays: the rules for whole arrays, which are asked first.
    """
    arguments = [arguments] if isinstance(arguments, np.ndarray) else list(arguments)
    with jax.enable_x64(True):
        return _run(closed.jaxpr, closed.consts, arguments, (rules, unknown, calls, arrays))[0]


def constants(values) -> np.ndarray:
    """An array as an object array of constants."""
    values = np.asarray(values)
    result = np.empty(values.shape, object)
    for place in np.ndindex(values.shape):
        result[place] = Constant(values[place])
    return result


def _run(jaxpr, consts, arguments, how: tuple) -> list[np.ndarray]:
    known = dict(zip(jaxpr.constvars, map(constants, consts), strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom) -> np.ndarray:
        return constants(atom.val) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        outputs = _apply(equation, inputs, how)
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation, inputs, how: tuple) -> list[np.ndarray]:
    rules, unknown, calls, arrays = how
    name, params = equation.primitive.name, equation.params
    if name in arrays and (outputs := arrays[name](equation, inputs)) is not None:
        return outputs
    if name in _CALLS:
        inner = params[_CALLS[name]]
        avals = tuple(atom.aval for atom in equation.invars)
        told = (name, str(inner))
        for function, rule in calls:
            if _call(function, avals) == told and (found := rule(*inputs)) is not None:
                return [found]
        return _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs, how)
    if name in _REARRANGED:
        return [_REARRANGED[name](equation.outvars[0].aval.shape, params, *inputs)]
    known = all(isinstance(entry, Constant) for array in inputs for entry in array.flat)
    if known and "callback" not in name:  # which may return something else every time
        found = equation.primitive.bind(*map(_values, inputs), **params)
        return [constants(x) for x in (found if equation.primitive.multiple_results else [found])]
    if name in _MOVES:
        return [_moved(equation, inputs, unknown)]
    if name in _FOLDS and _FOLDS[name] in rules:
        return [_folded(rules[_FOLDS[name]], inputs[0], params["axes"])]
    outputs = []
    for variable in equation.outvars:
        result = np.empty(variable.aval.shape, object)
        for place in np.ndindex(result.shape):
            if name not in _OF_ENTRIES:
                result[place] = unknown(name)
                continue
            entries = [np.broadcast_to(x, result.shape)[place] for x in inputs]
            if all(isinstance(entry, Constant) for entry in entries):
                scalars = [jnp.asarray(entry.value) for entry in entries]
                result[place] = Constant(np.asarray(equation.primitive.bind(*scalars, **params)))
            elif name in ("and", "or", "not") and variable.aval.dtype != bool:
                result[place] = unknown(name)
            else:
                told = params | {"aval": variable.aval}
                result[place] = _entry(name, entries, told, rules, unknown)
        outputs.append(result)
    return outputs


def _entry(name: str, entries, params: dict, rules: Rules, unknown):
    if name in ("and", "or"):
        decisive = name == "or"  # whatever the other one is
        known = [e for e in entries if isinstance(e, Constant) and bool(e.value) == decisive]
        if known or name not in rules:
            return known[0] if known else unknown(name)
    if name == "select_n" and isinstance(entries[0], Constant):
        return entries[1 + int(entries[0].value)]
    if name == "convert_element_type" and name not in rules:
        return entries[0] if jnp.issubdtype(params["new_dtype"], jnp.floating) else unknown(name)
    return rules[name](*entries, **params) if name in rules else unknown(name)


def _values(array: np.ndarray):
    values = [entry.value for entry in array.flat]
    return jnp.asarray(np.array(values).reshape(array.shape))


@lru_cache(maxsize=256)
def _call(function: Callable, avals: tuple) -> tuple[str, str] | None:
    """The primitive and the jaxpr of a call, or ``None`` if there is no such call."""
    given = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in avals]
    try:
        equations = jax.make_jaxpr(function)(*given).eqns
    except (TypeError, ValueError):
        return None
    name = equations[0].primitive.name if len(equations) == 1 else None
    return (name, str(equations[0].params[_CALLS[name]])) if name in _CALLS else None


def _broadcast(shape, params, x: np.ndarray) -> np.ndarray:
    spread = [1] * len(shape)
    for size, axis in zip(x.shape, params["broadcast_dimensions"], strict=True):
        spread[axis] = size
    return np.broadcast_to(x.reshape(spread), shape)


def _sliced(shape, params, x: np.ndarray) -> np.ndarray:
    steps = params["strides"] or (1,) * x.ndim
    ends = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    return x[tuple(slice(*end) for end in ends)]


# NumPy moves objects without compiling a program for every shape.
_REARRANGED = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda shape, params, x: x.reshape(shape),
    "squeeze": lambda shape, params, x: x.reshape(shape),
    "transpose": lambda shape, params, x: x.transpose(params["permutation"]),
    "rev": lambda shape, params, x: np.flip(x, params["dimensions"]),
    "concatenate": lambda shape, params, *xs: np.concatenate(xs, params["dimension"]),
    "stack": lambda shape, params, *xs: np.stack(xs, params["axis"]),
    "slice": _sliced,
    "copy": lambda shape, params, x: x,
}


def _moved(equation, inputs: list[np.ndarray], unknown: Callable) -> np.ndarray:
    """Runs a primitive on the places of the entries; operands after the first may be indices."""
    shape, name = equation.outvars[0].aval.shape, equation.primitive.name
    indices = [entry for x in inputs[1:] for entry in x.flat]
    if not all(isinstance(index, Constant) for index in indices):
        result = np.empty(shape, object)
        for place in np.ndindex(shape):
            result[place] = unknown(name)
        return result
    entries = list(inputs[0].flat)
    places = jnp.arange(len(entries)).reshape(inputs[0].shape)
    params = dict(equation.params)
    fill = params.get("fill_value")
    if "fill_value" in params:  # out of bounds
        params["fill_value"] = -1
    found = np.asarray(equation.primitive.bind(places, *map(_values, inputs[1:]), **params))
    result = np.empty(found.shape, object)
    outside = Constant(np.array(np.nan if fill is None else fill, np.float64))
    for place in np.ndindex(found.shape):
        at = int(found[place])
        result[place] = entries[at] if at >= 0 else outside
    return result


def _folded(rule: Callable, array: np.ndarray, axes) -> np.ndarray:
    kept = [axis for axis in range(array.ndim) if axis not in axes]
    ordered = np.transpose(array, [*axes, *kept]).reshape(-1, *(array.shape[a] for a in kept))
    result = np.empty(ordered.shape[1:], object)
    for place in np.ndindex(result.shape):
        total = ordered[(0, *place)]
        for i in range(1, len(ordered)):
            total = rule(total, ordered[(i, *place)])
        result[place] = total
    return result
