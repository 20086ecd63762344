import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import one_hot
from jaxclf.data import class_weights


def test_one_hot():
    np.testing.assert_array_equal(one_hot([2, 0], 3), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(one_hot(1, 3), [0, 1, 0])
    assert one_hot(np.uint8([200]), 300)[0, 200] == 1
    assert one_hot([1], 2, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_what_is_one_hot_already_is_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3\): they look one-hot already"):
        one_hot(np.eye(3, dtype=int)[:2], 3)


def test_bad_labels():
    with pytest.raises(ValueError, match="labels must lie in 0 … 2, got 3"):
        one_hot([0, 3], 3)
    with pytest.raises(ValueError, match="labels must lie in 0 … 2, got -1"):
        one_hot([-1], 3)
    with pytest.raises(TypeError, match="labels must be integers, got dtype float32"):
        one_hot(jnp.array([0.0]), 3)
    with pytest.raises(ValueError, match="labels must lie in 0 … 2, got 4294967297"):
        one_hot(np.array([2**32 + 1]), 3)
    with pytest.raises(TypeError, match="dtype must be floating, got int32"):
        one_hot([0], 3, dtype=jnp.int32)
    traced = jax.jit(lambda y: one_hot(y, 3))(jnp.array([1, 5]))
    np.testing.assert_array_equal(jnp.isnan(traced).all(1), [False, True])


def test_balanced_class_weights_give_every_class_the_same_total():
    labels = np.array([0, 0, 0, 1, 2, 2])
    weights = class_weights(labels, 3)
    np.testing.assert_allclose(np.bincount(labels, weights), 2)
    np.testing.assert_array_equal(class_weights(labels, 3, [1, 2, 3]), [1, 1, 1, 2, 3, 3])
    with pytest.raises(ValueError, match=r"per_class must have shape \(3,\), got \(2,\)"):
        class_weights(labels, 3, [1, 2])
    with pytest.raises(ValueError, match="labels must be finite, at least 0, at most 1, got 2"):
        class_weights(labels, 2)
