"""Sparse features of SciPy and of JAX, as they enter, and their products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax.experimental import sparse as jsp

from jaxclf import certify_convexity, losses, make_batch, make_objective, penalties
from jaxclf.data import transforms
from jaxclf.linear_algebra.problem import gram, gram_diagonal
from jaxclf.models import linear
from jaxclf.sparse_rows import from_csr, of_numbers, read_sparse, to_csr

LABELS = np.array([0, 1, 0, 1, 1])
LOSS = losses.bernoulli_nll


def dense(seed=0, shape=(5, 7)):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.4, rng.normal(size=shape), 0).astype(np.float32)


def unsorted_with_duplicates(x):
    """The matrix as a CSR whose places fall within a row, of which one is there twice, with an
    explicit zero."""
    rows, columns = np.nonzero(x)
    numbers = x[rows, columns]
    rows, columns = np.r_[rows, rows[0], 4], np.r_[columns, columns[0], 6]
    numbers = np.r_[numbers, np.float32(1), np.float32(0)]
    numbers[0] -= 1
    order = np.lexsort((-columns, rows))
    starts = np.searchsorted(rows[order], np.arange(len(x) + 1))
    return sp.csr_array((numbers[order], columns[order], starts), shape=x.shape)


def with_wide_places(x):
    matrix = sp.csr_array(x)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


@pytest.mark.parametrize(
    "make",
    [
        sp.csr_matrix,
        sp.csr_array,
        sp.csc_matrix,
        sp.coo_array,
        sp.lil_matrix,
        sp.dok_array,
        sp.dia_array,
        sp.bsr_array,
        with_wide_places,
        unsorted_with_duplicates,
        jsp.BCOO.fromdense,
        jsp.BCSR.fromdense,
        lambda x: jsp.BCOO.fromdense(x, nse=30),
    ],
)
def test_a_sparse_matrix_of_any_kind_holds_the_same_numbers(make):
    x = dense()
    given = make(x)
    batch = make_batch(given, LABELS)
    assert batch.features.shape == x.shape
    assert len(batch.features) == 5
    np.testing.assert_allclose(to_csr(batch.features).toarray(), x, rtol=1e-6)
    assert batch.features.size == np.count_nonzero(x)
    again = make_batch(batch.features, LABELS)
    np.testing.assert_array_equal(again.features.by_row.values, batch.features.by_row.values)


def test_the_callers_matrix_stays_as_it_is_and_may_change():
    given = unsorted_with_duplicates(dense())
    before = given.data.copy(), given.indices.copy()
    features = make_batch(given, LABELS).features
    held = np.asarray(features.by_row.values).copy()
    np.testing.assert_array_equal(given.data, before[0])
    np.testing.assert_array_equal(given.indices, before[1])
    given.data[:] = 9
    np.testing.assert_array_equal(features.by_row.values, held)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("x64", [False, True])
def test_numbers_become_floats_that_hold_them(dtype, x64):
    x = np.abs(np.round(4 * dense())).astype(dtype)
    with jax.enable_x64(x64):
        features = read_sparse("features", sp.csr_array(x))
    assert features.dtype == (np.float64 if x64 and dtype == np.float64 else np.float32)
    np.testing.assert_array_equal(to_csr(features).toarray(), x.astype(float))


def test_small_integers_at_one_place_are_added_without_wrapping():
    given = sp.coo_array(([100, 100], ([0, 0], [1, 1])), shape=(2, 2), dtype=np.int8)
    assert to_csr(read_sparse("features", given)).toarray()[0, 1] == 200


def test_integers_that_float32_rounds_are_float64_where_that_is_on():
    given = sp.csr_array(np.array([[2**24 + 1, 0]]))
    with jax.enable_x64(True):
        assert to_csr(read_sparse("features", given)).toarray()[0, 0] == 2**24 + 1


def with_place(column):
    matrix = sp.csr_array(dense())
    matrix.indices[0] = column
    return matrix


def coo_with_row(row):
    matrix = sp.coo_array(dense())
    matrix.coords = (np.r_[row, matrix.coords[0][1:]], matrix.coords[1])
    return matrix


def of_numbers_given(numbers):
    return sp.coo_array((numbers, ([1, 2], [3, 0])), shape=(5, 7))


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (of_numbers_given([1.0, np.nan]), ValueError, r"must be finite, got nan at \(2, 0\)"),
        (of_numbers_given([np.inf, 1.0]), ValueError, r"must be finite, got inf at \(1, 3\)"),
        (of_numbers_given([1e300, 1.0]), ValueError, "1e\\+300, which float32 cannot hold"),
        (of_numbers_given([1j, 1.0]), TypeError, "real numbers, got dtype complex128"),
        (with_place(7), ValueError, "no matrix of its shape"),
        (with_place(-1), ValueError, "no matrix of its shape"),
        (coo_with_row(5), ValueError, r"a number in row 5, but its shape is \(5, 7\)"),
        (sp.csr_array((0, 7)), ValueError, r"must not be empty, got shape \(0, 7\)"),
        (sp.csr_array((5, 0)), ValueError, r"must not be empty, got shape \(5, 0\)"),
        (sp.coo_array(np.ones(5)), ValueError, r"shape \(rows, columns\), got \(5,\)"),
        (
            jsp.BCOO((np.ones(1, np.float32), np.array([[0, 9]])), shape=(5, 7)),
            ValueError,
            r"a number in column 9, but its shape is \(5, 7\)",
        ),
        (
            jsp.BCOO((np.ones(1, np.float32), np.array([[-1, 0]])), shape=(5, 7)),
            ValueError,
            "a number in row -1",
        ),
        (jsp.BCOO.fromdense(dense(), n_dense=1), TypeError, "without batch and dense axes"),
        (jsp.BCOO.fromdense(dense(), n_batch=1), TypeError, "without batch and dense axes"),
    ],
)
def test_bad_matrices_are_refused_in_one_sentence(features, error, message):
    with pytest.raises(error, match=message):
        make_batch(features, LABELS)


def test_a_batch_takes_the_memory_of_its_numbers_twice():
    matrix = sp.random_array((2000, 3000), density=0.01, rng=0, dtype=np.float32, format="csr")
    batch = make_batch(matrix, np.arange(2000) % 2)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(batch.features))
    assert held <= 2 * matrix.nnz * (4 + 4) + 4 * (2000 + 3000 + 2)


@pytest.mark.parametrize(
    ("what", "take"),
    [
        ("certify_convexity", lambda x: certify_convexity(LOSS, data=make_batch(x, LABELS))),
        ("fit_standardiser", transforms.fit_standardiser),
        ("append_one", linear.append_one),
    ],
)
def test_what_needs_dense_features_says_so(what, take):
    with pytest.raises(TypeError, match=f"{what} takes dense features: .toarray"):
        take(sp.csr_array(dense()))


def test_rows_and_labels_must_match():
    with pytest.raises(ValueError, match="one row per row of features"):
        make_batch(sp.csr_array(dense()), LABELS[:3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [None, 1, 3, 8])
def test_products_are_those_of_dense_features(dtype, columns):
    rng, shape = np.random.default_rng(1), () if columns is None else (columns,)
    x = dense(2, (40, 30)).astype(dtype)
    x[3], x[:, 4] = 0, 0
    w, r = rng.normal(size=(30, *shape)).astype(dtype), rng.normal(size=(*shape, 40)).astype(dtype)
    with jax.enable_x64(True):
        features = read_sparse("features", sp.csr_array(x))
        found = features @ w, r @ features, jax.jit(lambda r: r @ features)(r)
        sums = features.sum(0), features.sum(1)
        squares = of_numbers(jnp.square, features) @ w
    tolerance = {"rtol": 100 * np.finfo(dtype).eps, "atol": 100 * np.finfo(dtype).eps}
    for got, wanted in zip(found, (x @ w, r @ x, r @ x), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, **tolerance)
    np.testing.assert_allclose(sums[0], x.sum(0), **tolerance)
    np.testing.assert_allclose(sums[1], x.sum(1), **tolerance)
    np.testing.assert_allclose(squares, x**2 @ w, **tolerance)


@pytest.mark.parametrize("num_outputs", [None, 3])
def test_an_objective_has_the_value_and_derivatives_of_dense_features(num_outputs):
    x = dense(3, (5, 7))
    loss = losses.bernoulli_nll if num_outputs is None else losses.categorical_nll
    objective = make_objective(linear.logits, loss, penalties.l2(0.1))
    params = linear.init(jax.random.key(0), 7, num_outputs, stddev=1.0)
    found, wanted = (
        jax.jit(jax.value_and_grad(objective))(params, make_batch(features, LABELS, LABELS + 1.0))
        for features in (sp.csr_array(x), x)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_objective_that_is_no_linear_model_needs_dense_features():
    objective = make_objective(lambda w, x: x @ w, losses.bernoulli_nll)
    with pytest.raises(TypeError, match="sparse features need the logits of"):
        objective(np.zeros(7, np.float32), make_batch(sp.csr_array(dense()), LABELS))


@pytest.mark.parametrize("numbers", [2**20, 100, 7])
def test_moments_are_those_of_dense_features_whatever_the_blocks(monkeypatch, numbers):
    monkeypatch.setattr("jaxclf.scaling.row_sums._BLOCK_NUMBERS_OF_SPARSE", numbers)
    x, weights = dense(4, (23, 9)), np.random.default_rng(5).random(23).astype(np.float32)
    extended = np.c_[x, np.ones(23)]
    features = from_csr(sp.csr_array(x), room=200)
    found = gram(features, weights, intercept=True)
    np.testing.assert_allclose(found, (extended.T * weights) @ extended, rtol=1e-5, atol=1e-6)
    diagonal = gram_diagonal(features, weights, intercept=False)
    np.testing.assert_allclose(diagonal, (x.T**2) @ weights, rtol=1e-5, atol=1e-6)
