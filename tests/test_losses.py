import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.activations import sigmoid, softmax
from tests import reference

BINARY = ("bernoulli_nll", "sigmoid_squared_error")
MARGIN = ("hinge", "squared_hinge", "logistic_margin", "zero_one")
SCALAR = (*BINARY, "gaussian_nll", "squared_error", *MARGIN)
CLASSES = ("categorical_nll", "softmax_squared_error", "onehot_squared_error", "multiclass_hinge")
VECTOR = (*CLASSES, "soft_categorical_nll", "multilabel_nll")


def inputs(name, n=40, num_classes=5, scale=2.0):
    """Logits (or predictions) and matching labels for ``n`` examples."""
    rng = np.random.default_rng(7)
    z = scale * rng.normal(size=(n, num_classes)).astype(np.float32)
    integers = rng.integers(num_classes, size=n).astype(np.int32)
    if name in MARGIN:
        return z[:, 0], np.sign(rng.normal(size=n)).astype(np.float32)
    if name in BINARY:
        return z[:, 0], rng.choice([0, 1, 0.25], size=n).astype(np.float32)
    if name in ("gaussian_nll", "squared_error"):
        return z[:, 0], z[:, 1]
    if name == "soft_categorical_nll":
        return z, rng.dirichlet(np.ones(num_classes), size=n).astype(np.float32)
    if name == "multilabel_nll":
        return z, rng.integers(2, size=(n, num_classes)).astype(np.float32)
    return z, integers


def exact(name, z, y):
    return np.array([float(getattr(reference, name)(a, b)) for a, b in zip(z, y, strict=True)])


@pytest.mark.parametrize("name", SCALAR + VECTOR)
def test_matches_the_exact_value_in_float32(name):
    z, y = inputs(name)
    values = jax.jit(jax.vmap(getattr(losses, name)))(z, y)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, exact(name, z, y), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", SCALAR + VECTOR)
