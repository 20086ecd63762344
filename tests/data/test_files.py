"""Reading IDX and npz files, and refusing the ones that are damaged."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest

from jaxclf import load_dataset
from jaxclf.data import memory, split_dataset
from jaxclf.data.idx import read_idx
from jaxclf.data.streams import feature_chunks


def write_idx(path, array, code=0x08):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_folder(folder, num_train=20, num_test=6, suffix=".gz"):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    parts = {}
    for part, rows in (("train", num_train), ("t10k", num_test)):
        images = rng.integers(0, 256, (rows, 3, 4)).astype(np.uint8)
        labels = (np.arange(rows) % 3).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
        parts[part] = images, labels
    return parts


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_every_number_type_of_idx_comes_back_in_native_order(tmp_path, code, dtype):
    array = np.array([[1, -2, 3], [4, 5, 100]]).astype(dtype)
    write_idx(tmp_path / "x", array, code)
    read = read_idx(tmp_path / "x")
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_folder_keeps_uint8_images_and_its_own_parts(tmp_path, suffix):
    parts = write_folder(tmp_path, suffix=suffix)
    train = load_dataset(f"idx:{tmp_path}", split="train")
    test = load_dataset(f"idx:{tmp_path}", split="test")
    whole = load_dataset(f"idx:{tmp_path}")
    assert train.features.dtype == np.uint8
    np.testing.assert_array_equal(train.features, parts["train"][0])
    np.testing.assert_array_equal(test.labels, parts["t10k"][1])
    assert len(whole.labels) == 26
    assert whole.class_names == ("0", "1", "2")
    assert load_dataset(f"idx:{tmp_path}", dtype=np.float32).features.dtype == np.float32


def test_class_names_come_from_a_file_in_the_folder(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "classes.txt").write_text("shirt\ntrousers\ncoat\n")
    assert load_dataset(f"idx:{tmp_path}").class_names == ("shirt", "trousers", "coat")
    (tmp_path / "classes.txt").write_text("shirt\ntrousers\n")
    with pytest.raises(ValueError, match="a label is 2, but it names 2 classes"):
        load_dataset(f"idx:{tmp_path}")


def test_the_hash_is_that_of_the_rows(tmp_path):
    write_folder(tmp_path)
    first = load_dataset(f"idx:{tmp_path}")
    assert first.sha256 == load_dataset(f"idx:{tmp_path}").sha256
    changed = first.features.copy()
    changed[3, 1, 1] ^= 1
    assert first._replace(features=changed).sha256 != first.sha256
    assert first._replace(labels=first.labels[::-1]).sha256 != first.sha256
    assert first._replace(features=first.features.reshape(26, 12)).sha256 != first.sha256


def test_damaged_idx_files_name_the_file_and_the_byte(tmp_path):
    write_folder(tmp_path, suffix="")
    images = tmp_path / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    for content, message in (
        (
            whole[:100],
            r"train-images-idx3-ubyte: ends at byte 100, .* promises 256 for \(20, 3, 4\)",
        ),
        (whole + b"x", "ends at byte 257"),
        (whole[:9], "header ends at byte 9 of 16"),
        (b"PNG", "not an IDX file: it starts with bytes 50 4e 47"),
        (b"", r"starts with bytes \(none\)"),
        (gzip.compress(whole)[:-20], "damaged gzip data"),
    ):
        images.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_dataset(f"idx:{tmp_path}")
    packed = bytearray(gzip.compress(whole))
    packed[40] ^= 255
    images.write_bytes(packed)
    with pytest.raises(ValueError, match="damaged gzip data"):
        load_dataset(f"idx:{tmp_path}")


def test_what_does_not_fit_into_memory_is_refused_by_its_header(tmp_path, monkeypatch):
    unpacked = []
    monkeypatch.setattr(memory, "free_host_memory", lambda: 2.0**20)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: unpacked.append("npz"))
    write_idx(tmp_path / "bomb", np.zeros((2**11, 2**11), np.uint8))
    content = gzip.compress((tmp_path / "bomb").read_bytes())
    (tmp_path / "bomb").write_bytes(content)
    with pytest.raises(ValueError, match=r"bomb: its header promises 0.00391 GiB, and 0.000977"):
        read_idx(tmp_path / "bomb")
    np.savez_compressed(tmp_path / "bomb.npz", X=np.zeros((2**9, 2**9)), y=np.zeros(2**9))
    with pytest.raises(ValueError, match=r"bomb.npz: its header promises 0.00196 GiB, and"):
        load_dataset(f"npz:{tmp_path / 'bomb.npz'}")
    assert not unpacked


def test_an_npz_that_says_two_sizes_or_has_two_arrays_of_a_name_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)}
    )
    labels = io.BytesIO()
    np.save(labels, np.zeros(3))
    lies, twice = tmp_path / "lies.npz", tmp_path / "twice.npz"
    with zipfile.ZipFile(lies, "w") as archive:
        archive.writestr("X.npy", buffer.getvalue() + bytes(48))
        archive.writestr("y.npy", labels.getvalue())
    with pytest.raises(ValueError, match=r"cannot read X: its header promises 16000000000000 byt"):
        load_dataset(f"npz:{lies}")
    np.savez(twice, X=np.zeros((3, 2)), y=np.zeros(3))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(twice, "a") as archive:
        archive.writestr("y.npy", labels.getvalue())
    with pytest.raises(ValueError, match="cannot read y: two parts have the name y"):
        load_dataset(f"npz:{twice}")


def test_idx_folders_that_do_not_fit_together(tmp_path):
    write_folder(tmp_path, suffix="")
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(19, np.uint8))
    with pytest.raises(ValueError, match=r"images.* has shape \(20, 3, 4\) but .*has 19 labels"):
        load_dataset(f"idx:{tmp_path}")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="has no train labels: expected a file like train-labels"):
        load_dataset(f"idx:{tmp_path}")
    with pytest.raises(ValueError, match="is not a folder"):
        load_dataset(f"idx:{tmp_path / 'missing'}")


def test_a_class_missing_from_the_training_part(tmp_path):
    write_folder(tmp_path, suffix="")
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(20, np.uint8))
    with pytest.raises(ValueError, match=r"class '1' has no row in a part of 20 rows"):
        load_dataset(f"idx:{tmp_path}", split="train")


def test_npz_in_both_layouts(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    np.savez(tmp_path / "a.npz", features=x, labels=y, class_names=["a", "b", "c"])
    data = load_dataset(f"npz:{tmp_path / 'a.npz'}")
    assert data.class_names == ("a", "b", "c")
    assert data.features.dtype == np.float64
    train = load_dataset(f"npz:{tmp_path / 'a.npz'}", split="train")
    assert np.bincount(train.labels).tolist() == [8, 8, 8]

    np.savez(tmp_path / "b.npz", x_train=x, y_train=y + 5, x_test=x[:6], y_test=y[:6] + 5)
    test = load_dataset(f"npz:{tmp_path / 'b.npz'}", split="test")
    assert test.class_names == ("5", "6", "7")
    np.testing.assert_array_equal(test.labels, y[:6])


def test_bad_npz(tmp_path):
    path = tmp_path / "a.npz"
    x, y = np.ones((4, 2)), np.arange(4)
    np.savez(path, features=x, labels=y[:3])
    with pytest.raises(ValueError, match=r"features \(4, 2\) and labels \(3,\) do not match"):
        load_dataset(f"npz:{path}")
    np.savez(path, a=x, b=y)
    with pytest.raises(ValueError, match=r"expected arrays features and labels, .*it holds a, b"):
        load_dataset(f"npz:{path}")
    np.savez(path, features=x, labels=np.array([{}] * 4, dtype=object))
    with pytest.raises(ValueError, match=r"cannot read labels: .*pickle"):
        load_dataset(f"npz:{path}")
    np.savez(path, features=x, labels=y)
    content = bytearray(path.read_bytes())
    content[content.find(b"labels.npy") + 150] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: cannot read"):
        load_dataset(f"npz:{path}")
    path.write_bytes(content[:80])
    with pytest.raises(ValueError, match=r"a\.npz: cannot read the file: not an archive of NumPy"):
        load_dataset(f"npz:{path}")


def test_split_dataset_keeps_shares_or_not():
    whole = load_dataset("digits")
    rest, held_out = split_dataset(whole, 0.25, seed=1)
    assert len(rest.labels) + len(held_out.labels) == 1797
    share = np.bincount(held_out.labels) / np.bincount(whole.labels)
    np.testing.assert_allclose(share, 0.25, atol=0.01)
    _, plain = split_dataset(whole, 0.25, seed=1, stratified=False)
    assert not np.array_equal(plain.labels, held_out.labels)
    with pytest.raises(ValueError, match=r"fraction must lie in \(0, 1\), got 0"):
        split_dataset(whole, 0, seed=1)


def test_labels_from_one_and_labels_outside(tmp_path):
    write_folder(tmp_path, suffix="")
    for part, rows in (("train", 20), ("t10k", 6)):
        labels = (np.arange(rows) % 3 + 1).astype(np.uint8)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    data = load_dataset(f"idx:{tmp_path}", split="train")
    assert data.class_names == ("1", "2", "3")
    assert set(data.labels) == {0, 1, 2}
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.full(6, -1, np.int8), code=0x09)
    with pytest.raises(ValueError, match="must be integers from 0"):
        load_dataset(f"idx:{tmp_path}")


def test_a_split_that_loses_a_class_is_refused():
    whole = load_dataset("iris")
    rare = whole._replace(labels=np.where(np.arange(150) < 148, 0, 1).astype(np.int32),
                          class_names=("a", "b"))  # fmt: skip
    with pytest.raises(ValueError, match="iris: class 'b' has no row in a part of 15 rows"):
        split_dataset(rare, 0.1, seed=0)
    single = rare._replace(labels=np.where(np.arange(150) < 149, 0, 1).astype(np.int32))
    with pytest.raises(ValueError, match="iris cannot be split"):
        split_dataset(single, 0.1, seed=0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"labels": np.array([0, np.nan, 1, 1])},
            "labels must be finite, got nan in row 1",
        ),
        ({"labels": np.array([1j] * 4)}, "labels must be text or numbers, got dtype complex128"),
        ({"features": np.array([["a"]] * 4)}, "features must be real numbers, got dtype <U1"),
        ({"feature_names": ["x"]}, "1 feature_names for 2 columns"),
        ({"class_names": ["a", "a", "b", "c"]}, "names of classes repeat: a, a, b, c"),
    ],
)
def test_npz_oddities(tmp_path, arrays, message):
    good = {"features": np.ones((4, 2)), "labels": np.arange(4)}
    np.savez(tmp_path / "a.npz", **good | arrays)
    with pytest.raises(ValueError, match=message):
        load_dataset(f"npz:{tmp_path / 'a.npz'}")


def test_npz_labels_as_bytes_and_as_a_column(tmp_path):
    np.savez(
        tmp_path / "a.npz", features=np.ones((3, 2)), labels=np.array([b"cat", b"dog", b"cat"])
    )
    assert load_dataset(f"npz:{tmp_path / 'a.npz'}").class_names == ("cat", "dog")
    np.savez(tmp_path / "a.npz", features=np.ones((3, 2)), labels=np.array([[0], [1], [0]]))
    assert load_dataset(f"npz:{tmp_path / 'a.npz'}").labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "names", [("X", "y"), ("embeddings", "labels"), ("data", "target"), ("arr_0", "arr_1")]
)
def test_usual_names_of_arrays(tmp_path, names):
    features, labels = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
    np.savez(tmp_path / "x.npz", **dict(zip(names, (features, labels), strict=True)))
    for name in (f"npz:{tmp_path / 'x.npz'}", str(tmp_path / "x.npz")):
        found = load_dataset(name)
        assert found.features.tolist() == features.tolist()
        assert found.labels.tolist() == labels.tolist()
    (chunk,) = feature_chunks(f"npz:{tmp_path / 'x.npz'}").arrays
    assert chunk.tolist() == features.tolist()
