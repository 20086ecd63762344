"""Gradients in narrow dtypes, and functions that are not the same in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.analysis.gradcheck import check_gradients
from tests.analysis.gradcheck.mutated_risk import W, X, Y, mutated, risk


def test_numpy_constants_still_work_at_the_callers_precision_afterwards():
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20)
    fn = lambda w: jnp.sum((x @ w - y) ** 2)  # noqa: E731
    w = jnp.ones(3)
    before = jax.jit(jax.grad(fn))(w)
    for checked in (fn, jax.jit(fn)):
        assert check_gradients(checked, (w,), order=2)
        np.testing.assert_allclose(jax.jit(jax.grad(fn))(w), before)
        assert checked(w).dtype == jnp.float32


def test_numpy_constants_that_jax_holds_at_another_precision_work_or_are_explained():
    counts = np.arange(3)
    fn = lambda w: jnp.sum((w * counts) ** 2)  # noqa: E731
    alive = jax.jit(fn)
    alive(jnp.ones(3))
    try:
        assert check_gradients(fn, (jnp.ones(3),))
    except RuntimeError as error:
        assert "closes over 64-bit NumPy arrays" in str(error)  # noqa: PT017
    assert alive(jnp.ones(3)) == 5


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_precision_of_the_arguments(dtype):
    w = jnp.asarray(W, dtype)
    assert check_gradients(risk, (w, X, Y), argnums=0, order=2)

    def only_here(g, *_):
        return jnp.where(g.dtype == dtype, 1.5, 1.0).astype(g.dtype) * g

    report = check_gradients(mutated(only_here), (w, X, Y), argnums=0)
    assert [c.name for c in report.checks if not c.holds] == [
        f"args[0] in {w.dtype} against float64"
    ]


def test_ill_conditioned_float32_is_not_a_wrong_gradient():
    def fn(x):
        return jnp.sum((x + 1e5) ** 3 - 3e10 * x)

    report = check_gradients(fn, (jnp.array([0.1, 0.2, -0.3]),))
    assert report
    assert "ill-conditioned" in str(report)


def test_float32_inside_is_named_and_still_checked():
    def fn(x):
        return jnp.sum(jnp.sin(x.astype(jnp.float32)))

    x = (jnp.linspace(-1, 2, 7),)
    assert check_gradients(fn, x).outcome == "low_precision"
    wrong = lambda v: 1.001 * jnp.cos(v.astype(jnp.float32))  # noqa: E731
    assert check_gradients(fn, x, grad=wrong).outcome == "failed"


def test_random_draws_differ_in_float64_and_are_no_alarm():
    key = jax.random.key(0)
    fn = lambda v, k: jnp.sum(v * jax.random.normal(k, (3,)))  # noqa: E731
    report = check_gradients(fn, (jnp.array([0.3, -1.2, 2.0]), key), order=2)
    assert report.outcome == "passed"
    assert "fn is another function there" in str(report)


@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0, 1e5])
@pytest.mark.parametrize("narrow", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_low_precision_inside_is_never_called_wrong(offset, narrow):
    def fn(x):
        return jnp.mean(jnp.sin(x.astype(narrow))) + min(offset, 1e4)

    report = check_gradients(fn, (jnp.linspace(-1, 2, 7),))
    assert report.outcome in ("low_precision", "inconclusive"), str(report)


def test_fixed_dtypes_are_explained():
    def fn(v):
        step = lambda c, a: (jnp.tanh(c + a), None)  # noqa: E731
        return jax.lax.scan(step, jnp.zeros((), jnp.float32), v)[0]

    with pytest.raises(TypeError, match="it fixes a dtype inside"):
        check_gradients(fn, (jnp.arange(3.0),))


def test_an_error_in_one_array_shows_beside_a_larger_one():
    @jax.custom_vjp
    def fn(small, large):
        return jnp.sum(small**2) + jnp.sum(large**2)

    def backward(kept, cotangent):
        small, large = kept
        factor = 1.001 if small.dtype == jnp.float32 else 1.0
        return cotangent * factor * 2 * small, cotangent * 2 * large

    fn.defvjp(lambda *args: (fn(*args), args), backward)
    x = jnp.array([0.3, -1.2, 2.0])
    report = check_gradients(fn, (x, 1e4 * x))
    assert [c.name for c in report.checks if not c.holds] == ["args[0] in float32 against float64"]
