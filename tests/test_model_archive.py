"""Archives of model files: what was written comes back, and files of strangers raise ValueError."""

import hashlib
import io
import json
import os
import random
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import LogisticRegression, load_model, save_model
from jaxclf.data import table_plan
from jaxclf.model_archive import arrays_of, packed, signed, unpacked
from jaxclf.models.classifier import Architecture, Classifier, make_model


def entry(values=b"ab") -> bytes:
    """A part of an archive."""
    file = io.BytesIO()
    np.save(file, np.frombuffer(values, np.uint8) if isinstance(values, bytes) else values)
    return file.getvalue()


def with_descr(descr: str, shape: str, values: bytes = b"") -> bytes:
    """A part whose own header says anything."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def resigned(content: bytes) -> bytes:
    content = content[:-64]
    return content + hashlib.sha256(content).hexdigest().encode()


def archive(*parts: tuple[str, bytes], **options) -> bytes:
    """An archive of parts, with its digest."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file:
        for name, content in parts:
            file.writestr(name, content)
        file.comment = bytes(64)
    return resigned(buffer.getvalue())


TEXT = np.array('{"arrays": {"@": {}}}')
NO_CHARACTER = np.frombuffer(
    TEXT.tobytes().replace("@".encode("utf-32-le"), b"\0\0\0\x80"), TEXT.dtype
).reshape(())
HEADER = ("header.npy", entry(np.array('{"arrays": {}}')))


def test_arrays_of_every_dtype_come_back():
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "['b'][0].c": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float16),
        "number": np.array(7, np.int32),
        "half": np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
        "by column": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    }
    header, stored = unpacked(packed({"names": ["ç", 1]}, arrays))
    found = arrays_of(header, stored)
    assert header["names"] == ["ç", 1]
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert found["a"].flags.writeable
    with pytest.raises(TypeError, match="no array of complex128, as z is"):
        packed({}, {"z": np.zeros(2, complex)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "not a zip file"),
        (archive(HEADER)[:-1], "not a zip file|bytes were changed"),
        (archive(HEADER)[:-1] + b"g", "its bytes were changed"),
        (archive(HEADER, compression=zipfile.ZIP_DEFLATED), "packed or encrypted"),
        (archive(("a.npy", entry())), "it has no header"),
        (archive(HEADER, ("a", entry())), "its part 'a' is no array"),
        (archive(HEADER, ("a.npy", b"PK")), "array 'a' is not stored as bytes"),
        (archive(HEADER, ("a.npy", entry(np.zeros((2, 2), np.uint8)))), "not stored as bytes"),
        (archive(HEADER, ("a.npy", entry(np.zeros(2)))), "array 'a' is not stored as bytes"),
        (archive(HEADER, ("a.npy", entry() + b"x")), "array 'a' is not stored as bytes"),
        (archive(HEADER, ("a.npy", with_descr("'|O'", "(1,)", bytes(8)))), "not stored as bytes"),
        (archive(HEADER, ("a.npy", with_descr("[]", f"({'7, ' * 30})"))), "not stored as bytes"),
        (archive(("header.npy", entry(np.array([["a"]])))), "array 'header' is not stored"),
        (archive(("header.npy", entry(NO_CHARACTER))), "can't decode bytes"),
        (archive(("header.npy", entry(np.array("[1]")))), "no object of JSON"),
        (
            archive(("header.npy", entry(np.array(f'{{"a": {2**64}}}')))),
            "integer .* beyond 64 bits",
        ),
        (archive(("header.npy", entry(np.array('{"a": ' + "9" * 5000 + "}")))), "beyond 64 bits"),
        (archive(("header.npy", entry(np.array('{"b": {"a": 1, "a": 2}}')))), "has 'a' twice"),
        (archive(HEADER, ("a.npy", entry(b"PK\x01\x02" * (2**16 + 1)))), "more than 65536 parts"),
        (archive(("header.npy", entry(np.array("[" * 10**5)))), "it is too large or deep"),
        (archive(("header.npy", entry(np.array('{"a":' * 10**5)))), "it is too large or deep"),
        (archive(("header.npy", entry(np.array(" " * 2**24 + " ")))), "more than 16777216 char"),
        (archive(("header.npy", entry(np.array('{"a": "\\ud800"}')))), "surrogates not allowed"),
    ],
)
def test_archives_that_are_not_of_ours_are_refused(tmp_path, content, message):
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(ValueError, match=f"m.npz is not a usable model file: .*({message})"):
        load_model(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("()", "(1,)"), ("'(1 2)f4'", "(1,)"), ("('<f4', -1)", "(1,)"), ("'<f4'", "(-1, -4)"),
        ("'<f4'", f"({2**70}, 0)"), ("'M8[99999999999999999999s]'", "(0,)"), ("'T'", "(1,)"),
        ("'U99999999999999999999'", "(0,)"), ("{}", "(1,)"), ("'<f4'", "(" + "9" * 5000 + ",)"),
        ("(" * 3000, "(1,)"), ("-" * 9000 + "1", "(1,)"), ("'\\ud800'", "(1,)"), ("[[]]", "(0,)"),
    ],
)  # fmt: skip
def test_strange_headers_of_arrays_are_refused(tmp_path, descr, shape):
    part = with_descr(descr, shape, bytes(16))
    for parts in ([("header.npy", part)], [HEADER, ("a.npy", part)]):
        (tmp_path / "m.npz").write_bytes(archive(*parts))
        with pytest.raises(ValueError, match=r"m\.npz is not a usable model file") as raised:
            load_model(tmp_path / "m.npz")
        assert len(str(raised.value)) < 500


