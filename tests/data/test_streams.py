"""Features read a few rows at a time."""

import numpy as np
import pytest

from jaxclf.data import load_dataset
from jaxclf.data.streams import feature_chunks
from jaxclf.data.table_plan import plan_of_numbers


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr("jaxclf.data.streams.ROWS_AT_ONCE", 4)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float64, ">f4"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_as_they_are(tmp_path, dtype, save):
    features = np.arange(90).reshape(10, 3, 3).astype(dtype)
    save(tmp_path / "x.npz", features=features, other=np.ones(3))
    np.save(tmp_path / "x.npy", features)
    for source in (f"npz:{tmp_path / 'x.npz'}", f"npy:{tmp_path / 'x.npy'}"):
        chunks = list(feature_chunks(source).arrays)
        assert [len(chunk) for chunk in chunks] == [4, 4, 2]
        assert np.array_equal(np.concatenate(chunks), features)
        assert chunks[0].dtype == np.dtype(dtype).newbyteorder("=")


def test_other_sources_are_not_streams(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=np.ones((2, 2)))
    assert feature_chunks("iris") is None
    assert feature_chunks(f"npz:{tmp_path / 'x.npz'}") is None


def test_text_is_matched_by_name(tmp_path):
    (tmp_path / "x.csv").write_text("b,name,a\n" + "".join(f"{i},u,{-i}\n" for i in range(6)))
    found = feature_chunks(f"csv:{tmp_path / 'x.csv'}", plan_of_numbers(("a", "b")))
    chunks = list(found.arrays)
    assert [len(chunk) for chunk in chunks] == [4, 2]
    assert np.array_equal(np.concatenate(chunks), [[-i, i] for i in range(6)])
    assert chunks[0].dtype == np.float64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,2\n", "it has no column 'b'"),
        ("c,d\n1,2\n", "it has none of the model's columns, 'a', 'b'"),
        ("", "the file is empty"),
        ("a,b\n1,2\n1\n", "row 3 has 1 fields, not 2"),
        ("a,b\n1,2\n1,x\n", "row 3, column 'b': expected a finite number, got 'x'"),
        ("a,b\n1,2\n1,1e39\n", "row 3, column 'b': expected a finite number, got '1e39'"),
    ],
)
def test_bad_text_is_one_sentence(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        list(feature_chunks(f"csv:{tmp_path / 'x.csv'}", plan_of_numbers(("a", "b"))).arrays)


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, features=np.random.default_rng(0).normal(size=(50, 4)))
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    with pytest.raises(ValueError, match="cannot read features"):
        list(feature_chunks(f"npz:{tmp_path / 'flipped.npz'}").arrays)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="not an archive"):
        feature_chunks(f"npz:{tmp_path / 'text.npz'}")
    np.savez(tmp_path / "object.npz", features=np.array([[None, 1]], object))
    with pytest.raises(ValueError, match="features must be numbers"):
        list(feature_chunks(f"npz:{tmp_path / 'object.npz'}").arrays)
    by_column = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.savez(tmp_path / "columns.npz", features=by_column)
    (found,) = feature_chunks(f"npz:{tmp_path / 'columns.npz'}").arrays
    np.testing.assert_array_equal(found, by_column)


def test_a_folder_of_arrays_is_mapped(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 30), ("test", 10)):
        np.save(tmp_path / f"x_{part}.npy", rng.normal(size=(n, 3)).astype(np.float32))
        np.save(tmp_path / f"y_{part}.npy", np.arange(n) % 2)
    train = load_dataset(f"npy:{tmp_path}", split="train")
    assert train.features.shape == (30, 3)
    assert isinstance(train.features, np.memmap)
    assert load_dataset(f"npy:{tmp_path}").features.shape == (40, 3)
    with pytest.raises(ValueError, match="expected arrays features and labels"):
        load_dataset(f"npy:{tmp_path.parent}")
    (tmp_path / "y_test.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as one array"):
        load_dataset(f"npy:{tmp_path}")
