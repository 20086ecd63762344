"""Arrays under their usual names: pairs of files, parts, and one-hot labels."""

import numpy as np
import pytest

from jaxclf.data import load_dataset

X = np.arange(24.0).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


def save(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name.replace('__', '-')}.npy", array)


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        ("X", "y"),
        ("x", "labels"),
        ("features", "labels"),
        ("Embeddings", "Targets"),
        ("data", "target"),
        ("cats_features", "cats_labels"),
        ("features_cats", "y_cats"),
        ("cats__x", "cats__y"),
        ("x_train", "y_train"),
        ("clip_vectors", "labels"),
    ],
)
def test_labels_are_found_beside_features(tmp_path, features, labels):
    save(tmp_path, **{features: X, labels: Y, "unrelated": np.ones(3)})
    path = tmp_path / f"{features.replace('__', '-')}.npy"
    for name in (f"npy:{path}", str(path)):
        found = load_dataset(name)
        assert isinstance(found.features, np.memmap)
        np.testing.assert_array_equal(found.features, X)
        assert found.labels.tolist() == Y.tolist()


@pytest.mark.parametrize("pattern", ["{}_train", "train_{}", "cats_{}_train"])
@pytest.mark.parametrize("named", ["train", "test"])
def test_the_other_part_is_read_too(tmp_path, pattern, named):
    other = pattern.replace("train", "test")
    arrays = {pattern.format("x"): X, pattern.format("y"): Y}
    arrays |= {other.format("x"): X[:3] + 1, other.format("y"): Y[:3]}
    save(tmp_path, **arrays)
    name = str(tmp_path / f"{pattern.replace('train', named).format('x')}.npy")
    np.testing.assert_array_equal(load_dataset(name, split="train").features, X)
    np.testing.assert_array_equal(load_dataset(name, split="test").features, X[:3] + 1)
    if "cats" not in pattern:
        assert load_dataset(str(tmp_path)).sha256 == load_dataset(name).sha256


def test_the_file_that_is_named_is_read(tmp_path):
    save(tmp_path, features=X, labels=Y, x=X + 1, x_train=X + 2, y_train=Y)
    save(tmp_path, class_names=np.array(["a", "b", "c"]))
    for name, shift in (("features", 0), ("x", 1), ("x_train", 2)):
        found = load_dataset(str(tmp_path / f"{name}.npy"))
        np.testing.assert_array_equal(found.features, X + shift)
        assert found.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(load_dataset(f"npy:{tmp_path}").features, X)


def test_one_part_alone_is_split_like_a_whole(tmp_path):
    save(tmp_path, x_train=np.repeat(X, 5, 0), y_train=np.repeat(Y, 5))
    assert len(load_dataset(str(tmp_path), split="test").labels) == 6


def test_pairs_that_are_none(tmp_path):
    save(tmp_path, x=X, weights=Y)
    with pytest.raises(ValueError, match=r"x\.npy: expected features with .*there is weights\.npy"):
        load_dataset(str(tmp_path / "x.npy"))
    save(tmp_path, y=Y[:5])
    with pytest.raises(ValueError, match=r"x \(6, 4\) and y \(5,\) do not match"):
        load_dataset(str(tmp_path / "x.npy"))
    with pytest.raises(ValueError, match=r"y\.npy: expected features with labels beside them"):
        load_dataset(str(tmp_path / "y.npy"))
    np.savez(tmp_path / "z.npz", X)
    (tmp_path / "z.npz").rename(tmp_path / "features.npy")
    with pytest.raises(ValueError, match=r"features\.npy: an archive of arrays, not one array"):
        load_dataset(str(tmp_path / "features.npy"))
    np.save(tmp_path / "features.npy", np.array([[None]]), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as one array"):
        load_dataset(str(tmp_path / "features.npy"))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float64])
