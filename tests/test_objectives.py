import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Batch, losses, make_batch, make_objective, penalties
from jaxclf.extended_reals import weighted_mean
from jaxclf.models import linear

RNG = np.random.default_rng(3)
X = RNG.normal(size=(12, 4)).astype(np.float32)
Y = RNG.integers(3, size=12)
PARAMS = linear.init(jax.random.key(0), 4, 3, stddev=1.0)


def test_objective_is_the_mean_loss_plus_the_penalty():
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.3))
    by_hand = np.mean(
        [losses.categorical_nll(linear.logits(PARAMS, x), y) for x, y in zip(X, Y, strict=True)]
    ) + 0.15 * np.sum(np.square(PARAMS.weights))
    batch = make_batch(X, Y, num_classes=3)
    np.testing.assert_allclose(objective(PARAMS, batch), by_hand, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(objective)(PARAMS, batch), by_hand, rtol=1e-6)


def test_weights_are_repeated_rows():
    objective = make_objective(linear.logits, losses.categorical_nll)
    weights = RNG.integers(0, 4, size=12)
    weighted = jax.value_and_grad(objective)(PARAMS, make_batch(X, Y, weights))
    repeated = make_batch(np.repeat(X, weights, 0), np.repeat(Y, weights))
    expected = jax.value_and_grad(objective)(PARAMS, repeated)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), weighted, expected)


def test_uint8_features_and_soft_labels():
    pixels = RNG.integers(0, 256, size=(12, 4)).astype(np.uint8)
    objective = make_objective(linear.logits, losses.soft_categorical_nll)
    targets = RNG.dirichlet(np.ones(3), size=12).astype(np.float32)
    narrow = objective(PARAMS, make_batch(pixels, targets, num_classes=3))
    wide = objective(PARAMS, make_batch(pixels.astype(np.float32), targets, num_classes=3))
    assert narrow == wide


def test_an_offset_is_added_to_the_logits():
    objective = make_objective(linear.logits, losses.categorical_nll)
    offset = RNG.normal(size=(12, 3)).astype(np.float32)
    by_hand = np.mean(
        [
            losses.categorical_nll(linear.logits(PARAMS, x) + o, y)
            for x, o, y in zip(X, offset, Y, strict=True)
        ]
    )
    batch = make_batch(X, Y, offset=offset, num_classes=3)
    np.testing.assert_allclose(objective(PARAMS, batch), by_hand, rtol=1e-6)
    with pytest.raises(ValueError, match=r"the offset and the logits must have the same shape"):
        objective(PARAMS, make_batch(X, Y, offset=offset[:, 0]))


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (np.zeros(5), r"offset must have one row per row of features \(12\), got shape \(5,\)"),
        (np.where(np.arange(12) == 7, np.nan, 0), "offset must be finite, got nan in row 7"),
        (np.zeros((12, 1, 1)), r"offset must have one row per .*, got shape \(12, 1, 1\)"),
    ],
)
def test_a_bad_offset_is_one_sentence(offset, message):
    with pytest.raises(ValueError, match=message):
        make_batch(X, Y, offset=offset)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:0], Y[:0]), r"features must not be empty, got shape \(0, 4\)"),
        ((X[:, 0], Y), r"features must have shape \(rows, columns\), got \(12,\)"),
        ((X, Y[:5]), r"one row per row of features \(12\), got shape \(5,\)"),
        ((X, np.where(np.arange(12) == 7, -1, Y)), r"lie in 0 … 2, got -1 in row 7"),
        ((X, np.where(np.arange(12) == 7, 3, Y)), r"lie in 0 … 2, got 3 in row 7"),
        ((X, np.eye(4, dtype=np.float32)[Y]), r"labels must have shape \(12, 3\)"),
        ((X, 2 * np.eye(3, dtype=np.float32)[Y]), "labels must sum to 1, got a sum of 2"),
        (
            (X, Y, -np.ones(12, np.float32)),
            "weights must be finite and non-negative, got -1 in row 0",
        ),
        ((X, Y, np.zeros(12, np.float32)), "weights must not all be zero"),
        ((X, Y, np.ones((12, 1), np.float32)), r"weights must have shape \(12,\), got \(12, 1\)"),
    ],
)
def test_bad_values_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_batch(*arguments, num_classes=3)