def test_encrypted_repeated_and_overlapping_parts_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    whole = bytearray(archive(HEADER, ("a.npy", entry(bytes(10**5)))))
    directory = whole.find(b"PK\x01\x02")
    second = whole.find(b"PK\x01\x02", directory + 1)

    def refused(place: int, values: bytes) -> str:
        changed = bytearray(whole)
        changed[place : place + len(values)] = values
        path.write_bytes(resigned(bytes(changed)))
        with pytest.raises(ValueError, match="not a usable model file") as raised:
            load_model(path)
        return str(raised.value)

    assert "packed or encrypted" in refused(second + 8, b"\x01")
    assert "overlap" in refused(second + 42, struct.pack("<L", 0))
    assert "overlap" in refused(second + 24, struct.pack("<L", 10**6))
    assert "overlap" in refused(28, struct.pack("<H", 9000))
    assert "longer than the file" in refused(second + 20, struct.pack("<2L", 10**6, 10**6))
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(archive(HEADER, HEADER))
    with pytest.raises(ValueError, match="two parts of it have one name"):
        load_model(path)
    assert len(whole) < 2 * 10**5


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"dtype": "float32", "shape": [3]}, r"array 'a' is not float32 \(3,\)"),
        ({"dtype": "(1 2)f4", "shape": [1]}, "array 'a' is not"),
        ({"dtype": "object", "shape": [1]}, "array 'a' is not object"),
        ({"dtype": "uint8", "shape": [-2, -4]}, "array 'a' is not"),
        ({"dtype": "uint8", "shape": [8.0]}, "array 'a' is not"),
        ({"dtype": "uint8", "shape": [1] * 40 + [8]}, "array 'a' is not"),
        ({"dtype": "bool", "shape": [8]}, "booleans other than 0 and 1"),
        ({"dtype": ["uint8"], "shape": [8]}, "unhashable"),
    ],
)
def test_descriptions_that_do_not_fit_the_bytes_are_refused(about, message):
    header, stored = unpacked(packed({}, {"a": np.arange(8, dtype=np.uint8)}))
    header["arrays"]["a"] = about
    with pytest.raises((ValueError, TypeError), match=message):
        arrays_of(header, stored)
    with pytest.raises(ValueError, match="arrays and header differ in a, b"):
        arrays_of({"arrays": {"b": about}}, stored)


def slots(part) -> list:
    """All places in a header: a container, and a key of it."""
    keys = part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
    return [(part, key) for key in keys] + [x for key in keys for x in slots(part[key])]


VALUES = (
    None, True, 0, -1, 2, 2**31, 2**70, 10**400, 1.5, float("nan"), "", "mlp", "convnet", "uint16",
    "(2)f4", [], {}, [0], [2**70], [[1]], ["a"], "\0", [8, 8], {"array": "0"}, {"list": []},
    {"texts": ["a"], "object": True}, {"dict": [{"list": [1, 2]}]}, {"dtype": "int8"},
)  # fmt: skip


