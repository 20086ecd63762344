"""Recognises functions whose own derivative rule is known to be right.

A call of such a function is known if it has the jaxpr of a known function and if its derivative
has the jaxpr of that function's derivative. A name alone is no proof, because any function can have
it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxclf import activations, log_losses

_KNOWN = (
    activations._softplus,
    activations._sigmoid,
    activations._softmax,
    activations._log_softmax,
    log_losses.bernoulli,
    log_losses.cross_entropy,
    log_losses.cross_entropy_of_class,
    jnp.logaddexp,
    jax.nn.relu,
    jax.scipy.special.log_ndtr,
    jax.scipy.special.xlogy,
    jax.scipy.special.xlog1py,
)


def is_known(equation) -> bool:
    """Whether a call of a function with a derivative rule is a call of a known function.

    Args:
      equation: ``custom_jvp_call`` or ``custom_vjp_call`` of a jaxpr.
    """
    avals = tuple((atom.aval.shape, atom.aval.dtype) for atom in equation.invars)
    told = equation.primitive.name, str(equation.params.get("call_jaxpr"))
    for function in _KNOWN:
        found = _call(function, avals)
        if found is not None and (found.primitive.name, str(found.params["call_jaxpr"])) == told:
            return _known_derivatives(function, avals) == _derivatives(equation, avals)
    return False


@lru_cache(maxsize=256)
def _known_derivatives(function: Callable, avals: tuple) -> tuple[str, ...]:
    return _derivatives(_call(function, avals), avals)


@lru_cache(maxsize=256)
def _call(function: Callable, avals: tuple):
    """The equation of a function's call, or ``None`` if the function takes no such arguments."""
    try:
        jaxpr = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(*aval) for aval in avals)).jaxpr
    except (TypeError, ValueError):
        return None
    while len(jaxpr.eqns) == 1 and jaxpr.eqns[0].primitive.name in ("jit", "pjit"):
        jaxpr = jaxpr.eqns[0].params["jaxpr"].jaxpr
    if len(jaxpr.eqns) != 1 or "call_jaxpr" not in jaxpr.eqns[0].params:
        return None
    [equation] = jaxpr.eqns
    if tuple((x.aval.shape, x.aval.dtype) for x in equation.invars) != avals:
        return None
    return equation


def _derivatives(equation, avals: tuple) -> tuple[str, ...]:
    """The jaxprs of a call's derivatives, in one argument and in several."""

    arguments = [jax.ShapeDtypeStruct(*aval) for aval in avals]
    outputs = [core.Var(atom.aval) for atom in equation.outvars]
    frame = jax.make_jaxpr(lambda *_: [0.0] * len(outputs))(*arguments).jaxpr
    alone = equation.replace(invars=list(frame.invars), outvars=outputs)
    call = core.jaxpr_as_fun(core.ClosedJaxpr(frame.replace(eqns=[alone], outvars=outputs), []))
    floating = [i for i, aval in enumerate(avals) if jnp.issubdtype(aval[1], jnp.floating)]
    texts = []
    for size in range(1, len(floating) + 1):
        for chosen in itertools.combinations(floating, size):

            def derivative(values, tangents, chosen=chosen):
                def of(*some):
                    given = dict(zip(chosen, some, strict=True))
                    return call(*(given.get(i, value) for i, value in enumerate(values)))

                return jax.jvp(of, [values[i] for i in chosen], tangents)

            tangents = [arguments[i] for i in chosen]
            texts.append(str(jax.make_jaxpr(derivative)(arguments, tangents)))
    return tuple(texts)
