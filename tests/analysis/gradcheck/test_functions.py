"""The functions, arguments and options that a check takes, and those it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.analysis.gradcheck import check_gradients, gradient_cases
from tests.analysis.gradcheck.mutated_risk import W, X, Y, risk


def test_numpy_functions_and_gradients():
    fn = lambda v: np.sum(np.sin(v))  # noqa: E731
    x = (np.linspace(0, 2, 5, dtype=np.float32),)
    assert check_gradients(fn, x, grad=np.cos).outcome == "passed"
    assert check_gradients(fn, x, grad=lambda v: 1.001 * np.cos(v)).outcome == "failed"
    jax_fn = lambda v: jnp.sum(jnp.sin(v))  # noqa: E731
    assert check_gradients(jax_fn, x, grad=lambda v: np.cos(np.asarray(v)), order=2)
    with pytest.raises(TypeError, match="give its gradient as grad="):
        check_gradients(fn, x)


def test_python_control_flow_on_values_is_evaluated_point_by_point():
    def fn(x):
        return jnp.sum(x**2) if x[0] > 0 else jnp.sum(x**3)

    assert check_gradients(fn, (jnp.array([1.0, 2.0]),)).outcome == "passed"


def test_array_and_pytree_outputs_and_many_arguments():
    def fn(a, b):
        return {"outer": jnp.outer(a, b), "count": jnp.array(3)}, jnp.sum(a) * b

    assert check_gradients(fn, (jnp.arange(3.0), jnp.arange(2.0) + 1), order=2)
    assert check_gradients(fn, (jnp.arange(3.0), 2.0 * jnp.ones(2)), argnums=1)
    product = lambda a, b: a * jnp.sum(b)  # noqa: E731
    pair = lambda a, b: (jnp.sum(b), a * jnp.ones_like(b))  # noqa: E731
    assert check_gradients(product, (2.0, jnp.arange(3.0)), grad=pair)


def test_a_supplied_gradient_needs_a_scalar():
    with pytest.raises(ValueError, match=r"one scalar output, got \(3,\)"):
        check_gradients(lambda v: v**2, (jnp.arange(3.0),), grad=lambda v: 2 * v)


def test_negative_argnums_and_complex_arguments():
    product = lambda a, b: a * jnp.sum(b)  # noqa: E731
    assert check_gradients(product, (2.0, jnp.arange(3.0)), argnums=-1)
    report = check_gradients(lambda c: jnp.abs(c).sum(), (jnp.ones(2, jnp.complex64),))
    assert report.skipped == ("args[0] (complex64)",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 3}, "order must be one of 1, 2; got 3"),
        ({"modes": ("revrse",)}, "modes must be one of forward, reverse, finite, taylor"),
        ({"modes": ("finite",)}, "modes must hold forward or reverse"),
        ({"modes": ("reverse",)}, "something to test against, got reverse alone"),
        ({"kinks": "allow"}, "kinks must be one of detect, fail, ignore"),
        ({"directions": 0}, "directions must be at least 1, got 0"),
        ({"argnums": 4}, "argnums must lie in 0 … 2, got 4"),
        ({"argnums": -4}, "argnums must lie in 0 … 2, got -4"),
        ({"grad": lambda w, x, y: w[0]}, r"grad of args\[0\] must have shape \(5, 4\), got \(4,\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        check_gradients(risk, (W, X, Y), **({"argnums": 0} | options))


def test_bad_arguments():
    with pytest.raises(TypeError, match="args must be a tuple of arguments, got ndarray"):
        check_gradients(risk, W)
    with pytest.raises(TypeError, match="fn must be a function, got int"):
        check_gradients(3, (W,))
    with pytest.raises(TypeError, match="fn returns no real floating number"):
        check_gradients(lambda w: jnp.argmax(w), (W,))


@gradient_cases(
    {
        "logaddexp": (jnp.logaddexp, (0.3, 0.0)),
        "mean of squares": (lambda w: jnp.mean(w**2), (jnp.arange(3.0),)),
        "abs at zero": (jnp.abs, (0.0,), {"kinks": "detect"}),
    },
    order=2,
)
def test_cases(check):
    check()
