from unittest import mock

import numpy as np
import pytest

from jaxclf import load_dataset
from jaxclf.data import register_source, synthetic
from jaxclf.data.readers import READERS

SHAPES = {
    "digits": (1797, 64, 10),
    "iris": (150, 4, 3),
    "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 2),
}


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_embedded_datasets(name, shape):
    data = load_dataset(name)
    assert (*data.features.shape, data.num_classes) == shape
    assert data.features.dtype == np.float32
    assert data.labels.dtype == np.int32
    assert set(data.labels) == set(range(data.num_classes))
    assert len(data.feature_names) == shape[1]
    assert data.source
    assert load_dataset(name, dtype=np.float64).features.dtype == np.float64


def test_the_split_is_stratified_disjoint_complete_and_seeded():
    whole = load_dataset("digits")
    train, test = (load_dataset("digits", split=s, seed=3) for s in ("train", "test"))
    assert len(test.labels) == 360
    rows = np.concatenate([train.features, test.features])
    assert np.array_equal(np.unique(rows, axis=0), np.unique(whole.features, axis=0))
    assert len(rows) == len(whole.features)
    share = np.bincount(test.labels) / np.bincount(whole.labels)
    np.testing.assert_allclose(share, 0.2, atol=0.01)
    again = load_dataset("digits", split="test", seed=3)
    np.testing.assert_array_equal(again.labels, test.labels)
    assert not np.array_equal(load_dataset("digits", split="test", seed=4).labels, test.labels)


def test_bad_names():
    with pytest.raises(ValueError, match=r"dataset must be one of breast_cancer, digits, .*'mnst'"):
        load_dataset("mnst")
    with pytest.raises(ValueError, match="split must be one of all, train, test; got 'val'"):
        load_dataset("iris", split="val")
    with pytest.raises(ValueError, match=r"test_fraction must lie in \(0, 1\), got 1.2"):
        load_dataset("iris", split="test", test_fraction=1.2)
    with pytest.raises(ValueError, match="dtype must be floating, got int64"):
        load_dataset("iris", dtype=np.int64)


@mock.patch.dict(READERS)
def test_a_source_of_the_users_own():
    def steps(rest):
        x = np.arange(float(rest))[:, None]
        return {"all": (x, np.where(x[:, 0] % 3 > 0, "up", "down"))}, {"feature_names": ["t"]}

    register_source("steps", steps)
    found = load_dataset("steps:30")
    assert found.features.dtype == np.float64
    assert found.class_names == ("down", "up")
    assert found.feature_names == ("t",)
    assert len(load_dataset("steps:30", split="test").labels) == 6
    with pytest.raises(ValueError, match=r"steps:REST; got 'stairs:3'"):
        load_dataset("stairs:3")
    for kind, said in (
        ("csv", "is there already"),
        ("iris", "is there already"),
        ("a b", "digits"),
    ):
        with pytest.raises(ValueError, match=said):
            register_source(kind, steps)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, r"must return \(parts, names\)"),
        (({"some": ([[1.0]], [0])}, {}), "parts must be all, or train and test; got 'some'"),
        (({"all": (np.ones((4, 2)), [0, 1, 0])}, {}), r"\(4, 2\) and y_all \(3,\) do not match"),
        (({"all": (np.ones((4, 2), complex), [0, 1, 0, 1])}, {}), "must be real numbers"),
    ],
)
def test_what_a_source_gives_is_checked(monkeypatch, given, said):
    monkeypatch.setitem(READERS, "mine", None)  # which takes it out again at the end
    del READERS["mine"]
    register_source("mine", lambda rest: given)
    with pytest.raises(ValueError, match=said):
        load_dataset("mine:x")


def test_synthetic_sets_follow_their_formula():
    data = synthetic.sales(0, 500, noise=0.0, dtype=np.float64)
    design = np.c_[data.features, np.ones(500)]
    np.testing.assert_allclose(np.linalg.lstsq(design, data.labels)[0], [10, -2, 20, 4], atol=1e-10)
    data = synthetic.gaussian_classes(1, 3000, 5, 3, separation=2.0)
    assert np.bincount(data.labels).tolist() == [1000] * 3
    for k in range(3):
        np.testing.assert_allclose(np.cov(data.features[data.labels == k].T), np.eye(5), atol=0.15)
    np.testing.assert_array_equal(
        data.features, synthetic.gaussian_classes(1, 3000, 5, 3, separation=2.0).features
    )
