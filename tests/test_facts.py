"""Records of losses: what keeps them, and what does not."""

from functools import partial, wraps

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.facts import UNKNOWN, facts_of, state_facts, states
from jaxclf.objectives import check_labels_of

ALL = (
    losses.bernoulli_nll, losses.categorical_nll, losses.soft_categorical_nll,
    losses.multilabel_nll, losses.gaussian_nll, losses.squared_error,
    losses.sigmoid_squared_error, losses.softmax_squared_error, losses.onehot_squared_error,
    losses.hinge, losses.squared_hinge, losses.logistic_margin, losses.zero_one,
    losses.multiclass_hinge,
)  # fmt: skip
NOT_CONVEX = (losses.sigmoid_squared_error, losses.softmax_squared_error, losses.zero_one)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.__name__)
def test_every_loss_says_what_it_is(loss):
    facts = facts_of(loss)
    assert facts.convex == (loss not in NOT_CONVEX)
    assert facts.labels is not None
    assert facts.lower_bound > -np.inf


def test_the_record_stays_under_options_and_jit():
    smoothed = partial(losses.bernoulli_nll, smoothing=0.1)
    assert not facts_of(losses.bernoulli_nll).attains_minimum
    assert facts_of(smoothed).attains_minimum
    assert facts_of(smoothed).convex
    assert facts_of(jax.jit(smoothed)) == facts_of(smoothed)
    assert facts_of(partial(jax.jit(losses.hinge))) == facts_of(losses.hinge)
    narrow = facts_of(partial(losses.gaussian_nll, scale=0.01))
    assert -3.7 < narrow.lower_bound < -3.68


def test_a_function_around_a_loss_is_another_loss():
    @wraps(losses.bernoulli_nll)
    def negative(logit, label):
        return -losses.bernoulli_nll(logit, label)

    assert facts_of(negative) == UNKNOWN
    assert facts_of(lambda z, y: losses.zero_one(z, y)) == UNKNOWN
    assert facts_of(partial(losses.squared_error, 1.0)) == UNKNOWN  # its logit is bound
    assert facts_of(jax.jit(negative)) == UNKNOWN


def test_facts_of_a_jitted_function_are_kept_and_of_a_partial_refused():
    def fifth_power(z, y, scale=1.0):
        return abs(scale * (z - y)) ** 5

    state_facts(jax.jit(fifth_power), convex=True)
    assert facts_of(fifth_power).convex
    assert facts_of(jax.jit(fifth_power)).convex
    with pytest.raises(TypeError, match="stated of a function with all its options"):
        state_facts(partial(fifth_power, scale=2.0), convex=True)


def test_what_is_stated_is_kept_and_checked():
    @states(convex=True, lower_bound=lambda *, shift=0.0: -shift)
    def quartic(z, y, *, shift=0.0):
        return (z - y) ** 4 - shift

    assert facts_of(partial(quartic, shift=2.0)).lower_bound == -2
    assert state_facts(quartic, convex=True) is quartic
    with pytest.raises(TypeError, match="unexpected keyword argument 'convexity'"):
        state_facts(quartic, convexity=True)
    with pytest.raises(ValueError, match=r"labels must be one of class, .*; got 'text'"):
        state_facts(quartic, labels="text")


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.__name__)
def test_no_loss_is_below_its_bound_nor_bends_faster_than_its_record_says(loss, x64):
    """|D³ℓ[u, v, v]| ≤ M max|u| D²ℓ[v, v] at random logits and directions."""
    facts, rng = facts_of(loss), np.random.default_rng(0)
    shape = (3,) if facts.labels in SEVERAL else ()
    label = {
        "class": 1, "sign": -1.0, "probability": 0.3, "number": 0.7,
        "probabilities": np.array([0.0, 0.4, 1.0]), "distribution": np.array([0.2, 0.3, 0.5]),
    }[facts.labels]  # fmt: skip

    @jax.jit
    @jax.vmap
    def derivatives(z, u, v):
        def second(t):
            def along(r):
                return loss(z + t * u + r * v, label)

            return jax.jvp(lambda s: jax.jvp(along, (s,), (1.0,))[1], (0.0,), (1.0,))[1]

        return loss(z, label), *jax.jvp(second, (0.0,), (1.0,))

    z, u, v = (scale * rng.normal(size=(200, *shape)) for scale in (4, 1, 1))
    values, bent, third = map(np.asarray, derivatives(z, u, v))
    assert (values >= facts.lower_bound).all()
    if facts.self_concordance is not None:
        largest = np.abs(u).reshape(200, -1).max(1)
        assert (np.abs(third) <= facts.self_concordance * largest * bent + 1e-12).all()


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.__name__)
def test_a_loss_ignores_shifts_exactly_if_its_record_says_so(loss, x64):
    facts = facts_of(loss)
    z = np.array([0.3, -1.2, 0.9]) if facts.labels in SEVERAL else 0.3
    label = HARD[facts.labels]
    same = bool(np.isclose(loss(z, label), loss(z + 0.4, label), rtol=1e-12))
    assert facts.ignores_shifts == (same and facts.labels in SEVERAL)


