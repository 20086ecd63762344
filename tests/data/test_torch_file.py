"""Files of torch.save, read without torch; what is no plain tensor is refused unread."""

import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.data import load_dataset
from jaxclf.data.streams import feature_chunks
from tests.data.torch_writer import Call, Storage, named, save, tensor, view, write

X = np.arange(24.0, dtype=np.float32).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.pt"


def loaded(path, value, **options):
    save(path, value, **options)
    return load_dataset(f"pt:{path}")


def test_the_writer_makes_the_pickle_of_torch(path):
    save(path, {"a": tensor(np.zeros(2, np.float32))})
    with zipfile.ZipFile(path) as archive:
        content = archive.read("archive/data.pkl")
    # torch 2.13 writes these bytes for torch.save({"a": torch.zeros(2)}, path).
    assert content == (
        b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00"
        b"\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpu"
        b"q\x06K\x02tq\x07QK\x00K\x02\x85q\x08K\x01\x85q\t\x89ccollections\nOrderedDict\nq\n)Rq\x0b"
        b"tq\x0cRq\rs."
    )


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ({"features": tensor(X), "labels": tensor(Y)}, {}),
        ({"X": tensor(X), "y": tensor(Y), "epoch": 3, "note": "n", "rate": 0.1, "no": None}, {}),
        ((tensor(X), tensor(Y)), {"root": "x"}),
        ([tensor(X), Y.tolist()], {"protocol": 4}),
        ((tensor(X), tensor(Y)), {"byteorder": "big"}),
        ((tensor(X), tensor(Y)), {"byteorder": None}),
    ],
)
def test_tensors_in_plain_containers(path, value, options):
    found = loaded(path, value, **options)
    np.testing.assert_array_equal(found.features, X)
    assert found.features.dtype == np.float32
    assert found.labels.tolist() == Y.tolist()
    assert load_dataset(str(path)).sha256 == found.sha256  # its name tells its kind
    path.rename(path.with_suffix(".pth"))
    assert load_dataset(str(path.with_suffix(".pth"))).sha256 == found.sha256


@pytest.mark.parametrize(
    "dtype",
    ["f8", "f4", "f2", jnp.bfloat16, "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", "bool"],
)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_every_dtype_and_both_byte_orders(path, dtype, byteorder):
    found = loaded(path, (tensor(X.astype(dtype)), tensor(Y)), byteorder=byteorder)
    assert found.features.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found.features, X.astype(dtype))


def test_views_of_one_storage(path):
    storage = Storage(np.arange(30, dtype=np.float32))
    labels = view(Storage(np.arange(12) % 3), 1, (6,), (2,))
    transposed = view(storage, 6, (6, 4), (1, 6))
    found = loaded(path, {"features": transposed, "labels": labels, "other": tensor(Y)})
    np.testing.assert_array_equal(found.features, np.arange(6, 30).reshape(4, 6).T)
    assert found.features.flags["C_CONTIGUOUS"]
    assert found.class_names == ("0", "1", "2")
    assert found.labels.tolist() == [1, 0, 2, 1, 0, 2]
    repeated = view(Storage(X), 0, (6, 4), (0, 1))  # torch's expand
    found = loaded(path, (repeated, tensor(Y)))
    np.testing.assert_array_equal(found.features, np.tile(X[0], (6, 1)))
    two = {"x_train": view(storage, 0, (3, 2), (2, 1)), "x_test": view(storage, 6, (3, 2), (2, 1))}
    save(path, two | {"y_train": tensor(Y[:3]), "y_test": tensor(Y[:3])})
    assert load_dataset(f"pt:{path}", split="test").features[0].tolist() == [6, 7]


def test_names_parameters_sizes_and_types(path):
    parameter = Call("torch._utils", "_rebuild_parameter", tensor(X), True, {})
    value = {
        "features": parameter,
        "labels": tensor(Y.astype(np.int32)),
        "class_names": ["u", "v", "w"],
        "feature_names": ("a", "b", "c", "d"),
        "size": Call("torch", "Size", (6, 4)),
        "device": Call("torch", "device", "cuda", 0),
        "dtype": named("torch", "float32"),
    }
    found = loaded(path, value)
    assert found.class_names == ("u", "v", "w")
    assert found.feature_names == ("a", "b", "c", "d")
    assert loaded(path, (tensor(X), ["no", "yes"] * 3)).class_names == ("no", "yes")


