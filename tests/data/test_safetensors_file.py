"""Datasets in safetensors."""

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxclf.data import load_dataset
from jaxclf.data.streams import feature_chunks

X = np.arange(24.0, dtype=np.float32).reshape(6, 4)
Y = np.array([3, 5, 3, 5, 3, 5])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16, np.uint8, np.int64, bool])
@pytest.mark.parametrize("names", [("features", "labels"), ("X", "y"), ("embeddings", "targets")])
def test_tensors_under_usual_names(tmp_path, monkeypatch, dtype, names):
    monkeypatch.setattr("jaxclf.data.streams.ROWS_AT_ONCE", 4)
    path = tmp_path / "x.safetensors"
    save_file({**dict(zip(names, (X.astype(dtype), Y), strict=True)), "other": X[:1]}, path)
    for name in (f"safetensors:{path}", str(path)):
        found = load_dataset(name)
        assert found.features.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found.features, X.astype(dtype))
        assert found.class_names == ("3", "5")
        chunks = list(feature_chunks(name).arrays)
        assert [len(chunk) for chunk in chunks] == [4, 2]
        np.testing.assert_array_equal(np.concatenate(chunks), X.astype(dtype))


def test_two_parts_and_labels_in_half_precision(tmp_path):
    path = tmp_path / "x.safetensors"
    labels = Y.astype(jnp.bfloat16)
    save_file({"x_train": X, "y_train": labels, "x_test": X[:2], "y_test": labels[:2]}, path)
    assert load_dataset(str(path), split="test").labels.tolist() == [0, 1]
    assert load_dataset(str(path)).class_names == ("3", "5")
    save_file({"x": X, "y": (Y / 2).astype(np.float16)}, path)
    assert load_dataset(str(path)).labels.tolist() == (Y / 2).tolist()


def test_damaged_files_are_one_sentence(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"features": X, "labels": Y}, path)
    whole = path.read_bytes()
    header = json.dumps({"features": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 96]}})
    for content in (
        b"",
        whole[:60],
        whole[:-1],
        whole.replace(b"F32", b"F99"),
        struct.pack("<Q", 2**60) + whole[8:],
        struct.pack("<Q", len(header)) + header.encode() + bytes(96),
    ):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"x\.safetensors: cannot be read as safeten"
        ) as raised:
            load_dataset(str(path))
        assert len(str(raised.value)) < 300
        with pytest.raises(ValueError, match="cannot be read as safetensors"):
            list(feature_chunks(str(path)).arrays)


def test_tensors_that_are_no_dataset(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"weights": X}, path)
    with pytest.raises(
        ValueError, match=r"expected arrays features and labels, .* it holds weights"
    ):
        load_dataset(str(path))
    with pytest.raises(ValueError, match="expected a tensor with the name features"):
        list(feature_chunks(str(path)).arrays)
    save_file({"features": X[0], "labels": Y}, path)
    with pytest.raises(ValueError, match="do not match"):
        load_dataset(str(path))
    with pytest.raises(ValueError, match=r"must be \(rows, columns\), got \(4,\)"):
        list(feature_chunks(str(path)).arrays)
    with pytest.raises(FileNotFoundError, match="No such file"):
        load_dataset(f"safetensors:{tmp_path / 'none'}")
