"""Sparse rows in files: what is written comes back, and what cannot be read is named."""

import gzip

import jax
import numpy as np
import optax
import pytest
import scipy.sparse as sp

from jaxclf import Batch, fit, losses, make_batch, make_objective, minimize, penalties, sweep
from jaxclf.data import StoredRows, open_rows, store_rows, stored_files, svmlight_blocks
from jaxclf.models import linear

TEXT = b"# words\n+1 2:0.5 7:2\n\n-1 qid:1 3:1\n-1\n+1 1:4 2:1 # more\n"
DENSE = np.zeros((4, 7), np.float32)
DENSE[0, [1, 6]], DENSE[1, 2], DENSE[3, :2] = (0.5, 2), 1, (4, 1)


def matrix(seed=0, shape=(70, 9)):
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(shape) < 0.3, rng.normal(size=shape), 0).astype(np.float32)
    x[3], x[:, 4] = 0, 0
    return x


def stored(x) -> StoredRows:
    rows = sp.csr_array(x)
    return StoredRows(rows.data, rows.indices, rows.indptr, rows.shape[1])


def test_blocks_come_back_as_they_were(tmp_path):
    x, labels = matrix(), np.arange(70) % 3
    kinds = (sp.csr_array, sp.csc_matrix, lambda x: sp.coo_array(x)[:, :6], sp.lil_array)
    at = np.split(np.arange(70), [10, 11, 40])
    blocks = ((kind(x[i]), labels[i]) for kind, i in zip(kinds, at, strict=True))
    wanted = x.copy()
    wanted[11:40, 6:] = 0  # a block of fewer columns
    written = store_rows(tmp_path / "rows", blocks)
    for batch in (written, open_rows(tmp_path / "rows")):
        assert isinstance(batch.features.values, np.memmap)
        assert batch.features.shape == (70, 9)
        np.testing.assert_array_equal(batch.features[:].toarray(), wanted)
        np.testing.assert_array_equal(batch.labels, labels)


@pytest.mark.parametrize("some", [slice(None), slice(5, 20), slice(3, 60, 7), [3, 3, 69, 0], []])
def test_rows_are_taken_in_any_order(some):
    x = matrix()
    some = some if isinstance(some, slice) else np.array(some, int)
    np.testing.assert_array_equal(stored(x)[some].toarray(), x[some])


@pytest.mark.parametrize("name", ["a.svmlight", "a.svmlight.gz"])
@pytest.mark.parametrize("lines", [1, 2, 100])
def test_a_text_file_is_read_in_blocks(tmp_path, monkeypatch, name, lines):
    monkeypatch.setattr(stored_files, "_LINES_AT_ONCE", lines)
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT) if name.endswith("gz") else TEXT)
    batch = store_rows(tmp_path / "rows", svmlight_blocks(path))
    np.testing.assert_array_equal(batch.features[:].toarray(), DENSE)
    assert batch.labels.tolist() == [1, -1, -1, 1]


def test_the_first_column_may_be_zero(tmp_path):
    path = tmp_path / "a.svmlight"
    path.write_text("1 0:1\n0 2:1\n")
    ((features, labels),) = svmlight_blocks(path, zero_based=True)
    np.testing.assert_array_equal(features.toarray(), [[1, 0, 0], [0, 0, 1]])
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1:2\nspam 1:2\n", "line 2: expected a number as label, got 'spam'"),
        ("1 1:2\n1 3:nan\n", "line 2: expected COLUMN:NUMBER, got '3:nan'"),
        ("1 1:2\n1 0:1\n", "a line has the column 0: give zero_based=True"),
    ],
)
def test_a_line_that_is_none_is_named_and_nothing_is_left(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(stored_files, "_LINES_AT_ONCE", 1)
    path = tmp_path / "a.svmlight"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        store_rows(tmp_path / "rows", svmlight_blocks(path))
    assert str(error.value).startswith(str(path))
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "at least one pair"),
        ([(sp.csr_array(DENSE), np.zeros(3))], r"block 0 has labels \(3,\) for 4 rows"),
        ([(sp.csr_array(DENSE * np.nan), np.zeros(4))], "features of block 0 must be finite"),
    ],
)
def test_bad_blocks_are_refused(tmp_path, blocks, message):
    with pytest.raises(ValueError, match=message):
        store_rows(tmp_path / "rows", blocks)
    assert not (tmp_path / "rows").exists()