def test_a_bad_feature_is_located():
    broken = X.copy()
    broken[5, 2] = np.nan
    with pytest.raises(ValueError, match=r"features must be finite, got nan at \(5, 2\)"):
        make_batch(broken, Y)


def test_wrong_kinds_are_type_errors():
    with pytest.raises(TypeError, match="labels must be integers, got dtype float32"):
        make_batch(X, Y.astype(np.float32), num_classes=3)
    with pytest.raises(TypeError, match="does not fit in 32 bits"):
        make_batch(X, Y + 2**40)
    with pytest.raises(TypeError, match="features must be real numbers, got dtype <U1"):
        make_batch(np.full((12, 4), "a"), Y)


def test_mismatched_batches_are_refused_under_jit():
    objective = jax.jit(make_objective(linear.logits, losses.categorical_nll))
    with pytest.raises(ValueError, match=r"features \(12, 4\), labels \(5,\)"):
        objective(PARAMS, Batch(X, Y[:5]))
    with pytest.raises(ValueError, match=r"needs n >= 1 rows .* features \(0, 4\)"):
        objective(PARAMS, Batch(X[:0], Y[:0]))
    with pytest.raises(ValueError, match=r"label must have shape \(\), got \(1,\)"):
        objective(PARAMS, Batch(X, Y[:, None]))
    with pytest.raises(ValueError, match=r"features must have shape \(4,\), got \(3,\)"):
        objective(PARAMS, Batch(X[:, :3], Y))


def test_lists_take_the_default_precision_and_big_integers_are_caught():
    batch = make_batch([[0.5, 1.0], [2.0, 3.0]], [0, 1], num_classes=2)
    assert batch.features.dtype == jnp.float32
    with pytest.raises(TypeError, match="does not fit in 32 bits"):
        make_batch(X, [2**40] * 12)


def test_probabilities_of_class_one_and_half_precision_targets_are_labels():
    make_batch(X, np.linspace(0, 1, 12, dtype=np.float32), num_classes=2)
    make_batch(X, jnp.full((12, 3), 1 / 3, jnp.bfloat16), num_classes=3)
    with pytest.raises(ValueError, match=r"labels must be .*, at most 1, got 1.5"):
        make_batch(X, np.full(12, 1.5, np.float32), num_classes=2)


def test_weighted_mean_refuses_other_shapes_and_ignores_rows_without_weight():
    assert weighted_mean(jnp.array([jnp.inf, 3.0]), jnp.array([0.0, 2.0])) == 3
    for weights in (jnp.ones((2, 1)), jnp.ones(1), jnp.ones(3)):
        with pytest.raises(ValueError, match="values and weights must have the same shape"):
            weighted_mean(jnp.ones(2), weights)


def test_a_batch_keeps_its_numbers_when_the_caller_changes_his():
    raw = np.zeros(4096 + 64, np.uint8)
    aligned = -raw.ctypes.data % 64  # so that the device could use this memory as it is
    features = raw[aligned : aligned + 4096].view(np.float32).reshape(32, 32)
    batch = make_batch(features, np.arange(32) % 2)
    features[:] = 1
    assert not np.asarray(batch.features).any()


@pytest.mark.parametrize(
    "rows", [X.astype(np.float64), list(X.astype(np.float64)), X.astype(np.float64).tolist()]
)
def test_float64_takes_the_precision_of_jax(rows):
    np.testing.assert_array_equal(make_batch(rows, Y).features, X)
    assert make_batch(rows, Y).features.dtype == np.float32
    with jax.enable_x64(True):
        assert make_batch(rows, Y).features.dtype == np.float64


def test_a_number_beyond_float32_is_refused():
    with pytest.raises(ValueError, match=r"features holds 1e\+300, which float32 cannot hold"):
        make_batch(np.where(np.arange(4) == 2, 1e300, X.astype(np.float64)), Y)
    with pytest.raises(ValueError, match=r"features must be finite, got inf at \(0, 2\)"):
        make_batch(np.where(np.arange(4) == 2, np.inf, X.astype(np.float64)), Y)
