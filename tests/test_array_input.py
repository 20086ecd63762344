import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas
import pyarrow
import pytest
from scipy import sparse

from jaxclf import make_batch
from jaxclf.array_input import as_array, as_labels

X = np.random.default_rng(0).normal(size=(6, 2))
NARROW = X.astype(np.float32)
TEXTS = ["b", "a", "c", "a", "b", "c"]


class Tensor:
    """A tensor of another library, which NumPy can read by DLPack alone."""

    def __init__(self, array, *, needs_gradient=False):
        self.array, self.needs_gradient = array, needs_gradient

    def detach(self):
        return Tensor(self.array)

    def __dlpack__(self, **options):
        if self.needs_gradient:
            raise RuntimeError("Can't export tensors that require gradient")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __len__(self):
        return len(self.array)


def test_tables_of_numbers_are_their_columns():
    frame = pandas.DataFrame({"a": X[:, 0], "b": pandas.array([1, 0, 1, 0, 1, 2], "Int64")})
    frame["c"] = [True, False] * 3
    batch = make_batch(frame, frame["c"])
    np.testing.assert_array_equal(batch.features[:, 0], NARROW[:, 0])
    np.testing.assert_array_equal(
        batch.features[:, 1:], [[1, 1], [0, 0], [1, 1], [0, 0], [1, 1], [2, 0]]
    )
    np.testing.assert_array_equal(batch.labels, [1, 0] * 3)


class PolarsFrame:
    """The part of polars.DataFrame that is used: names of columns, and columns as arrays."""

    columns = ("a", "b")

    def __getitem__(self, name):
        return X[:, self.columns.index(name)]

    def __len__(self):
        return len(X)


def test_a_table_of_polars_is_read_by_its_columns():
    np.testing.assert_array_equal(as_array("features", PolarsFrame()), NARROW)


@pytest.mark.parametrize("cells", [["x"] * 6, [None] + ["y"] * 5])
def test_text_and_missing_cells_name_their_column(cells):
    frame = pandas.DataFrame({"a": X[:, 0], "town": cells})
    with pytest.raises(TypeError, match=r"features has a column 'town' .* text or missing cells"):
        make_batch(frame, TEXTS)


def test_missing_numbers_are_located():
    frame = pandas.DataFrame({"a": X[:, 0], "b": pandas.array([1, None] * 3, "Int64")})
    with pytest.raises(ValueError, match=r"features must be finite, got nan at \(1, 1\)"):
        make_batch(frame, TEXTS)


@pytest.mark.parametrize("needs_gradient", [False, True])
def test_tensors_are_read_where_they_are(needs_gradient):
    batch = make_batch(Tensor(X, needs_gradient=needs_gradient), Tensor(np.arange(6)))
    np.testing.assert_array_equal(batch.features, NARROW)
    np.testing.assert_array_equal(batch.labels, np.arange(6))


def test_bfloat16_tensors_stay_bfloat16():
    narrow = jnp.asarray(NARROW, jnp.bfloat16)
    batch = make_batch(Tensor(narrow), np.arange(6))
    assert batch.features.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(batch.features, narrow)


def test_arrays_of_jax_are_not_copied():
    features = jnp.asarray(NARROW)
    assert make_batch(features, np.arange(6)).features is features


@pytest.mark.parametrize("kind", [list, np.array, pandas.Series, pandas.Categorical,
                                  lambda x: np.array(x, object),
                                  lambda x: np.array(x, np.dtypes.StringDType())])  # fmt: skip
def test_texts_become_the_numbers_of_their_classes(kind):
    labels = make_batch(X, kind(TEXTS), num_classes=3).labels
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [1, 0, 2, 0, 1, 2])
    names = np.unique(np.array(TEXTS))
    np.testing.assert_array_equal(names[labels], TEXTS)


@pytest.mark.parametrize(
    "labels", [["a", None] * 3, pandas.Series(["a", None] * 3), [["a", "b"]] * 6]
)
def test_missing_texts_are_refused(labels):
    with pytest.raises(TypeError, match=r"labels must be numbers, or texts of shape \(n,\); got"):
        as_labels(labels)


def test_sparse_numbers_are_refused_where_dense_ones_are_needed():
    with pytest.raises(TypeError, match="X must be dense here, got a sparse csr_array; make_batch"):
        as_array("X", sparse.csr_array(X))
    assert make_batch(sparse.csr_array(X), TEXTS).features.shape == (6, 2)


def test_identifiers_are_never_rounded():
    numbers = np.full((6, 1), 123456789012345678)
    with pytest.raises(TypeError, match="does not fit in 32 bits"):
        make_batch(numbers, TEXTS)
    with jax.enable_x64(True):
        assert make_batch(numbers, TEXTS).features[0, 0] == 123456789012345678


def test_class_names_give_batches_the_same_numbers():
    first = make_batch(X, TEXTS, class_names=["c", "b", "a"]).labels
    assert first.tolist() == [1, 2, 0, 2, 1, 0]
    second = make_batch(X[:2], ["a", "a"], class_names=["c", "b", "a"], num_classes=3).labels
    assert second.tolist() == [2, 2]
    with pytest.raises(ValueError, match="labels has 'd', which is none of class_names"):
        make_batch(X[:2], ["a", "d"], class_names=["a", "b"])
    with pytest.raises(ValueError, match="num_classes is 3, but class_names has 2"):
        make_batch(X[:2], ["a", "b"], class_names=["a", "b"], num_classes=3)


@pytest.mark.parametrize("labels", [["a", float("nan"), "b"], ["a", 1, "b"], ["a", True, "b"]])
def test_what_is_no_text_among_texts_is_refused(labels):
    with pytest.raises(TypeError, match="labels must be numbers, or texts"):
        make_batch(X[:3], labels)


def test_columns_of_one_name_and_masks_are_refused():
    frame = pandas.DataFrame(X, columns=["a", "a"])
    with pytest.raises(ValueError, match="features has two columns with the name 'a'"):
        make_batch(frame, TEXTS)
    masked = np.ma.masked_array(X, mask=X > 1)
    with pytest.raises(ValueError, match="features has masked entries"):
        make_batch(masked, TEXTS)
    np.testing.assert_array_equal(make_batch(np.ma.masked_array(X), TEXTS).features, NARROW)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", np.longdouble])
def test_any_order_of_bytes(dtype):
    given = (10 * X).astype(dtype)
    np.testing.assert_array_equal(make_batch(given, TEXTS).features, given.astype(np.float32))


def test_labels_of_pyarrow():
    assert as_labels(pyarrow.array(["b", "a", "c"])).tolist() == [1, 0, 2]
    assert as_labels(pyarrow.chunked_array([[2, 0], [1]])).tolist() == [2, 0, 1]
    with pytest.raises(TypeError, match="labels must be numbers, or texts"):
        as_labels(pyarrow.array(["b", None]))


def test_arrays_of_jax_with_64_bits_are_narrowed():
    with jax.enable_x64(True):
        wide = jnp.asarray(X)
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(make_batch(wide, TEXTS).features, NARROW)