def test_a_folder_of_other_files_is_named(tmp_path):
    store_rows(tmp_path / "rows", [(sp.csr_array(DENSE), np.zeros(4))])
    np.save(tmp_path / "rows" / "starts.npy", np.array([0, 1, 2, 3, 99]))
    with pytest.raises(ValueError, match=r"rows: starts must begin at 0 and end at the count"):
        open_rows(tmp_path / "rows")
    with pytest.raises(FileNotFoundError):
        open_rows(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"values": np.zeros(5, np.int32)}, TypeError, "values must be float32 or float64"),
        ({"places": np.zeros(5, np.int64)}, TypeError, "places must be int32"),
        ({"starts": np.zeros(5)}, TypeError, "starts must be integers"),
        ({"starts": np.array([0, 2, 9, 3, 4])}, ValueError, "end at the count of values"),
        ({"starts": np.array([], int)}, ValueError, "must begin at 0"),
        ({"num_columns": 0}, ValueError, r"num_columns must be 1 …"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, error, message):
    rows = sp.csr_array(DENSE)
    given = {"values": rows.data, "places": rows.indices, "starts": rows.indptr, "num_columns": 7}
    with pytest.raises(error, match=message):
        StoredRows(**given | changes)


def broken(where, value):
    rows = stored(matrix())
    getattr(rows, where)[1] = value
    return rows


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (broken("places", 9), "a number in column 9 of 9"),
        (broken("places", -1), "a number in column -1 of 9"),
        (broken("places", 0), "must rise within a row"),
        (broken("values", np.nan), "must be finite, got nan"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_bad_number_is_found_as_it_is_read(features, message, stream):
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(0.1))
    start = linear.LinearParams(np.zeros(9, np.float32), np.float32(0))
    batch = Batch(features, np.arange(70) % 2)
    with pytest.raises(ValueError, match=message):
        minimize(objective, start, batch, stream=stream)


def test_a_batch_reads_them_and_an_objective_names_what_reads_them():
    x, labels = matrix(), np.arange(70) % 2
    batch = make_batch(stored(x), labels)
    np.testing.assert_array_equal(batch.features @ np.eye(9, dtype=np.float32), x)
    objective = make_objective(linear.logits, losses.bernoulli_nll)
    start = linear.LinearParams(np.zeros(9, np.float32))
    with pytest.raises(TypeError, match="takes rows in memory, which make_batch reads"):
        objective(start, Batch(stored(x), labels))
    with pytest.raises(TypeError, match="a sweep takes rows in memory"):
        sweep({"l2": [0.1]}, Batch(stored(x), labels))


def test_minibatches_are_those_of_rows_in_memory(tmp_path):
    x, labels = matrix(), np.arange(70) % 3
    objective = make_objective(linear.logits, losses.categorical_nll)
    start = linear.LinearParams(np.zeros((3, 9), np.float32), np.zeros(3, np.float32))
    options = {"optimizer": optax.sgd(0.1), "batch_size": 16, "epochs": 2, "key": 0}
    found = [
        fit(objective, start, batch, **options)
        for batch in (make_batch(sp.csr_array(x), labels), Batch(stored(x), labels))
    ]
    jax.tree.map(np.testing.assert_array_equal, found[0].params, found[1].params)
    again = fit(objective, start, Batch(stored(x), labels), checkpoint=tmp_path, **options)
    np.testing.assert_array_equal(again.params.weights, found[0].params.weights)