def test_one_hot_labels_are_class_numbers(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("jaxclf.data.encoding._NUMBERS_AT_ONCE", 6)  # two rows at a time
    save(tmp_path, x=X, y=np.eye(3, dtype=dtype)[Y])
    found = load_dataset(str(tmp_path))
    assert found.labels.tolist() == Y.tolist()
    assert found.labels.dtype == np.int32
    assert found.class_names == ("0", "1", "2")
    assert found.notes == ("The labels are one-hot: column k of 3 is class k, counted from 0.",)
    save(tmp_path, class_names=np.array(["a", "b", "c"]))
    assert load_dataset(str(tmp_path)).class_names == ("a", "b", "c")
    save(tmp_path, class_names=np.array(["a", "b"]))
    with pytest.raises(ValueError, match="2 class_names for 3 columns of labels"):
        load_dataset(str(tmp_path))


def test_one_hot_labels_in_two_parts(tmp_path):
    hot = np.eye(3)[Y]
    np.savez(tmp_path / "x.npz", x_train=X, y_train=hot, x_test=X[:2], y_test=hot[:2])
    assert load_dataset(str(tmp_path / "x.npz"), split="test").labels.tolist() == [0, 1]
    np.savez(tmp_path / "x.npz", x_train=X, y_train=hot, x_test=X[:2], y_test=Y[:2])
    with pytest.raises(ValueError, match="its parts have labels of different shapes"):
        load_dataset(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("labels", [[[1, 0, 1], [0, 1, 0]] * 3, [[1, 0], [0, 0]] * 3])
def test_rows_with_any_number_of_labels_keep_their_matrix(tmp_path, monkeypatch, labels):
    monkeypatch.setattr("jaxclf.data.encoding._NUMBERS_AT_ONCE", 6)
    save(tmp_path, x=X, y=np.array(labels, float))
    found = load_dataset(str(tmp_path))
    assert found.labels.dtype == np.uint8
    assert found.labels.tolist() == labels
    assert found.class_names == tuple(map(str, range(len(labels[0]))))
    mean = f"{np.sum(labels) / 6:.2g}"
    assert found.notes == (f"A row has any number of {len(labels[0])} labels, {mean} on average.",)
    parts = [
        load_dataset(str(tmp_path), split=split, test_fraction=0.5) for split in ("train", "test")
    ]
    assert sorted(np.vstack([part.labels for part in parts]).tolist()) == sorted(labels)


def test_parts_that_are_one_hot_and_not_are_alike(tmp_path):
    several = np.array([[1, 1, 0]] * 6)
    np.savez(tmp_path / "x.npz", x_train=X, y_train=several, x_test=X[:2], y_test=np.eye(3)[:2])
    found = load_dataset(str(tmp_path / "x.npz"), split="test")
    assert found.labels.tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([[0.3, 0.7], [0.5, 0.5]] * 3, "with probabilities in row 0; jaxclf.LogisticRegression"),
        ([[1, 0], [0.5, 0.5]] * 3, "with probabilities in row 1"),
        ([[1, 0], [0, 2]] * 3, "with other numbers in row 1"),
        ([[1, -1], [-1, 1]] * 3, "with other numbers in row 0"),
        ([[1, 0], [np.nan, 0]] * 3, "with other numbers in row 1"),
        ([["a", "b"]] * 6, r"or zeros and ones, \(n, K\), got <U1 \(6, 2\)"),
        ([[[1, 0]]] * 6, "do not match"),
    ],
)
def test_other_matrices_of_labels_are_refused(tmp_path, labels, said):
    save(tmp_path, x=X, y=np.array(labels))
    with pytest.raises(ValueError, match=said) as raised:
        load_dataset(str(tmp_path))
    assert len(str(raised.value)) < 300


def test_arrays_that_are_not_read_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", X_train=X, y_train=Y, X_test=X, y_test=Y, X_val=X, weights=Y)
    found = load_dataset(str(tmp_path / "x.npz"))
    assert found.notes == ("Arrays that are not read: X_val, weights.",)
    save(tmp_path, x=X, y=Y, other=X)
    assert load_dataset(str(tmp_path)).notes == ("Arrays that are not read: other.",)
    assert load_dataset(str(tmp_path / "x.npy")).notes == ()


@pytest.mark.parametrize("dtype", [">f4", ">u2", np.longdouble])
def test_any_order_of_bytes(tmp_path, dtype):
    np.savez(tmp_path / "x.npz", X=(10 * X).astype(dtype), y=Y.astype(">i8"))
    found = load_dataset(str(tmp_path / "x.npz"))
    assert found.features.dtype.isnative
    assert found.features.dtype.itemsize <= 8
    np.testing.assert_array_equal(found.features, (10 * X).astype(dtype))


@pytest.mark.parametrize("code", [0x110000, 0xD800])
@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_of_what_are_no_characters(order, code, tmp_path):
    names = np.array(["ä", "b"]).astype(f"{order}U1")
    kept = {"X": np.eye(2), "y": np.array([0, 1])}
    np.savez(tmp_path / "x.npz", **kept, class_names=names)
    assert load_dataset(str(tmp_path / "x.npz")).class_names == ("ä", "b")
    bad = np.array([code, ord("b")], f"{order}u4").view(names.dtype)
    np.savez(tmp_path / "x.npz", **kept, class_names=bad)
    with pytest.raises(ValueError, match="class_names holds texts of what are no characters"):
        load_dataset(str(tmp_path / "x.npz"))