def test_features_alone_are_read_for_prediction(path, monkeypatch):
    monkeypatch.setattr("jaxclf.data.streams.ROWS_AT_ONCE", 4)
    for value in (tensor(X), {"embeddings": tensor(X)}):
        save(path, value)
        chunks = list(feature_chunks(str(path)).arrays)
        assert [len(chunk) for chunk in chunks] == [4, 2]
        np.testing.assert_array_equal(np.concatenate(chunks), X)
    save(path, {"weights": tensor(X)})
    with pytest.raises(ValueError, match="expected a tensor with the name features"):
        feature_chunks(str(path))
    save(path, tensor(X[0]))
    with pytest.raises(ValueError, match="features must be numbers"):
        list(feature_chunks(str(path)).arrays)


class Evil:
    """Its pickle would call a function."""

    ran = False

    def __reduce__(self):
        return Evil.run, ()

    @staticmethod
    def run():
        Evil.ran = True


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Evil(), "it holds 'tests.data.test_torch_file.Evil.run'|it holds '.*getattr'"),
        ({"a": np.float64(1)}, "it holds 'numpy"),
        ({"a": {1, 2}}, "it holds '__builtin__.set'"),
        ({"a": b"x"}, "it holds '_codecs.encode'"),
        (Call("torch._utils", "_rebuild_qtensor", 1), "it holds 'torch._utils._rebuild_qtensor'"),
        (Call("torch._utils", "_rebuild_sparse_tensor"), "it holds 'torch._utils._rebuild_sparse"),
        (named("torch", "ComplexFloatStorage"), "it holds 'torch.ComplexFloatStorage'"),
        (named("torch.nn", "L" * 500), "it holds 'torch.nn.L+…, and only plain tensors"),
        (
            Call("torch", "Size", (1,), state={"a": 1}),
            "an object with attributes, such as a state_dict",
        ),
        (Call("collections", "OrderedDict", state={"keys": 1}), "such as a state_dict, and only"),
        (view(Storage(X), 0, (6, 4), (4, 1), {"neg": True}), "conjugated or negated lazily"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_other_objects_are_named_and_not_made(path, value, said, protocol):
    if protocol == 4 and "__builtin__" in said:
        said = "it holds the opcode EMPTY_SET"
    if protocol == 4 and "_codecs" in said:
        said = "it holds the opcode SHORT_BINBYTES"
    if protocol == 4 and "numpy" in said:
        said = "it holds an object with attributes"
    save(path, {"features": tensor(X), "a": value}, protocol=protocol)
    for read in (load_dataset, feature_chunks):
        with pytest.raises(ValueError, match=said) as raised:
            read(f"pt:{path}")
        assert len(str(raised.value)) < 400
        assert "save the tensors alone" in str(raised.value)
    assert not Evil.ran


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ((0, (7, 4), (4, 1)), r"shape \(7, 4\) does not fit its storage of 24 numbers"),
        ((1, (6, 4), (4, 1)), "does not fit"),
        ((0, (6, 4), (5, 1)), "does not fit"),
        ((0, (2, 2), (1, 2**62)), "does not fit"),
        ((2**70, (1, 1), (1, 1)), "does not fit"),
        ((0, (2**40, 2**40), (0, 0)), "does not fit"),
        ((-1, (6, 4), (4, 1)), "no counts"),
        ((0, (6, 4), (-4, 1)), "no counts"),
        ((0, (6, 4), (4,)), "no counts"),
        ((0, (6.0, 4), (4, 1)), "no counts"),
        ((0, "64", (4, 1)), "no counts"),
        ((0, (True, 4), (4, 1)), "no counts"),
        ((0, (0, 2**70), (1, 1)), "has the shape"),
        ((0, (1,) * 70, (1,) * 70), "has the shape"),
    ],
)
def test_a_tensor_must_lie_in_its_storage(path, place, said):
    for dtype in (np.float32, np.uint16):  # typed, and in bytes
        save(path, (view(Storage(X.astype(dtype)), *place), tensor(Y)))
        with pytest.raises(ValueError, match=said):
            load_dataset(f"pt:{path}")


