import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.analysis.gradcheck import assert_gradients, check_gradients, gradient_cases

W = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
Y = np.random.default_rng(2).integers(5, size=30)


def risk(w, x, y):
    return jnp.mean(jax.vmap(losses.categorical_nll)(x @ w.T, y))


def mutated(change):
    """``risk`` with a reverse-mode rule whose gradient in w is changed."""

    @jax.custom_vjp
    def function(w, x, y):
        return risk(w, x, y)

    def forward(w, x, y):
        return function(w, x, y), change(jax.grad(risk)(w, x, y), w, x, y)

    def backward(gradient, cotangent):
        return cotangent * gradient, None, None

    function.defvjp(forward, backward)
    return function


MUTATIONS = {
    "a factor of 1.001": lambda g, w, x, y: 1.001 * g,
    "a sign of one coordinate": lambda g, w, x, y: g.at[3, 1].multiply(-1),
    "a tenth of a percent of one coordinate": lambda g, w, x, y: g.at[3, 1].multiply(1.001),
    "a dropped example": lambda g, w, x, y: g - jax.grad(risk)(w, x[:1], y[:1]) / len(x),
    "an index off by one": lambda g, w, x, y: jnp.roll(g, 1, axis=0),
    "one class": lambda g, w, x, y: g.at[2].multiply(1.01),
    "a missing mean": lambda g, w, x, y: g * len(x),
    "a stray constant": lambda g, w, x, y: g + 1e-6,
    "zero": lambda g, w, x, y: 0 * g,
}


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


def test_steps_out_of_the_domain_are_left_out():
    edge = (jnp.array([1e-3, 2.0]),)
    assert check_gradients(lambda x: jnp.sum(jnp.log(x) + jnp.sqrt(x)), edge, order=2)
    assert check_gradients(lambda x: jnp.sum(jnp.arccos(x)), (jnp.array([0.999, 0.0]),))
    assert check_gradients(lambda x: jnp.sum(jnp.exp(x)), (jnp.array([80.0]),))


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


def test_at_an_optimum_the_zero_gradient_passes():
    assert check_gradients(lambda x: jnp.sum(x**2), (jnp.zeros(4),), order=2)
    assert check_gradients(lambda x: jnp.sum((x - 0.1) ** 2), (jnp.full(4, 0.1),), order=2)
    assert check_gradients(lambda x: jnp.sum(jnp.ones(3)) + 0 * x, (1.0,))


def relu(x):
    return jnp.sum(jax.nn.relu(x))


def absolute(x):
    return jnp.sum(jnp.abs(x))


def hinge(x):
    return jnp.sum(jax.vmap(losses.hinge)(x, jnp.ones(3)))


@pytest.mark.parametrize(
    ("fn", "corner"),
    [(relu, [-1.0, 0.0, 2.0]), (absolute, [0.0, 0.0, 3.0]), (hinge, [1.0, 0.5, 2.0])],
)
def test_a_kink_is_named_and_not_failed(fn, corner):
    report = check_gradients(fn, (jnp.array(corner),))
    assert report.outcome == "kink"
    assert report
    for kink in report.kinks:
        assert kink.before < kink.after
        assert kink.inside
    assert "kink along direction" in str(report)
    assert check_gradients(fn, (jnp.array(corner),), kinks="fail").outcome == "kink_failed"
    assert check_gradients(fn, (jnp.array(corner),), kinks="ignore")
    assert check_gradients(fn, (jnp.array(corner) + 0.25,)).outcome == "passed"


def test_one_sided_derivatives_are_right():
    report = check_gradients(absolute, (jnp.array([0.0]),))
    for kink in report.kinks:
        np.testing.assert_allclose(abs(kink.after), -kink.before * np.sign(kink.after), rtol=1e-9)
        np.testing.assert_allclose(kink.after, -kink.before, rtol=1e-9)


def test_outside_the_subdifferential_or_wrong_beside_the_kink_fails():
    x = (jnp.array([-1.0, 0.0, 2.0]),)
    outside = check_gradients(relu, x, grad=lambda v: (v > 0) + 2.0 * (v == 0))
    assert outside.outcome == "failed"
    assert not all(kink.inside for kink in outside.kinks)
    beside = check_gradients(relu, x, grad=lambda v: 1.001 * (v > 0))
    assert beside.outcome == "failed"
    assert all("beside the kink" in check.name for check in beside.checks)


def test_many_corners_nearby_are_no_alarm():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 6)).astype(np.float32)
    y = np.sign(rng.normal(size=4000)).astype(np.float32)
    fn = lambda w: jnp.mean(jax.vmap(losses.hinge)(x @ w, y))  # noqa: E731
    for seed in range(5):
        w = jnp.asarray(rng.normal(size=6).astype(np.float32))
        assert check_gradients(fn, (w,), seed=seed).outcome == "passed"


def test_float32_inside_is_named_and_still_checked():
    def fn(x):
        return jnp.sum(jnp.sin(x.astype(jnp.float32)))

    x = (jnp.linspace(-1, 2, 7),)
    assert check_gradients(fn, x).outcome == "low_precision"
    wrong = lambda v: 1.001 * jnp.cos(v.astype(jnp.float32))  # noqa: E731
    assert check_gradients(fn, x, grad=wrong).outcome == "failed"