def test_matches_the_exact_value_in_float64(name, x64):
    z, y = (a.astype(np.float64) if a.dtype == np.float32 else a for a in inputs(name))
    values = jax.jit(jax.vmap(getattr(losses, name)))(z, y)
    assert values.dtype == jnp.float64
    np.testing.assert_allclose(values, exact(name, z, y), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", SCALAR + VECTOR)
def test_halves_are_computed_in_float32(name, dtype):
    z, y = inputs(name, n=4)
    z = z.astype(dtype)
    y = y if y.dtype == np.int32 else y.astype(dtype)
    loss = jax.jit(jax.vmap(getattr(losses, name)))
    halves, wide = loss(z, y), loss(z.astype(np.float32), y)
    assert halves.dtype == jnp.float32
    np.testing.assert_array_equal(halves, wide)
    gradient = jax.jit(jax.grad(getattr(losses, name)))(z[0], y[0])
    assert gradient.dtype == dtype


@pytest.mark.parametrize("name", SCALAR + VECTOR)
def test_jit_is_eager_and_vmap_is_a_loop(name):
    z, y = inputs(name, n=5)
    loss = getattr(losses, name)
    loop = np.array([loss(a, b) for a, b in zip(z, y, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(z, y), loop, rtol=3e-7, atol=1e-7)
    gradients = np.array([jax.grad(loss)(a, b) for a, b in zip(z, y, strict=True)])
    batched = jax.jit(jax.vmap(jax.grad(loss)))(z, y)
    np.testing.assert_allclose(batched, gradients, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", VECTOR)
def test_the_hessian_is_symmetric(name, x64):
    z, y = inputs(name, n=1)
    hessian = jax.jit(jax.hessian(getattr(losses, name)))(z[0].astype(np.float64), y[0])
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-14)


def batch_gradient(loss):
    return jax.jit(jax.vmap(jax.grad(loss)))


def test_gradient_identities(x64):
    z, y = inputs("categorical_nll")
    z = z.astype(np.float64)
    p = np.asarray(jax.jit(jax.vmap(softmax))(z))
    one_hot = np.eye(5)[y]
    gradient = batch_gradient(losses.categorical_nll)(z, y)
    np.testing.assert_allclose(gradient, p - one_hot, atol=1e-15)
    np.testing.assert_allclose(
        batch_gradient(losses.onehot_squared_error)(z, y), 2 * (z - one_hot), atol=1e-14
    )
    targets = np.random.default_rng(0).dirichlet(np.ones(5), size=40)
    gradient = batch_gradient(losses.soft_categorical_nll)(z, targets)
    np.testing.assert_allclose(gradient, p - targets, atol=1e-15)
    jacobians = p[:, :, None] * np.eye(5) - p[:, :, None] * p[:, None]
    expected = 2 * np.einsum("nij,nj->ni", jacobians, p - one_hot)
    gradient = batch_gradient(losses.softmax_squared_error)(z, y)
    np.testing.assert_allclose(gradient, expected, atol=1e-15)

    logit, label = z[:, 0], np.linspace(0, 1, 40)
    s = np.asarray(jax.jit(sigmoid)(logit))
    gradient = batch_gradient(losses.bernoulli_nll)(logit, label)
    np.testing.assert_allclose(gradient, s - label, atol=1e-15)
    gradient = batch_gradient(losses.sigmoid_squared_error)(logit, label)
    np.testing.assert_allclose(gradient, 2 * (s - label) * s * (1 - s), atol=1e-15)
    gradient = batch_gradient(losses.multilabel_nll)(z, one_hot)
    np.testing.assert_allclose(gradient, np.asarray(jax.jit(sigmoid)(z)) - one_hot, atol=1e-15)


def test_gradient_in_the_label_is_right_at_hard_labels():
    for label in (0.0, 1.0):
        gradient = jax.jit(jax.grad(losses.bernoulli_nll, argnums=1))(2.0, label)
        np.testing.assert_allclose(gradient, -2.0, rtol=1e-6)
    target = np.float32([0, 1, 0])
    z = np.float32([1, 2, 3])
    gradient = jax.jit(jax.grad(losses.soft_categorical_nll, argnums=1))(z, target)
    np.testing.assert_allclose(gradient, -(z - np.log(np.exp(z).sum())), rtol=1e-6)


@pytest.mark.parametrize("name", ["categorical_nll", "softmax_squared_error"])
def test_hessian_has_the_null_vector_of_softmax(name, x64):
    z, y = inputs(name)
    hessians = jax.jit(jax.vmap(jax.hessian(getattr(losses, name))))(z.astype(np.float64), y)
    np.testing.assert_allclose(hessians, np.swapaxes(hessians, 1, 2), atol=1e-15)
    np.testing.assert_allclose(hessians.sum(-1), 0, atol=1e-15)
    if name == "categorical_nll":
        eigenvalues = np.linalg.eigvalsh(hessians)
        assert eigenvalues.min() > -1e-15
        assert eigenvalues.max() <= 0.5


def test_values_at_zero_logits():
    zero = np.zeros(7, np.float32)
    assert losses.bernoulli_nll(0.0, 1) == pytest.approx(np.log(2))
    assert losses.categorical_nll(zero, 3) == pytest.approx(np.log(7))
    assert losses.soft_categorical_nll(zero, np.full(7, 1 / 7, np.float32)) == pytest.approx(
        np.log(7)
    )
    assert losses.multilabel_nll(zero, np.ones(7, np.float32)) == pytest.approx(7 * np.log(2))
    assert losses.sigmoid_squared_error(0.0, 0) == 0.25
    assert losses.softmax_squared_error(zero, 3) == pytest.approx(1 - 1 / 7)
    assert losses.onehot_squared_error(zero, 3) == 1
    assert losses.hinge(0.0, 1) == losses.squared_hinge(0.0, -1) == losses.zero_one(0.0, 1) == 1
    assert losses.logistic_margin(0.0, -1) == pytest.approx(np.log(2))
    assert losses.multiclass_hinge(zero, 0, margin=2.0) == 12
    assert losses.gaussian_nll(1.0, 1.0, 2.0) == pytest.approx(np.log(2 * np.sqrt(2 * np.pi)))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_huge_logits_give_finite_values_and_derivatives(dtype):
    z = np.array([1e4, -1e4, 0.0], dtype)
    big = float(z[0])
    categorical_nll, bernoulli_nll = map(jax.jit, (losses.categorical_nll, losses.bernoulli_nll))
    np.testing.assert_allclose(
        [categorical_nll(z, k) for k in range(3)], [0, 2 * big, big], rtol=1e-6
    )
    assert bernoulli_nll(z[0], 0) == bernoulli_nll(z[1], 1) == big
    assert bernoulli_nll(z[0], 1) == bernoulli_nll(z[1], 0) == 0
    for name in CLASSES:
        for derivative in (jax.grad, jax.hessian):
            derived = jax.jit(derivative(getattr(losses, name)))
            assert np.isfinite(derived(z, 1)).all(), (name, derivative)
    for name in BINARY:
        curvature = jax.jit(jax.vmap(jax.hessian(getattr(losses, name)), (0, None)))
        assert np.isfinite(curvature(z, 1.0)).all(), name


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_class_at_minus_infinity_that_is_not_the_label_costs_nothing(num_classes):
    z = np.float32([-np.inf, 1, 3][:num_classes])
    finite, label = z[1:].astype(np.float64), 1
    log_p = finite - np.log(np.exp(finite).sum())
    assert losses.categorical_nll(z, label) == pytest.approx(float(-log_p[0]), abs=1e-7)
    for name in ("categorical_nll", "softmax_squared_error", "multiclass_hinge"):
        loss = getattr(losses, name)
        assert np.isfinite(jax.jit(loss)(z, label))
        assert np.isfinite(jax.jit(jax.grad(loss))(z, label)).all(), name
        assert np.isfinite(jax.jit(jax.hessian(loss))(z, label)).all(), name
    assert losses.categorical_nll(z, 0) == losses.multiclass_hinge(z, 0) == np.inf


def test_infinite_logits():
    z = np.float32([np.inf, 0, 1])
    assert losses.categorical_nll(z, 1) == np.inf
    assert losses.categorical_nll(z, 0) == 0
    np.testing.assert_array_equal(jax.jit(jax.grad(losses.categorical_nll))(z, 1), [1, -1, 0])
    assert losses.bernoulli_nll(jnp.inf, 1) == losses.bernoulli_nll(-jnp.inf, 0) == 0
    assert losses.bernoulli_nll(jnp.inf, 0) == losses.bernoulli_nll(-jnp.inf, 1) == np.inf
    assert losses.sigmoid_squared_error(jnp.inf, 0) == 1
    assert losses.multiclass_hinge(z, 0) == 0
    assert losses.multiclass_hinge(z, 1) == np.inf


def test_a_confident_correct_answer_keeps_its_relative_precision():
    assert losses.categorical_nll(np.float32([30, 0]), 0) == pytest.approx(np.exp(-30), rel=1e-5)
    assert losses.bernoulli_nll(30.0, 1) == pytest.approx(np.exp(-30), rel=1e-5)
    assert losses.sigmoid_squared_error(30.0, 1) == pytest.approx(np.exp(-60), rel=1e-5)
    assert jax.jit(jax.hessian(losses.bernoulli_nll))(30.0, 1) == pytest.approx(
        np.exp(-30), rel=1e-5
    )
    tail, z = np.exp(-20), np.float32([20, 0])
    for transform in (jax.grad, jax.jacfwd):
        gradient = jax.jit(transform(losses.categorical_nll))(z, 0)
        np.testing.assert_allclose(gradient, [-tail, tail], rtol=1e-5)
    hessian = jax.jit(jax.hessian(losses.categorical_nll))(z, 0)
    np.testing.assert_allclose(hessian, [[tail, -tail], [-tail, tail]], rtol=1e-5)


def test_smoothing_is_the_soft_label():
    z = np.float32([0.3, -1, 2])
    target = np.float32(0.9 * np.array([0, 1, 0]) + 0.1 / 3)
    smooth = losses.categorical_nll(z, 1, smoothing=0.1)
    np.testing.assert_allclose(smooth, losses.soft_categorical_nll(z, target), rtol=1e-6)
    np.testing.assert_allclose(
        losses.bernoulli_nll(0.3, 1, smoothing=0.1), losses.bernoulli_nll(0.3, 0.95), rtol=1e-6
    )
    traced = jax.jit(lambda e: losses.categorical_nll(z, 1, smoothing=e))(0.1)
    np.testing.assert_allclose(traced, smooth, rtol=1e-6)
    with pytest.raises(ValueError, match=r"smoothing must be .*, at most 1, got 1.5"):
        losses.categorical_nll(z, 1, smoothing=np.float32(1.5))


def test_binary_losses_are_the_two_class_losses():
    z = np.float32([0, 1.7])
    np.testing.assert_allclose(
        losses.bernoulli_nll(1.7, 0), losses.categorical_nll(z, 0), rtol=1e-6
    )
    np.testing.assert_allclose(
        2 * losses.sigmoid_squared_error(1.7, 1), losses.softmax_squared_error(z, 1), rtol=1e-6
    )
    np.testing.assert_allclose(
        losses.logistic_margin(1.7, -1), losses.bernoulli_nll(1.7, 0), rtol=1e-6
    )


@pytest.mark.parametrize("label", [-1, 3, 250])
@pytest.mark.parametrize("name", CLASSES)
def test_a_label_out_of_range_is_nan_and_not_another_class(name, label):
    loss = jax.jit(getattr(losses, name))
    assert np.isnan(loss(np.float32([0, 1, 2]), label))


def test_labels_of_a_narrow_dtype_do_not_wrap():
    z = np.zeros(300, np.float32)
    z[44] = 9.0  # 300 - 256 = 44
    narrow = losses.categorical_nll(z, jnp.uint8(44))
    np.testing.assert_allclose(narrow, losses.categorical_nll(z, 44))
    assert losses.squared_error(jnp.uint8(3), jnp.uint8(5)) == 4
    with pytest.raises(TypeError, match="does not fit in 32 bits"):
        losses.categorical_nll(jnp.zeros(3), np.int64(2**32 + 1))


def test_labels_of_another_convention_are_nan():
    assert jnp.isnan(losses.hinge(1.0, 0))
    assert jnp.isnan(losses.bernoulli_nll(-50.0, -1))
    assert jnp.isnan(losses.sigmoid_squared_error(0.0, 2))
    assert jnp.isnan(losses.multilabel_nll(jnp.zeros(2), jnp.array([1.0, -1.0])))


def test_static_faults_name_the_argument():
    with pytest.raises(ValueError, match=r"logit must have shape \(\), got \(4, 1\); use jax.vmap"):
        losses.bernoulli_nll(jnp.zeros((4, 1)), jnp.zeros(4))
    with pytest.raises(ValueError, match=r"logits and probabilities must have the same shape"):
        losses.soft_categorical_nll(jnp.zeros(3), jnp.zeros(4))
    with pytest.raises(TypeError, match="label must be integers, got dtype float32"):
        losses.categorical_nll(jnp.zeros(3), jnp.float32(1))
    with pytest.raises(ValueError, match="at least two classes"):
        losses.categorical_nll(jnp.zeros(1), 0)
    with pytest.raises(ValueError, match="same shape"):
        losses.squared_error(jnp.zeros((4, 1)), jnp.zeros(4))
    with pytest.raises(ValueError, match="scale must be finite, above 0, got 0"):
        losses.gaussian_nll(0.0, 0.0, 0)
    with pytest.raises(TypeError, match="real"):
        losses.bernoulli_nll(jnp.complex64(1), 0)
