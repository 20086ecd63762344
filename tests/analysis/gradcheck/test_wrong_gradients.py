"""Wrong derivatives are caught, in their mode and order, and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.analysis.gradcheck import assert_gradients, check_gradients
from tests.analysis.gradcheck.mutated_risk import MUTATIONS, W, X, Y, mutated, risk


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_gradient_is_caught(name):
    report = check_gradients(mutated(MUTATIONS[name]), (W, X, Y), argnums=0)
    assert report.outcome == "failed"
    assert not report
    assert report.wrong
    truth = np.asarray(jax.grad(risk)(W, X, Y))
    for entry in report.wrong:
        index = tuple(int(i) for i in entry.name.removeprefix("args[0][").rstrip("]").split(", "))
        np.testing.assert_allclose(entry.expected, truth[index], rtol=1e-3, atol=1e-7)


def test_the_right_gradient_passes_and_the_wrong_coordinate_is_named():
    assert check_gradients(mutated(lambda g, *_: g), (W, X, Y), argnums=0).outcome == "passed"
    flipped = mutated(MUTATIONS["a sign of one coordinate"])
    report = check_gradients(flipped, (W, X, Y), argnums=0, seed=3)
    assert [entry.name for entry in report.wrong] == ["args[0][3, 1]"]
    assert not report.more_wrong
    np.testing.assert_allclose(report.wrong[0].given, -report.wrong[0].expected, rtol=1e-6)
    text = str(report)
    for part in ("failed", "args[0][3, 1]", "WRONG", "seed=3", "argnums=(0,)"):
        assert part in text
    with pytest.raises(AssertionError, match="gradient check: failed"):
        assert_gradients(flipped, (W, X, Y), argnums=0, seed=3)


def test_one_wrong_leaf_of_a_pytree_is_named():
    def fn(params):
        return jnp.sum(jnp.tanh(params["a"])) + jnp.sum(params["b"]["c"] ** 2)

    def grad(params):
        return {"a": 1 - jnp.tanh(params["a"]) ** 2, "b": {"c": 2.002 * params["b"]["c"]}}

    params = {"a": jnp.arange(3.0), "b": {"c": jnp.array([[1.0, -2.0]])}}
    report = check_gradients(fn, (params,), grad=grad)
    assert {entry.name for entry in report.wrong} == {
        "args[0]['b']['c'][0, 0]",
        "args[0]['b']['c'][0, 1]",
    }
    assert check_gradients(fn, (params,), grad=jax.grad(fn), order=2).outcome == "passed"


def test_a_wrong_forward_rule_is_caught_in_its_mode():
    @jax.custom_jvp
    def cube(x):
        return jnp.sum(x**3)

    cube.defjvp(lambda p, t: (cube(*p), 1.001 * jnp.vdot(3 * p[0] ** 2, t[0])))
    report = check_gradients(cube, (jnp.arange(1.0, 4.0),), modes=("forward", "finite"))
    assert [c.name for c in report.checks if not c.holds] == ["forward mode against differences"]


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("against", ["finite", "taylor"])
def test_each_mode_is_tested_against_each_reference(mode, against):
    @jax.custom_jvp
    def cube(x):
        return jnp.sum(x**3)

    cube.defjvp(lambda p, t: (cube(*p), 1.001 * jnp.vdot(3 * p[0] ** 2, t[0])))
    report = check_gradients(cube, (jnp.arange(1.0, 4.0),), modes=(mode, against))
    assert not report.checks[0].holds
    assert mode in report.checks[0].name


def test_a_right_gradient_with_a_wrong_second_derivative_fails_at_order_two():
    @jax.custom_jvp
    def square(x):
        return jnp.sum(x**2)

    frozen = jax.lax.stop_gradient
    square.defjvp(lambda p, t: (square(*p), jnp.vdot(2 * frozen(p[0]), t[0])))
    point = (jnp.array([1.0, -2.0, 3.0]),)
    assert check_gradients(square, point)
    report = check_gradients(square, point, order=2)
    assert {c.name for c in report.checks if not c.holds} == {
        "Hessian against differences of the gradient",
        "Taylor order with the Hessian",
    }


def test_modes_that_disagree_are_told_apart_without_differences():
    @jax.custom_vjp
    def inner(x):
        return x

    inner.defvjp(lambda x: (x, None), lambda _, c: (1.001 * c,))

    @jax.custom_jvp
    def fn(x):
        return jnp.sum(jnp.sin(x))

    # Linear in the tangent, but its transpose is not: only reverse mode sees the wrong rule.
    fn.defjvp(lambda p, t: (fn(*p), jnp.vdot(jnp.cos(p[0]), t[0])))
    assert check_gradients(fn, (jnp.arange(3.0),), modes=("forward", "reverse"))
    report = check_gradients(lambda x: fn(inner(x)), (jnp.arange(3.0),))
    assert report.outcome == "failed"
    assert "forward mode (fn has a custom_vjp" in str(report)


def test_badly_scaled_arguments():
    x = np.float32([1e6, 1e-6, 3.0])
    fn = lambda v: jnp.sum(jnp.sin(v * jnp.array([1e-6, 1e6, 1.0])))  # noqa: E731
    truth = lambda v: jnp.cos(v * jnp.array([1e-6, 1e6, 1.0])) * jnp.array([1e-6, 1e6, 1.0])  # noqa: E731
    assert check_gradients(fn, (x,), order=2).outcome == "passed"
    for i in range(3):
        wrong = lambda v, i=i: truth(v).at[i].multiply(1.001)  # noqa: E731
        report = check_gradients(fn, (x,), grad=wrong)
        assert [entry.name for entry in report.wrong] == [f"args[0][{i}]"]
