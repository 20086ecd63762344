"""Files in the text of svmlight: what they hold, and what is wrong with a line."""

import gzip

import numpy as np
import pytest
import scipy.sparse as sp

from jaxclf import load_dataset
from jaxclf.data.dataset import with_dense_features

TEXT = """# a comment
+1 1:0.5 7:2 # another
-1 qid:3 3:1

-1 2:-1.5
+1
"""
FEATURES = np.zeros((4, 7))
FEATURES[0, [0, 6]], FEATURES[1, 2], FEATURES[2, 1] = (0.5, 2), 1, -1.5


def written(folder, text=TEXT, name="a.svmlight"):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["svmlight:{}/a.txt", "{}/a.svmlight", "{}/a.libsvm.gz"])
def test_features_stay_sparse(tmp_path, name):
    source = name.format(tmp_path)
    written(tmp_path, name=source.rpartition("/")[2])
    data = load_dataset(source)
    assert sp.issparse(data.features)
    assert data.features.dtype == np.float32
    assert data.features.indices.dtype == data.features.indptr.dtype == np.int32
    np.testing.assert_array_equal(data.features.toarray(), FEATURES)
    assert data.labels.tolist() == [1, 0, 0, 1]
    assert data.class_names == ("-1", "1")
    assert len(data.feature_names) == 7


def test_features_with_few_zeros_are_dense(tmp_path):
    data = load_dataset(str(written(tmp_path, "1 0:1 1:2\n2 0:3\n")))
    np.testing.assert_array_equal(data.features, [[1, 2], [3, 0]])


def test_a_split_and_a_dtype(tmp_path):
    text = "".join(f"{i % 2} {1 + i % 5}:{i} 9:1\n" for i in range(20))
    source = str(written(tmp_path, text))
    train, test = (load_dataset(source, split=part, dtype=np.float64) for part in ("train", "test"))
    assert train.features.shape == (16, 9)
    assert test.features.shape == (4, 9)
    assert train.features.dtype == np.float64
    assert train.sha256 != test.sha256 == load_dataset(source, split="test", dtype=float).sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1:2\nspam 1:2\n", "line 2: expected a number as label, got 'spam'"),
        ("1 1:2\n1 2\n", "line 2: expected COLUMN:NUMBER, got '2'"),
        ("1 1:2\n\n1 2:x\n", "line 3: expected COLUMN:NUMBER, got '2:x'"),
        ("1 -1:2\n", "line 1: expected COLUMN:NUMBER, got '-1:2'"),
        ("1 3:2 2:1\n", "line 1: columns must rise, got 2 after 3"),
        ("1 99999999999:2\n", "line 1: column '99999999999' is above 2147483647"),
        ("1 1:1\n2 2:nan\n", "line 2: expected COLUMN:NUMBER, got '2:nan'"),
        ("1\n2\n", "no line has a number"),
        ("", "no line has a number"),
        ("1,2 1:1\n", "line 1: expected a number as label, got '1,2'"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        load_dataset(str(path))
    assert str(error.value).startswith(str(path))


def test_a_damaged_archive_is_one_sentence(tmp_path):
    path = written(tmp_path, TEXT * 500, "a.svmlight.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="after line"):
        load_dataset(str(path))
    path.write_text("no archive")
    with pytest.raises(ValueError, match=str(path)):
        load_dataset(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file"):
        load_dataset(f"svmlight:{tmp_path}/none")


def test_dense_features_are_told_and_have_a_limit(tmp_path, monkeypatch):
    data = load_dataset(str(written(tmp_path)))
    dense = with_dense_features(data)
    np.testing.assert_array_equal(dense.features, FEATURES)
    assert dense.notes[-1] == "The features, of which 85.714% are zero, are made dense."
    assert with_dense_features(dense) is dense
    monkeypatch.setattr("jaxclf.data.dataset.free_host_memory", lambda: 100.0)
    with pytest.raises(ValueError, match="GiB when dense, which this needs"):
        with_dense_features(data)