def own_log_loss(z, y):
    return jnp.logaddexp(0, z) - y * z


SEVERAL = ("class", "distribution", "probabilities")
HARD = {
    "class": 1, "sign": -1, "probability": 1, "number": 0.75, "probabilities": np.array([0, 1, 1]),
    "distribution": np.array([0, 1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("loss", [*ALL, own_log_loss], ids=lambda loss: loss.__name__)
def test_a_loss_that_is_said_to_be_accurate_loses_no_digits(loss, x64):
    """Float32 beside float64, at logits to 80: value and slopes of each row, but for what a
    roundoff of the logits does to them."""
    facts, rng = facts_of(loss), np.random.default_rng(0)
    kind = facts.labels or "probability"
    shape = (3,) if kind in SEVERAL else ()
    z = (20 * rng.normal(size=(2000, *shape))).astype(np.float32)

    def measured(dtype):
        label = HARD[kind] if kind == "class" else np.asarray(HARD[kind], dtype)
        function = jax.jit(jax.vmap(jax.value_and_grad(lambda z: loss(z, label))))
        return [np.asarray(x, np.float64) for x in function(z.astype(dtype))]

    unit = 2.0**-24 * (16 + 2 * np.abs(z).reshape(len(z), -1).max(1))
    (values, slopes), (right, right_slopes) = measured(np.float32), measured(np.float64)
    tiny = 1e-36  # below, float32 has fewer digits
    close = (np.abs(values - right) <= unit * np.abs(right) + tiny).all()
    off = np.abs(slopes - right_slopes).T - unit * np.abs(right_slopes).T
    close = close and (off <= tiny).all()
    assert close or not facts.accurate
    assert loss is not own_log_loss or not close


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        (losses.categorical_nll, [0, 3], r"must be classes 0 … 2, got 3 in row 1"),
        (losses.categorical_nll, [-1, 1], r"must be classes 0 … 2, got -1 in row 0"),
        (losses.categorical_nll, np.array([0, 255], np.uint8), r"got 255 in row 1"),
        (losses.bernoulli_nll, [-1.0, 1.0], r"must be in \[0, 1\], got -1.0 in row 0"),
        (losses.hinge, [0.0, 1.0], r"must be -1 or \+1, got 0.0 in row 0"),
        (losses.multilabel_nll, [[0, 1, 2]], r"must be in \[0, 1\], got 2 in row \(0, 2\)"),
        (losses.soft_categorical_nll, [[0.2, 0.2, 0.2]], "labels must sum to 1"),
        (losses.soft_categorical_nll, [[0.5, 0.5]], r"labels must have shape \(1, 3\)"),
        (losses.squared_error, [np.nan, 1], "labels must be finite"),
    ],
)
def test_labels_that_a_loss_does_not_take_are_refused(loss, labels, message):
    num_logits = 1 if facts_of(loss).labels in ("probability", "sign", "number") else 3
    with pytest.raises(ValueError, match=message):
        check_labels_of(facts_of(loss), np.asarray(labels), num_logits)


def test_any_numbers_are_labels_of_an_unknown_loss():
    given = np.array([-3.0, 7.0])
    assert check_labels_of(UNKNOWN, given, 1) is given
