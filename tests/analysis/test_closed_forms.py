import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.activations import sigmoid
from jaxclf.analysis import closed_forms

FORMULAS = {
    losses.bernoulli_nll: closed_forms.bernoulli_curvature,
    losses.sigmoid_squared_error: closed_forms.sigmoid_squared_error_curvature,
    losses.squared_error: closed_forms.squared_error_curvature,
    losses.categorical_nll: closed_forms.categorical_hessian,
    losses.softmax_squared_error: closed_forms.softmax_squared_error_hessian,
    losses.onehot_squared_error: closed_forms.onehot_squared_error_hessian,
}
SINGLE = list(FORMULAS)[:3]


def draw(loss, num_classes=4, n=300):
    rng = np.random.default_rng(11)
    if loss in SINGLE:
        return 4 * rng.normal(size=n), rng.uniform(size=n).round(1)
    return 3 * rng.normal(size=(n, num_classes)), rng.integers(num_classes, size=n)


@pytest.mark.parametrize("loss", FORMULAS, ids=lambda f: f.__name__)
def test_the_formula_is_the_hessian(loss, x64):
    z, y = draw(loss)
    by_autodiff = jax.jit(jax.vmap(jax.hessian(loss)))(z, y)
    np.testing.assert_allclose(by_autodiff, jax.vmap(FORMULAS[loss])(z, y), atol=1e-12)


CASES = [(loss, None) for loss in SINGLE] + [
    (loss, k) for loss in list(FORMULAS)[3:] for k in (2, 3, 10)
]


@pytest.mark.parametrize(("loss", "num_classes"), CASES)
def test_no_sampled_curvature_leaves_the_bounds(loss, num_classes, x64):
    z, y = draw(loss, num_classes, n=2000)
    hessians = np.asarray(jax.jit(jax.vmap(FORMULAS[loss]))(z, y))
    if num_classes is None:
        hessians = hessians[:, None, None]
    known = closed_forms.curvature(loss, num_classes)
    eigenvalues = np.linalg.eigvalsh(hessians)
    assert eigenvalues.min() >= known.attained[0] - 1e-12
    assert eigenvalues.max() <= known.attained[1] + 1e-12
    assert known.lower <= known.attained[0] <= known.attained[1] <= known.upper
    tight = (-0.4808, 0.6162) if num_classes == 2 else (-1.5, 1.125)
    if loss is losses.softmax_squared_error:
        np.testing.assert_allclose((known.lower, known.upper), tight, atol=1e-4)


def test_the_extremes_of_the_sigmoid_square_are_attained(x64):
    known = closed_forms.curvature(losses.sigmoid_squared_error)
    np.testing.assert_allclose(np.array(known.attained) / 2, [-0.0601022, 0.0770293], atol=5e-8)
    at = [jnp.log(s / (1 - s)) for s in (0.13564, 0.61436)]
    values = [jax.hessian(losses.sigmoid_squared_error)(z, 1.0) for z in at]
    np.testing.assert_allclose(values, known.attained, rtol=1e-8)


def test_the_sign_changes_at_minus_log_two(x64):
    curvature = closed_forms.sigmoid_squared_error_curvature
    root = -np.log(2)
    np.testing.assert_allclose(curvature(root, 1.0), 0, atol=1e-16)
    assert curvature(root - 1e-9, 1.0) < 0 < curvature(root + 1e-9, 1.0)
    np.testing.assert_allclose(sigmoid(root), 1 / 3, rtol=1e-15)


def test_the_softmax_extremes_are_attained_on_a_face_of_two_classes(x64):
    low, high = closed_forms.curvature(losses.softmax_squared_error, 10).attained
    for s, extreme in ((0.13564, low), (0.61436, high)):
        logits = jnp.full(10, -60.0).at[0].set(jnp.log(s / (1 - s))).at[1].set(0.0)
        eigenvalues = np.linalg.eigvalsh(closed_forms.softmax_squared_error_hessian(logits, 0))
        assert np.abs(eigenvalues - extreme).min() < 1e-8


def test_what_is_convex():
    convex = {loss for loss in FORMULAS if closed_forms.curvature(loss, 3).convex}
    assert convex == set(FORMULAS) - {losses.sigmoid_squared_error, losses.softmax_squared_error}
    with pytest.raises(ValueError, match="no closed form of the curvature is known for hinge"):
        closed_forms.curvature(losses.hinge)


def test_the_sigmoid_formula_keeps_its_precision_in_float32():
    formula = closed_forms.sigmoid_squared_error_curvature(17.0, 1.0)
    np.testing.assert_allclose(formula, 4 * np.exp(-34.0), rtol=1e-5)
