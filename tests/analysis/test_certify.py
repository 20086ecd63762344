"""Verdicts on convexity: what must be proven, what must be refuted, and what must stay open."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxclf import load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.activations import sigmoid, softplus
from jaxclf.analysis import closed_forms
from jaxclf.analysis.certify import Convex, NonConvex, Unknown, certify_convexity
from jaxclf.analysis.disciplined import disciplined
from jaxclf.analysis.intervals import enclosure
from jaxclf.analysis.jaxpr_walk import traced
from jaxclf.analysis.jensen import refutes
from jaxclf.analysis.negative_curvature import risk_hessian
from jaxclf.analysis.sigmoid_polynomials import exact_curvature
from jaxclf.data import transforms
from jaxclf.models import linear

CONVEX = {
    "bernoulli_nll": {},
    "squared_error": {},
    "gaussian_nll": {},
    "hinge": {},
    "squared_hinge": {},
    "logistic_margin": {},
    "categorical_nll": {"num_logits": 4},
    "multiclass_hinge": {"num_logits": 4},
    "onehot_squared_error": {"num_logits": 3},
    "soft_categorical_nll": {"num_logits": 3, "labels": [np.array([0.2, 0.3, 0.5])]},
    "multilabel_nll": {"num_logits": 3, "labels": [np.array([1, 0, 1])]},
}
NOT_CONVEX = {
    "sigmoid_squared_error": {},
    "zero_one": {},
    "softmax_squared_error": {"num_logits": 3},
}


@pytest.mark.parametrize("name", CONVEX)
def test_convex_losses_are_proven(name):
    verdict = certify_convexity(getattr(losses, name), **CONVEX[name])
    assert isinstance(verdict, Convex)
    assert all("convex" in reason for reason in verdict.proof)
    # A proof that the Hessian contradicts would be none.
    asked = CONVEX[name].get("labels") or [1]
    size = CONVEX[name].get("num_logits")
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for label in asked:
            points = jnp.asarray(3 * rng.normal(size=(50, *([] if size is None else [size]))))
            hessian = jax.vmap(jax.hessian(lambda z, y=label: getattr(losses, name)(z, y)))
            values = np.linalg.eigvalsh(np.asarray(hessian(points)).reshape(50, size or 1, -1))
        assert values.min() > -1e-12


@pytest.mark.parametrize("name", NOT_CONVEX)
def test_losses_that_are_not_convex_are_refuted(name):
    loss = getattr(losses, name)
    verdict = certify_convexity(loss, **NOT_CONVEX[name])
    assert isinstance(verdict, NonConvex)
    a, b, excess = verdict.witness
    with jax.enable_x64(True):
        at = [float(loss(jnp.asarray(z), verdict.label)) for z in (a, b, (a + b) / 2)]
    assert at[2] - (at[0] + at[1]) / 2 == pytest.approx(excess, abs=1e-9)
    assert excess > 1e-4


def test_the_library_has_no_loss_without_a_verdict():
    named = {*CONVEX, *NOT_CONVEX}
    public = {
        name
        for name, value in vars(losses).items()
        if callable(value) and getattr(value, "__module__", "") == losses.__name__
        if not name.startswith("_")
    }
    assert public == named


def test_the_curvature_of_squared_error_changes_its_sign_at_log_2():
    for label, side in ((1, -1), (0, 1)):
        exact = exact_curvature(losses.sigmoid_squared_error, label)
        [root] = {piece.low for piece in exact.pieces} - {-math.inf}
        assert root == pytest.approx(side * math.log(2), abs=1e-15)
        signs = [piece.sign for piece in exact.pieces]
        assert signs == ([-1, 1] if label else [1, -1])
        assert exact.lowest / 2 == pytest.approx(-0.0601022, abs=1e-7)
        assert exact.highest / 2 == pytest.approx(0.0770293, abs=1e-7)
        assert exact.lowest_at == pytest.approx(side * math.log(0.86436 / 0.13564), abs=1e-3)


@pytest.mark.parametrize("label", [0, 1, 0.3])
@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (losses.bernoulli_nll, closed_forms.bernoulli_curvature),
        (losses.sigmoid_squared_error, closed_forms.sigmoid_squared_error_curvature),
    ],
)
def test_the_exact_polynomial_is_the_second_derivative(loss, formula, label, x64):
    exact = exact_curvature(loss, label)
    for z in np.random.default_rng(0).normal(size=40) * 4:
        s = 1 / (1 + math.exp(-z))
        value = sum(float(c) * s**i for i, c in enumerate(exact.coefficients))
        assert value == pytest.approx(float(jax.hessian(loss)(z, label)), abs=1e-12)
        assert value == pytest.approx(float(formula(jnp.asarray(z), label)), abs=1e-12)
        [piece] = [p for p in exact.pieces if p.low < z < p.high]
        assert np.sign(value) == piece.sign or abs(value) < 1e-12


def test_a_loss_of_ones_own_is_proven_refuted_or_left_open():
    def focal(z, y):
        return (1 - jax.nn.sigmoid(z)) ** 2 * jax.nn.softplus(-z)

    def cubic(z, y):
        return jax.nn.softplus(-z) + (1 - jax.nn.sigmoid(z)) ** 3

    def through_the_back_door(z, y):
        return jnp.log(jnp.exp(z) + jnp.exp(-z))

    # Not in the ring's second derivative alone, but curved down far to the left.
    assert isinstance(certify_convexity(focal, labels=[1]), NonConvex)
    verdict = certify_convexity(cubic, labels=[1])
    least = min(float(jax.hessian(lambda z: cubic(z, 1))(z)) for z in np.linspace(-9.0, 9, 200))
    assert isinstance(verdict, Convex if least >= 0 else NonConvex)
    assert isinstance(certify_convexity(through_the_back_door, labels=[1]), Convex)
    smooth = certify_convexity(lambda z, y: jax.nn.softplus(-z) + z**2, labels=[1])
    assert isinstance(smooth, Convex)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda z: jnp.maximum(z, 1 - z), "convex"),
        (lambda z: jnp.minimum(z, 2 * z), "concave"),
        (lambda z: -jnp.abs(3 * z - 1), "concave"),
        (lambda z: jnp.exp(jnp.square(z)) / 2, "convex"),
        (lambda z: jnp.square(jnp.minimum(z, -1.0)), "convex"),
        (lambda z: jnp.square(jnp.maximum(z, -1.0)), "unknown"),
        (lambda z: jnp.maximum(z, -z) - z, "convex"),
        (lambda z: jnp.maximum(z, 0) - jnp.maximum(-z, 0), "affine"),
        (lambda z: jnp.maximum(z, 0) - jnp.maximum(-2 * z, 0), "concave"),
        (lambda z: jnp.maximum(z, 0) - jnp.maximum(-z / 2, 0), "convex"),
        (lambda z: z * z, "convex"),
        (lambda z: jnp.where(z > 0, z, 2 * z), "concave"),
        (lambda z: jnp.where(z > 0, z**2, -(z**2)), "unknown"),
        (lambda z: 5.0 + 0 * z, "affine"),
        (lambda z: jnp.sin(z), "unknown"),
    ],
)
def test_the_rules_of_composition(function, shape):
    assert disciplined(lambda z, y: function(z), 0, None).shape == shape


def test_enclosures_hold_the_value_and_are_thin():
    rng = np.random.default_rng(0)
    closed = traced(lambda z: losses.bernoulli_nll(z, 1), ())
    with mpmath.workdps(50):
        for z in rng.normal(size=10) * 20:
            found = enclosure(closed, z)
            exact = mpmath.log(1 + mpmath.exp(-mpmath.mpf(float(z))))
            assert found.a <= exact <= found.b
            assert float(found.delta) <= 1e-30 * max(1, abs(float(exact)))
    assert enclosure(traced(jnp.sin, ()), 1.0) is None


def test_points_that_break_no_inequality_refute_nothing():
    assert refutes(losses.bernoulli_nll, 1, -1.0, 1.0) is None
    assert refutes(losses.sigmoid_squared_error, 1, 0.0, 1.0) is None
    assert refutes(losses.squared_error, 1.0, -1.0, 1.0) is None
    with pytest.raises(ValueError, match="middle of a and b is not exact"):
        refutes(losses.bernoulli_nll, 1, 0.0, 5e-324)


def test_the_ridge_makes_the_risk_convex(x64):
    verdict = certify_convexity(losses.sigmoid_squared_error)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3))
    moment = np.linalg.eigvalsh(features.T @ features / 200)[-1]
    ridge = verdict.ridge * moment
    labels = rng.integers(0, 2, 200)

    def risk(w):
        return jnp.mean(jax.vmap(losses.sigmoid_squared_error)(features @ w, labels))

    for scale in (0.1, 1.0, 5.0):
        w = scale * rng.normal(size=3)
        assert np.linalg.eigvalsh(jax.hessian(risk)(w))[0] + ridge >= 0
    assert verdict.ridge == pytest.approx(2 * 0.0601022, abs=1e-6)


def test_what_cannot_be_asked():
    with pytest.raises(ValueError, match="labels must not be empty"):
        certify_convexity(losses.bernoulli_nll, labels=[])
    with pytest.raises(ValueError, match="at least two classes"):
        certify_convexity(losses.categorical_nll, num_logits=1)
    assert exact_curvature(losses.hinge, 1) is None
    assert exact_curvature(losses.squared_error, 0.5).coefficients == (Fraction(2),)


def named_like_the_library(name, body):
    body.__name__ = name
    return jax.jit(body)


def out_of_bounds(z):
    two = jnp.concatenate([jnp.ones(1), z[None]])
    return (two.at[jnp.array([9])].get(mode="fill", fill_value=0)[0] - 0.5) * z**2


def slightly_negative(z):
    s, p = sigmoid(z), softplus(z)
    return (s * s - s + p) - 12 * (3 / 16) * p + 6 * (9 / 256) * z * z / 2 - 2.0**-140 * z * z / 2


NEVER_CONVEX = {
    "the minimum is between two floats": (slightly_negative, None),
    "a root very close to s = 0": (
        lambda z: (softplus(z) - sigmoid(z)) / 2 - 2.0**-70 * softplus(z),
        None,
    ),
    "a softplus in name only": (named_like_the_library("softplus", lambda x: -(x**2)), None),
    "a relu in name only": (named_like_the_library("relu", lambda x: jnp.minimum(x, 0)), None),
    "a kink that points up": (lambda z: jnp.log1p(jnp.exp(-jnp.abs(z))), None),
    "a softmax of some classes": (lambda z: -jax.nn.log_softmax(z, where=z > 0)[1], 3),
    "an index out of bounds": (out_of_bounds, None),
    "an index that gives NaN": (lambda z: jnp.take(z, jnp.array([5]))[0], 3),
    "an index that depends on the logits": (lambda z: -z[jnp.argmax(z)], 3),
    "sums along the vector": (
        lambda z: -(jnp.cumsum(jnp.concatenate([jnp.ones(2), z]))[3] ** 2),
        2,
    ),
    "bits of an integer": (lambda z: -(1.0 * (1 | z.astype(jnp.int32))), None),
    "a difference of maxima": (lambda z: jnp.maximum(z, 0) - jnp.maximum(2 * z, -1), None),
    "a branch by the sign": (lambda z: jnp.where(z > 0, jnp.sqrt(jnp.abs(z)), z), None),
    "a quotient": (lambda z: -1 / (1 + z * z), None),
}


@pytest.mark.parametrize("name", NEVER_CONVEX)
def test_what_is_not_convex_is_never_called_convex(name):
    function, num_logits = NEVER_CONVEX[name]
    verdict = certify_convexity(lambda z, y: function(z), labels=[1], num_logits=num_logits)
    assert not isinstance(verdict, Convex)


def test_a_witness_of_any_label_counts_and_the_ridge_is_for_all():
    def one_of_two(z, y):
        return jax.scipy.special.logsumexp(z) if y == 0 else -jnp.sum(z**2)

    verdict = certify_convexity(one_of_two, num_logits=2)
    assert isinstance(verdict, NonConvex)
    assert verdict.label == 1
    assert verdict.ridge is None
    heavier = certify_convexity(lambda z, y: (1 + 9 * y) * losses.sigmoid_squared_error(z, y))
    assert heavier.ridge == pytest.approx(20 * 0.0601022, abs=1e-5)


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"must return one number \(\), got \(1,\)"):
        certify_convexity(lambda z, y: z[None] ** 2)


def rows(name="breast_cancer"):
    data = load_dataset(name, dtype=np.float64)
    features = transforms.standardise(transforms.fit_standardiser(data.features), data.features)
    return make_batch(linear.append_one(features)[::4], data.labels[::4])


def enclosed_risk(loss, batch, ridge, weights):
    """In float64, with the penalty."""
    z = np.asarray(batch.features) @ weights.T
    values = np.asarray(jax.vmap(loss)(jnp.asarray(z), jnp.asarray(batch.labels)))
    return values.mean() + ridge / 2 * np.sum(weights**2)


@pytest.mark.parametrize(("loss", "classes", "name"), [
    (losses.sigmoid_squared_error, None, "breast_cancer"),
    (losses.softmax_squared_error, 3, "wine"),
])  # fmt: skip
def test_a_risk_is_refuted_below_the_ridge_that_is_proven_above(loss, classes, name, x64):
    batch, ridge = rows(name), 0.05
    verdict = certify_convexity(loss, num_logits=classes, data=batch, penalty=penalties.l2(ridge))
    assert isinstance(verdict, NonConvex)
    a, b, excess = verdict.witness
    at = [enclosed_risk(loss, batch, ridge, w) for w in (a, b, (a + b) / 2)]
    assert 0 < excess <= at[2] - (at[0] + at[1]) / 2 + 1e-12
    assert verdict.smallest_eigenvalue < 0
    # What is needed lies between what the witness shows and what is proven.
    assert ridge - verdict.smallest_eigenvalue < verdict.ridge
    features = np.asarray(batch.features)
    largest = np.linalg.eigvalsh(features.T @ features / len(features))[-1]
    lower = closed_forms.curvature(loss, classes).lower
    assert verdict.ridge <= -lower * largest * (1 + 1e-9)
    proven = certify_convexity(
        loss, num_logits=classes, data=batch, penalty=penalties.l2(1.1 * verdict.ridge)
    )
    assert isinstance(proven, Convex)
    assert proven.strong_convexity == pytest.approx(0.1 * verdict.ridge)
    weights = np.random.default_rng(0).normal(size=a.shape)
    hessian = risk_hessian(loss, jnp.asarray(weights), *batch[:2])
    assert np.linalg.eigvalsh(hessian)[0] + 1.1 * verdict.ridge >= proven.strong_convexity


def test_strong_convexity_of_what_is_convex_is_that_of_the_ridge_and_of_the_loss(x64):
    batch = rows()
    log = certify_convexity(losses.bernoulli_nll, data=batch, penalty=penalties.l2(0.3))
    assert (log.strong_convexity, log.ridge) == (0.3, 0.0)
    squared = certify_convexity(losses.squared_error, data=batch, penalty=penalties.l2(0.3))
    features = np.asarray(batch.features)
    smallest = np.linalg.eigvalsh(2 * features.T @ features / len(features))[0]
    assert squared.strong_convexity == pytest.approx(0.3 + smallest, rel=1e-6)
    assert squared.strong_convexity <= 0.3 + smallest
    assert certify_convexity(losses.bernoulli_nll, data=batch).strong_convexity == 0


def test_only_the_labels_that_the_rows_have_count(x64):
    # The curvature of (σ - 1/2)² is -1/8 at the lowest, that of (σ - 1)² about -0.12.
    batch = rows()
    ones = batch._replace(labels=np.ones(len(batch.labels), int))
    soft = batch._replace(labels=np.full(len(batch.labels), 0.5))
    both = certify_convexity(losses.sigmoid_squared_error, data=ones, penalty=penalties.l2(0.0))
    half = certify_convexity(losses.sigmoid_squared_error, data=soft, penalty=penalties.l2(0.0))
    assert half.ridge < both.ridge


def test_a_hidden_layer_gets_a_witness_or_nothing(x64):
    batch = rows("wine")
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"in": jax.random.normal(keys[0], (6, 14)), "out": jax.random.normal(keys[1], (3, 6))}

    def logits(params, x):
        return params["out"] @ jnp.tanh(params["in"] @ x)

    verdict = certify_convexity(
        losses.categorical_nll, model=logits, params=params, data=batch, penalty=penalties.l2(1e-3)
    )
    assert isinstance(verdict, NonConvex)
    _, restore = ravel_pytree(params)
    objective = make_objective(logits, losses.categorical_nll, penalties.l2(1e-3))
    a, b, excess = verdict.witness
    at = [float(objective(restore(jnp.asarray(v)), batch)) for v in (a, b, (a + b) / 2)]
    assert at[2] - (at[0] + at[1]) / 2 >= excess > 0
    plain = certify_convexity(
        losses.categorical_nll, model=lambda p, x: p @ x, params=jnp.ones((3, 14)), data=batch
    )
    assert isinstance(plain, Unknown)  # convex, but no rule says so here


def test_bad_questions_about_data_are_one_sentence(x64):
    with pytest.raises(ValueError, match="together with data"):
        certify_convexity(losses.bernoulli_nll, penalty=penalties.l2(1.0))
    with pytest.raises(ValueError, match="together with data and params"):
        certify_convexity(losses.bernoulli_nll, model=lambda p, x: p @ x)
    nan = rows()._replace(features=np.full((3, 2), np.nan), labels=np.zeros(3, int))
    with pytest.raises(ValueError, match="features"):
        certify_convexity(losses.bernoulli_nll, data=nan)


@pytest.mark.parametrize(("loss", "classes", "labels"), [
    (losses.categorical_nll, 2, [0, 1, 2]),
    (losses.categorical_nll, 3, [-1, 0, 1]),
    (losses.bernoulli_nll, None, [-1, 1, 1]),
])  # fmt: skip
def test_labels_that_the_loss_does_not_take_are_refused(loss, classes, labels, x64):
    batch = make_batch(np.eye(3), np.array(labels))
    with pytest.raises(ValueError, match="the loss of label"):
        certify_convexity(loss, num_logits=classes, data=batch)


def test_rows_of_weight_zero_are_not_asked(x64):
    batch = make_batch(np.eye(3), np.array([-1, 0, 1]))._replace(weights=np.array([0.0, 1, 1]))
    assert isinstance(certify_convexity(losses.bernoulli_nll, data=batch), Convex)


@pytest.mark.parametrize("penalty", [penalties.Penalty(l2=-1.0), penalties.Penalty(l1=-1.0),
                                     penalties.Penalty(l2=float("nan"))])  # fmt: skip
def test_what_is_no_penalty_is_refused(penalty, x64):
    with pytest.raises(ValueError, match="must be"):
        certify_convexity(losses.bernoulli_nll, data=rows(), penalty=penalty)


def test_rounding_in_a_narrow_dtype_refutes_nothing(x64):
    rng = np.random.default_rng(0)
    batch = make_batch(rng.normal(size=(20, 24)), rng.integers(0, 2, 20))

    def logit(p, x):
        return jnp.dot(p.astype(jnp.bfloat16), x.astype(jnp.bfloat16)).astype(jnp.float64)

    for seed in range(3):
        verdict = certify_convexity(
            losses.bernoulli_nll, model=logit, params=jnp.ones(24), data=batch,
            penalty=penalties.l2(1e-9), seed=seed,
        )  # fmt: skip
        assert isinstance(verdict, Unknown)


def test_a_proven_ridge_bounds_sums_of_many_terms(x64):
    # All terms alike: the moment is x², and a sum of a million is off by its roundings.
    x = 0.41063548932741
    batch = make_batch(np.full((10**6, 1), x), np.ones(10**6, int))
    verdict = certify_convexity(losses.sigmoid_squared_error, data=batch, penalty=penalties.l2(1.0))
    lowest = Fraction(certify_convexity(losses.sigmoid_squared_error, labels=[1]).curvature.lowest)
    assert Fraction(verdict.ridge) >= -lowest * Fraction(x) ** 2


@pytest.mark.parametrize("scale", [1e-6, 1e9])
def test_witnesses_do_not_depend_on_the_scale_of_the_features(scale, x64):
    batch = rows()
    batch = batch._replace(features=np.asarray(batch.features)[::4, :5] * scale,
                           labels=np.asarray(batch.labels)[::4])  # fmt: skip
    verdict = certify_convexity(losses.sigmoid_squared_error, data=batch)
    assert isinstance(verdict, NonConvex)
    middle = (verdict.witness.a + verdict.witness.b) / 2
    np.testing.assert_array_equal(2 * middle - verdict.witness.a, verdict.witness.b)