def test_named_outcomes():
    x = (jnp.array([-1.0, 2.0]),)
    noise = np.random.default_rng(0)
    report = check_gradients(lambda v: jnp.sum(v) * noise.normal(), x)
    assert report.outcome == "not_deterministic"
    report = check_gradients(lambda v: jnp.sum(jnp.log(v)), x)
    assert report.outcome == "not_finite"
    report = check_gradients(lambda v: jnp.sum(jnp.sqrt(v)), (jnp.array([1.0, 0.0]),))
    assert (report.outcome, report.detail) == (
        "not_finite",
        "the gradient is not finite at args[0][1]",
    )
    report = check_gradients(lambda n: 2.0 * n, (jnp.arange(3),), argnums=0)
    assert report.outcome == "nothing_to_check"
    assert report.skipped == ("args[0] (int32)",)
    report = check_gradients(lambda v: jnp.sum(v) + 1.0, (jnp.zeros((0, 3)),))
    assert report.outcome == "nothing_to_check"
    assert report.skipped == ("args[0] (empty)",)
    report = check_gradients(lambda v, e: jnp.sum(v**2) + e.sum(), (*x, jnp.zeros(0)))
    assert report.outcome == "passed"


def test_noise_that_hides_the_gradient_is_inconclusive():
    def fn(x):  # the value is rounded to steps far larger than the differences
        return jnp.sum(x) + jnp.round(jnp.sin(1e7 * jnp.sum(x)) * 50)

    x = (jnp.array([0.3, 0.7]),)
    assert check_gradients(fn, x, grad=jnp.ones_like).outcome in ("inconclusive", "failed")
    # Rounding of the value hides everything: neither the right gradient nor a wrong one passes.
    buried = lambda v: 1e14 + jnp.sum(jnp.sin(v))  # noqa: E731
    assert check_gradients(buried, x, grad=jnp.cos).outcome == "inconclusive"
    assert check_gradients(buried, x, grad=lambda v: -jnp.cos(v)).outcome == "inconclusive"


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


def test_badly_scaled_arguments():
    x = np.float32([1e6, 1e-6, 3.0])
    fn = lambda v: jnp.sum(jnp.sin(v * jnp.array([1e-6, 1e6, 1.0])))  # noqa: E731
    truth = lambda v: jnp.cos(v * jnp.array([1e-6, 1e6, 1.0])) * jnp.array([1e-6, 1e6, 1.0])  # noqa: E731
    assert check_gradients(fn, (x,), order=2).outcome == "passed"
    for i in range(3):
        wrong = lambda v, i=i: truth(v).at[i].multiply(1.001)  # noqa: E731
        report = check_gradients(fn, (x,), grad=wrong)
        assert [entry.name for entry in report.wrong] == [f"args[0][{i}]"]


def test_no_global_setting_changes_and_nothing_compiles_twice():
    traces = []

    def fn(w):
        traces.append(1)
        return jnp.sum(jnp.tanh(w) ** 2)

    check_gradients(fn, (W,), order=2)
    assert not jax.config.jax_enable_x64
    assert jnp.zeros(1).dtype == jnp.float32
    first = len(traces)
    check_gradients(fn, (W + 1,), order=2, seed=0)
    # Only the eager calls and the inspection of the program trace again.
    assert len(traces) - first <= 10


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


def test_near_the_edge_of_the_domain():
    edge = (jnp.array([1e-12, 0.5, 1.0]),)
    assert check_gradients(lambda v: jnp.sum(jnp.log(v)), edge)
    assert check_gradients(lambda v: jnp.sum(jnp.sqrt(v)), edge)
    assert not check_gradients(lambda v: jnp.sum(jnp.log(v)), edge, grad=lambda v: 1.001 / v)


def test_a_corner_of_the_gradient_is_no_alarm_at_order_two():
    ones = jnp.ones(3)
    squared = lambda z: jnp.sum(jax.vmap(losses.squared_hinge)(z, ones))  # noqa: E731
    assert check_gradients(squared, (jnp.array([1.0, 0.5, 2.0]),), order=2)
    assert check_gradients(lambda v: jnp.sum(v * jnp.abs(v)), (jnp.array([0.0, 1.0]),), order=2)


def test_a_saturated_cross_entropy_is_no_alarm():
    fn = lambda z: -jax.nn.log_softmax(z)[0]  # noqa: E731
    assert check_gradients(fn, (jnp.array([20.0, 0.0]),))


def test_differences_that_alias_are_no_alarm():
    x = jnp.array([0.3, -1.2, 2.0])
    for fast in (1e6, 1e8):
        report = check_gradients(lambda v, w=fast: jnp.sum(jnp.sin(w * v)), (x,))
        assert report.outcome != "failed"


def test_fixed_dtypes_are_explained():
    def fn(v):
        step = lambda c, a: (jnp.tanh(c + a), None)  # noqa: E731
        return jax.lax.scan(step, jnp.zeros((), jnp.float32), v)[0]

    with pytest.raises(TypeError, match="it fixes a dtype inside"):
        check_gradients(fn, (jnp.arange(3.0),))


def test_a_supplied_gradient_needs_a_scalar():
    with pytest.raises(ValueError, match=r"one scalar output, got \(3,\)"):
        check_gradients(lambda v: v**2, (jnp.arange(3.0),), grad=lambda v: 2 * v)


def test_negative_argnums_and_complex_arguments():
    product = lambda a, b: a * jnp.sum(b)  # noqa: E731
    assert check_gradients(product, (2.0, jnp.arange(3.0)), argnums=-1)
    report = check_gradients(lambda c: jnp.abs(c).sum(), (jnp.ones(2, jnp.complex64),))
    assert report.skipped == ("args[0] (complex64)",)


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


def test_the_report_is_data():
    report = check_gradients(mutated(MUTATIONS["one class"]), (W, X, Y), argnums=0)
    plain = report.to_dict()
    again = json.loads(json.dumps(plain))
    assert again["checks"] == plain["checks"]
    assert again["wrong"] == plain["wrong"]
    assert plain["ok"] is False
    assert plain["wrong"][0]["name"].startswith("args[0][2, ")
    assert plain["reproduce"] == "jaxclf.check_gradients(function, args, argnums=(0,), seed=0)"


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
