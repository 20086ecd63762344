"""The formula of a jaxpr: the rules of primitives for whole arrays of formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import activations
from jaxclf.analysis.atoms import Atoms, single
from jaxclf.analysis.derivative_rules import is_known
from jaxclf.analysis.formula_rules import Truth, fits_integer, largest, lifted, truth_of_zero
from jaxclf.analysis.formulas import NO_NUMBER, ONE, Formula, constant, minus, span, total
from jaxclf.analysis.jaxpr_walk import Constant


def array_rules(atoms: Atoms, *, derivatives: bool) -> dict[str, Callable]:
    """The rules for whole arrays that :func:`jaxclf.analysis.jaxpr_walk.walk` takes.

    Args:
      atoms: the atoms of the proof.
      derivatives: whether a function with a derivative rule of its own is understood only if the
        rule is known to be right.
    """

    def custom(equation, inputs):
        if not derivatives or is_known(equation):
            return None
        return [_filled(variable, NO_NUMBER) for variable in equation.outvars]

    def index(equation, inputs):
        return _chosen_by_label(atoms, equation, inputs)

    return {
        "custom_jvp_call": custom,
        "custom_vjp_call": custom,
        "custom_vjp_call_jaxpr": custom,
        "reduce_sum": _reduced(lambda row: total(row), None),
        "reduce_max": _reduced(lambda row: largest(atoms, row, True), -math.inf),
        "reduce_min": _reduced(lambda row: largest(atoms, row, False), math.inf),
        "dot_general": lambda equation, inputs: _dot(atoms, equation, inputs),
        "gather": index,
        "dynamic_slice": index,
    }


def known_calls(atoms: Atoms, *, derivatives: bool) -> list[tuple[Callable, Callable]]:
    """The functions whose jaxprs hide their formulas, each with the rule for its formula."""

    def entries(rule: Callable) -> Callable:
        def over(*arrays):
            shape = np.broadcast_shapes(*(x.shape for x in arrays))
            spread = [np.broadcast_to(x, shape) for x in arrays]
            result = np.empty(shape, object)
            for place in np.ndindex(shape):
                numbers = [lifted(x[place]) for x in spread]
                result[place] = NO_NUMBER if NO_NUMBER in numbers else rule(*numbers)
            return result

        return over

    def log_softmax(z: np.ndarray) -> np.ndarray | None:
        numbers = [lifted(x) for x in z.flat]
        if z.ndim != 1 or NO_NUMBER in numbers:
            return None
        log = atoms.log(total(atoms.exp(x) for x in numbers))
        result = np.empty(z.shape, object)
        result[:] = [minus(x, log) for x in numbers]
        return result

    def hypot(*arrays) -> np.ndarray | None:
        def of(a, b):
            squares = total((atoms.square(a), atoms.square(b)))
            # Where both are zero the derivative of hypot is not the derivative of the root.
            return atoms.root(squares) if span(squares).sign == 2 else NO_NUMBER

        return entries(of)(*arrays)

    def log_of_sum(*numbers):
        return atoms.log(total(atoms.exp(x) for x in numbers))

    found = [
        (activations._softplus, entries(lambda a: atoms.log(total((ONE, atoms.exp(a)))))),
        (jnp.logaddexp, entries(log_of_sum)),
        (activations._log_softmax, log_softmax),
        (jax.scipy.special.log_ndtr, entries(atoms.log_normal_cdf)),
        (jnp.hypot, hypot),
    ]
    # The derivative of relu at zero is 0, and the derivative of a maximum is 1/2 there.
    return [*found, (jax.nn.relu, entries(atoms.relu))] if derivatives else found


def _filled(variable, entry) -> np.ndarray:
    result = np.empty(variable.aval.shape, object)
    for place in np.ndindex(result.shape):
        result[place] = entry
    return result


def _all_constant(inputs) -> bool:
    return all(isinstance(x, Constant) for array in inputs for x in array.flat)


def _reduced(rule: Callable, absent: float | None) -> Callable:
    """A rule for whole arrays, made of a rule for lists of formulas.

    A constant that is ``absent`` does not count in a list.
    """

    def over(equation, inputs):
        if _all_constant(inputs):
            return None
        [array], axes = inputs, equation.params["axes"]
        [variable] = equation.outvars
        kept = [axis for axis in range(array.ndim) if axis not in axes]
        ordered = np.transpose(array, [*axes, *kept])
        ordered = ordered.reshape(-1, *variable.aval.shape)
        result = np.empty(variable.aval.shape, object)
        for place in np.ndindex(result.shape):
            row = [ordered[(i, *place)] for i in range(len(ordered))]
            row = [lifted(x) for x in row if not _is_absent(x, absent)]
            if not row or NO_NUMBER in row:
                result[place] = NO_NUMBER
            else:
                result[place] = _fitting(rule(row), variable.aval.dtype)
        return [result]

    return over


def _is_absent(x, absent: float | None) -> bool:
    return isinstance(x, Constant) and x.value == absent


def _fitting(a, dtype):
    return a if jnp.issubdtype(dtype, jnp.floating) else fits_integer(a, dtype)


def _dot(atoms: Atoms, equation, inputs) -> list[np.ndarray] | None:
    if _all_constant(inputs):
        return None
    (contract_a, contract_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    [variable] = equation.outvars
    a, b = (_ordered(x, c, batch) for x, c, batch in
            zip(inputs, (contract_a, contract_b), (batch_a, batch_b), strict=True))  # fmt: skip
    result = np.empty((a.shape[0], a.shape[1], b.shape[1]), object)
    for n, i, j in np.ndindex(result.shape):
        pairs = [(lifted(x), lifted(y)) for x, y in zip(a[n, i], b[n, j], strict=True)]
        if any(NO_NUMBER in pair for pair in pairs):
            result[n, i, j] = NO_NUMBER
        else:
            found = total(atoms.times(x, y) for x, y in pairs)
            result[n, i, j] = _fitting(found, variable.aval.dtype)
    return [result.reshape(variable.aval.shape)]


def _ordered(x: np.ndarray, contract, batch) -> np.ndarray:
    """Returns an array with its axes joined to ``(batch, free, contracted)``."""
    free = [axis for axis in range(x.ndim) if axis not in (*contract, *batch)]
    sizes = [math.prod(x.shape[axis] for axis in axes) for axes in (batch, free, contract)]
    return np.transpose(x, [*batch, *free, *contract]).reshape(sizes)


def _chosen_by_label(atoms: Atoms, equation, inputs) -> list[np.ndarray] | None:
    """``Σ_v 1[label = v] x_v``: one entry of a vector at a place that the label names."""
    data, places = inputs[0], inputs[1:]
    [variable] = equation.outvars
    undecided = [x for array in places for x in array.flat if not isinstance(x, Constant)]
    if not undecided or data.ndim != 1 or variable.aval.size != 1:
        return None
    [place] = undecided if len(undecided) == 1 else [NO_NUMBER]
    if sum(array.size for array in places) != 1 or not isinstance(place, Formula):
        return None
    reach = span(place)
    if reach.low is None or reach.high is None or reach.low < 0 or reach.high >= len(data):
        return None  # what is out of bounds is clamped, or NaN
    parts = []
    for v in range(math.ceil(reach.low), math.floor(reach.high) + 1):
        value, is_v = lifted(data[v]), truth_of_zero(atoms, minus(place, constant(v)))
        if value is NO_NUMBER:
            return None
        if isinstance(is_v, Truth):
            parts.append(atoms.times(single(is_v.atom), value))
        elif bool(is_v.value):
            parts.append(value)
    return [_filled(variable, total(parts))]
