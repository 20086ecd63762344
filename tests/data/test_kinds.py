"""The kind of a source by its name, and the name that was meant."""

import numpy as np
import pytest
from PIL import Image

from jaxclf.data import load_dataset
from jaxclf.data.kinds import kind_of
from jaxclf.data.streams import feature_chunks
from tests.data.test_files import write_folder


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("x.csv", "csv"),
        ("x.tsv.gz", "tsv"),
        ("x.parquet", "parquet"),
        ("x.npz", "npz"),
        ("x.npy", "npy"),
        ("X.NPY", "npy"),
        ("x.safetensors", "safetensors"),
        ("x.pt", "pt"),
        ("x.pth", "pt"),
        ("x.data", "csv"),
    ],
)
def test_the_end_of_a_name_tells_the_kind(tmp_path, file, kind):
    (tmp_path / file).write_text("")
    assert kind_of(str(tmp_path / file)) == (kind, str(tmp_path / file))


def test_the_files_in_a_folder_tell_its_kind(tmp_path):
    write_folder(tmp_path / "digits")
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "x.npy", np.ones(3))
    for place in ("photos/cats", "parts/train/cats", "plain"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (2, 2)).save(tmp_path / place / "0.JPG", "JPEG")
    for name, kind in (("digits", "idx"), ("arrays", "npy"), ("photos", "images"),
                       ("parts", "images")):  # fmt: skip
        assert kind_of(f"{tmp_path / name}/")[0] == kind
    assert load_dataset(str(tmp_path / "digits")).features.shape == (26, 3, 4)
    with pytest.raises(ValueError, match=r"plain: expected a folder with IDX files, with features"):
        kind_of(str(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("iri", "iris"),
        ("Irys", "iris"),
        ("mnist", "tfds:mnist"),
        ("breast-cancer", "breast_cancer"),
        ("cvs:a.txt", "csv:a.txt"),
        ("safetensor:x", "safetensors:x"),
    ],
)
def test_the_nearest_name_is_meant(name, meant):
    with pytest.raises(ValueError, match=rf"dataset must be one of .*; did you mean {meant}\?$"):
        load_dataset(name)


@pytest.mark.parametrize("prefix", ["", "csv:"])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("data/iri.csv", "data/iris.csv"),
        ("dta/iris.csv", "data/iris.csv"),
        ("data/IRIS.csv", "data/iris.csv"),
        ("dat/other.csv", "data"),
    ],
)
def test_the_nearest_file_is_meant(tmp_path, prefix, name, meant):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "iris.csv").write_text("a,b\n1,x\n")
    for read in (load_dataset, feature_chunks):
        with pytest.raises(FileNotFoundError) as raised:
            read(f"{prefix}{tmp_path / name}")
        assert raised.value.strerror == (
            f"No such file or directory; did you mean {tmp_path / meant}?"
        )
        assert raised.value.filename == str(tmp_path / name)


def test_files_and_folders_that_are_like_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.txt").write_text("")
    with pytest.raises(ValueError, match=r"got 'tabel\.txt'; did you mean table\.txt\?$"):
        kind_of("tabel.txt")
    with pytest.raises(ValueError, match=r"got 'qqqq'$"):
        kind_of("qqqq")
    with pytest.raises(FileNotFoundError, match="No such file or directory: "):
        load_dataset("npz:qqqq")
    (tmp_path / "photos").mkdir()
    for kind in ("idx", "images"):
        with pytest.raises(ValueError, match=r"foto is not a folder; did you mean photos\?"):
            load_dataset(f"{kind}:foto")


def test_the_sentence_is_bounded(tmp_path):
    name = "x" * 240
    (tmp_path / name).write_text("")
    for given in ("y" * 5000, f"{tmp_path}/{name}y", "ab:" + "z" * 5000):
        with pytest.raises((ValueError, OSError)) as raised:
            load_dataset(given)
        assert len(str(raised.value)) < 1200