@pytest.mark.parametrize("length", [23, 25, 10**12])
def test_a_storage_must_have_the_length_that_is_named(path, length):
    save(path, (view(Storage(X, length), 0, (5, 4), (4, 1)), tensor(Y[:5])))
    with pytest.raises(ValueError, match=rf"storage '0' has 96 bytes, not {4 * length}"):
        load_dataset(f"pt:{path}")


def test_damaged_files(path):
    save(path, (tensor(X), tensor(Y)))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(X.tobytes()) + 9] ^= 1
    for content, said in (
        (whole[:300], "cannot be read as a file of torch.save"),
        (bytes(flipped), "Bad CRC-32"),
        (b"nothing", "cannot be read as a file of torch.save: File is not a zip file"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "the format of torch before 1.6"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            load_dataset(f"pt:{path}")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", "3")
    with pytest.raises(ValueError, match=r"the archive has no data\.pkl"):
        load_dataset(f"pt:{path}")
    save(path, (tensor(X), tensor(Y)))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("archive/data.pkl")
    write(path, content)  # without its storages
    with pytest.raises(ValueError, match="There is no item named 'archive/data/0'"):
        load_dataset(f"pt:{path}")


def test_no_byte_of_the_directory_leads_elsewhere(path):
    save(path, (tensor(X), tensor(Y)))
    whole = path.read_bytes()
    refused = 0
    for i in range(whole.index(b"PK\x01\x02"), len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        try:
            found = load_dataset(f"pt:{path}")
        except ValueError:
            refused += 1
        else:
            np.testing.assert_array_equal(found.features, X)
    assert refused > 100


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02}q\x00",  # cut short
        b"\x80\x02}r\xff\xff\xff\x7f.",  # an entry of the memo that would take 16 GiB
        b"\x80\x02K\x01K\x02a.",  # a list operation on a number
        b"\x80\x02K\x01Q.",  # a number as the identifier of a storage
        b"\x80\x02K\x01)R.",  # a call of a number
        b"\x80\x02ctorch\nfloat32\n)R.",  # a call of a dtype
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n(K\x01K\x01))ttR.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(K\x01K\x01tR.",
        b"\x80\x02ctorch\nSize\n(K\x01tR.",
    ],
)
def test_damaged_pickles_are_one_sentence(path, content):
    write(path, content)
    with pytest.raises(ValueError, match=r"cannot be read as a file of torch\.save: ") as raised:
        load_dataset(f"pt:{path}")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BYTEARRAY8, of 8 EiB
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
    ],
)
def test_no_opcode_makes_another_object(path, content, monkeypatch):
    monkeypatch.setattr("os.system", lambda command: pytest.fail(command))
    write(path, content)
    with pytest.raises(ValueError, match=r"it holds|cannot be read as a file of torch"):
        load_dataset(f"pt:{path}")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (tensor(X), "expected a dictionary of tensors .* it holds one tensor"),
        (3, "it holds a int"),
        ((tensor(X),), "it holds a tuple"),
        ({"a": tensor(X), 1: tensor(X)}, "it holds a$"),
        ({"features": tensor(X), "labels": [[1, 2]] * 6}, "it holds features$"),
        ({"features": tensor(X), "labels": []}, "it holds features$"),
        ((tensor(X), tensor(Y[:5])), r"features \(6, 4\) and labels \(5,\) do not match"),
    ],
)
def test_tensors_that_are_no_dataset(path, value, said):
    save(path, value)
    with pytest.raises(ValueError, match=said):
        load_dataset(f"pt:{path}")


def test_shared_containers_do_not_grow(path):
    nested = [0.0]
    for _ in range(60):  # 2⁶⁰ numbers if they were walked through
        nested = [nested, nested]
    found = loaded(path, {"features": tensor(X), "labels": tensor(Y), "nested": nested})
    assert found.features.shape == (6, 4)