@pytest.mark.parametrize("kind", ["linear", "mlp", "convnet", "estimator"])
def test_mutated_files_raise_nothing_but_value_errors(tmp_path, kind):
    path, rng = tmp_path / "m.npz", random.Random(0)
    if kind == "estimator":
        model = LogisticRegression().fit([[0.0, 1], [1, 2], [2, 0]], ["a", "b", "b"])
    else:
        architecture = Architecture(kind, (2, 2), 2, hidden=(3,))
        params = make_model(architecture, jax.random.key(0)).params
        model = Classifier(architecture, params, ("a", "b"))
    save_model(path, model)
    content = path.read_bytes()
    header, stored = unpacked(content)
    refusals = 0
    for _ in range(100):
        changed = json.loads(json.dumps(header))
        container, key = rng.choice(slots(changed))
        container[key] = rng.choice(VALUES)
        for written in (
            signed({"header": np.array(json.dumps(changed)), **stored}),
            resigned(with_bytes_changed(content, rng)),
        ):
            path.write_bytes(written)
            try:
                load_model(path)
            except ValueError:
                refusals += 1
    assert refusals > 100


def with_bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """The file with some bytes changed near the start of one of its parts."""
    changed = bytearray(content)
    marks = [b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x93NUMPY", b"{'descr"]
    mark = rng.choice(marks)
    places = [i for i in range(len(content)) if content.startswith(mark, i)]
    for _ in range(rng.choice([1, 2, 4])):
        place = min(rng.choice(places) + rng.randrange(60), len(content) - 65)
        changed[place] = rng.choice([0, 1, 40, 255, rng.randrange(256)])
    return bytes(changed)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_save_that_is_cut_off_leaves_the_old_file(tmp_path, monkeypatch, moment):
    def interrupted(*_):
        assert path.read_bytes() == before  # and so it would be if the process were killed here
        raise KeyboardInterrupt

    path, rows = tmp_path / "m.npz", [[0.0, 1], [1, 2], [2, 0]]
    save_model(path, LogisticRegression().fit(rows, [0, 1, 1]))
    before = path.read_bytes()
    other = LogisticRegression().fit(rows, ["a", "b", "a"])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, moment, interrupted)
        save_model(path, other)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    save_model(path, other)
    assert path.read_bytes() != before


def plan_of(**changed):
    """A plan of two columns, of which the first is changed."""
    first = {"name": "a", "kind": "category", "categories": ["x", "y"], "missing": True}
    columns = [first | changed, {"name": "b", "kind": "number", "categories": []}]
    return {"label": "y", "has_header": True, "marks": [], "columns": columns}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"plan": plan_of(kind="number")}, "plan of column 'a' is damaged"),
        ({"plan": plan_of(kind="left out", categories=[])}, "plan of column 'a' is damaged"),
        ({"plan": plan_of(categories=[], others=True)}, "plan of column 'a' is damaged"),
        ({"plan": plan_of(missing="yes")}, "plan of column 'a' is damaged"),
        ({"plan": plan_of(name="b")}, "two columns of one name"),
        ({"plan": plan_of(missing=False)}, "does not make its features"),
        # The names of these features would take 2 TB, and this product hours.
        ({"plan": plan_of(name="a" * 10**6, categories=["x"] * 10**6)}, "does not make its feat"),
        ({"feature_shape": [2**60] * 10**5}, "features of 100000 axes, more than 5"),
        ({"class_names": [2**61 - 1, 2**70]}, "beyond 64 bits"),
    ],
)  # fmt: skip
def test_headers_of_classifiers_cost_no_more_than_they_hold(tmp_path, changes, message):
    plan, names = table_plan.from_json(plan_of()), ("a=x", "a=y", "a: missing", "b")
    architecture = Architecture("linear", (4,), 2)
    params = make_model(architecture, jax.random.key(0)).params
    save_model(tmp_path / "m.npz", Classifier(architecture, params, (0, 1), names, plan=plan))
    header, stored = unpacked((tmp_path / "m.npz").read_bytes())
    for name, value in changes.items():
        (header["architecture"] if name == "feature_shape" else header)[name] = value
    content = signed({"header": np.array(json.dumps(header)), **stored})
    (tmp_path / "m.npz").write_bytes(content)
    if message is None:
        table = {"a": ["x", None], "b": [1.0, 2.0]}
        assert load_model(tmp_path / "m.npz").predict(table).shape == (2,)
    else:
        with pytest.raises(ValueError, match=message):
            load_model(tmp_path / "m.npz")
