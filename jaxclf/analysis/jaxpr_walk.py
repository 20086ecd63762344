"""A function's jaxpr, evaluated over something else than numbers: one object for each entry.

Every array becomes an object array of constants (:class:`Constant`) and of what the caller's rules
make of the rest. Constants are folded as JAX would compute them, so that masks and one-hot labels
disappear; what only moves entries about is done on their places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Constant(NamedTuple):
    """An entry that does not depend on the logits."""

    value: Any


_MOVES = frozenset(
    ("broadcast_in_dim", "reshape", "squeeze", "transpose", "slice", "rev", "concatenate",
     "dynamic_slice", "gather", "copy", "expand_dims")
)  # fmt: skip
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr",
          "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}  # fmt: skip
_FOLDS = {"reduce_sum": "add", "reduce_max": "max", "reduce_min": "min"}

Rules = Mapping[str, Callable]
"""By the name of a primitive of entries, ``(entries…, **params) -> entry``, or of a function,
``(object arrays…) -> object array``; the latter names begin with ``call:``."""


def traced(function: Callable, shape: tuple[int, ...]):
    """The jaxpr of ``(logits) -> array`` for float64 logits of a shape."""
    with jax.enable_x64(True):
        return jax.make_jaxpr(function)(jnp.zeros(shape, jnp.float64))


def walk(closed, logits: np.ndarray, rules: Rules, unknown: Callable) -> np.ndarray:
    """The result of a function over objects.

    Args:
      closed: its jaxpr, from :func:`traced`.
      logits: an object array of the shape of its argument.
      rules: what to do with entries that are not all constant.
      unknown: ``(primitive name) -> entry`` where there is no rule.
    """
    with jax.enable_x64(True):
        return _run(closed.jaxpr, closed.consts, [logits], rules, unknown)[0]


def constants(values) -> np.ndarray:
    """An array as an object array of constants."""
    values = np.asarray(values)
    result = np.empty(values.shape, object)
    for place in np.ndindex(values.shape):
        result[place] = Constant(values[place])
    return result


def _run(jaxpr, consts, arguments, rules: Rules, unknown) -> list[np.ndarray]:
    known = dict(zip(jaxpr.constvars, map(constants, consts), strict=True))
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom) -> np.ndarray:
        return constants(atom.val) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        outputs = _apply(equation, inputs, rules, unknown)
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation, inputs, rules: Rules, unknown) -> list[np.ndarray]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        inner = params[_CALLS[name]]
        called = params.get("name") or inner.jaxpr.debug_info.func_name
        if rule := rules.get(f"call:{called.split(' ')[0]}"):
            return [rule(*inputs)]
        return _run(inner.jaxpr, inner.consts, inputs, rules, unknown)
    if all(isinstance(entry, Constant) for array in inputs for entry in array.flat):
        found = equation.primitive.bind(*map(_values, inputs), **params)
        return [constants(x) for x in (found if equation.primitive.multiple_results else [found])]
    if name in _MOVES:
        return [_moved(equation, inputs)]
    if name in _FOLDS and _FOLDS[name] in rules:
        return [_folded(rules[_FOLDS[name]], inputs[0], params["axes"])]
    outputs = []
    for variable in equation.outvars:
        result = np.empty(variable.aval.shape, object)
        try:
            spread = [np.broadcast_to(x, result.shape) for x in inputs]
        except ValueError:  # no operation of single entries
            spread = []
        for place in np.ndindex(result.shape):
            entries = [x[place] for x in spread]
            if entries and all(isinstance(entry, Constant) for entry in entries):
                scalars = [jnp.asarray(entry.value) for entry in entries]
                result[place] = Constant(np.asarray(equation.primitive.bind(*scalars, **params)))
            else:
                result[place] = _entry(name, entries, params, rules, unknown)
        outputs.append(result)
    return outputs


def _entry(name: str, entries, params: dict, rules: Rules, unknown):
    if name in ("and", "or"):
        decisive = name == "or"  # whatever the other one is
        known = [e for e in entries if isinstance(e, Constant) and bool(e.value) == decisive]
        return known[0] if known else unknown(name)
    if name == "select_n" and isinstance(entries[0], Constant):
        return entries[1 + int(entries[0].value)]
    if name == "convert_element_type":
        return entries[0] if jnp.issubdtype(params["new_dtype"], jnp.floating) else unknown(name)
    return rules[name](*entries, **params) if entries and name in rules else unknown(name)


def _values(array: np.ndarray):
    values = [entry.value for entry in array.flat]
    return jnp.asarray(np.array(values).reshape(array.shape))


def _moved(equation, inputs: list[np.ndarray]) -> np.ndarray:
    """The primitive on the places of the entries; operands after the first may be indices."""
    together = equation.primitive.name == "concatenate"
    data = inputs if together else inputs[:1]
    entries = [entry for array in data for entry in array.flat]
    places, start = [], 0
    for array in data:
        places.append(jnp.arange(start, start + array.size).reshape(array.shape))
        start += array.size
    others = [] if together else [_values(x) for x in inputs[1:]]
    params = dict(equation.params)
    found = np.asarray(equation.primitive.bind(*places, *others, **params))
    result = np.empty(found.shape, object)
    for place in np.ndindex(found.shape):
        result[place] = entries[int(found[place])]
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
