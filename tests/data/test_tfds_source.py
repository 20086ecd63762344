"""Prepared TFDS folders without TensorFlow, made from IDX files."""

import socket

import numpy as np
import pytest

from jaxclf import load_dataset
from jaxclf.commands.cli import main
from jaxclf.data import tfds_source
from tests.data.test_files import write_folder, write_idx


@pytest.fixture
def folder(tmp_path):
    """Four IDX files of 28×28 images, which is what the MNIST family holds."""
    write_folder(tmp_path / "idx")
    rng = np.random.default_rng(1)
    for part, rows in (("train", 20), ("t10k", 6)):
        images = rng.integers(0, 256, (rows, 28, 28)).astype(np.uint8)
        write_idx(tmp_path / "idx" / f"{part}-images-idx3-ubyte.gz", images)
        labels = (np.arange(rows) % 10).astype(np.uint8)
        write_idx(tmp_path / "idx" / f"{part}-labels-idx1-ubyte.gz", labels)
    return tmp_path / "idx"


def test_prepare_then_load_gives_the_rows_back(folder, tmp_path, capfd, caplog, monkeypatch):
    arguments = ["datasets", "prepare", "tfds:fashion_mnist", "--data-dir", str(tmp_path / "tfds")]
    main([*arguments, "--from", str(folder)])
    # TFDS prints lines, bars and warnings of its own, which say nothing that is needed.
    shown = capfd.readouterr()
    assert shown.out.startswith("26 rows in")
    assert shown.out.count("\n") == 1
    assert shown.err == ""
    assert caplog.records == []
    original = load_dataset(f"idx:{folder}", split="train")
    options = {"split": "train", "data_dir": tmp_path / "tfds"}
    loaded = load_dataset("tfds:fashion_mnist", **options)
    assert loaded.class_names[:2] == ("T-shirt/top", "Trouser")
    assert loaded.features.dtype == np.uint8

    # TFDS shuffles what it writes: the same rows in another order.
    def rows(data):
        return {
            (image.tobytes(), int(y)) for image, y in zip(data.features, data.labels, strict=True)
        }

    assert rows(loaded) == rows(original)

    # The second time the arrays come from beside the records, and a damaged copy is made anew.
    cache = next((tmp_path / "tfds").rglob("jaxclf-arrays-*.npz"))
    with monkeypatch.context() as patch:
        patch.setattr(tfds_source, "_decode", None)
        assert load_dataset("tfds:fashion_mnist", **options).sha256 == loaded.sha256
    cache.write_bytes(cache.read_bytes()[:100])
    assert load_dataset("tfds:fashion_mnist", **options).sha256 == loaded.sha256


def test_what_is_not_prepared_says_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match=r"not prepared.*--from FOLDER.*or .* to download"):
        load_dataset("tfds:mnist", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"not prepared.*copy a prepared folder there"):
        load_dataset("tfds:cifar10", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"dataset to prepare must be one of mnist, .*'cifar10'"):
        tfds_source.prepare_tfds("cifar10", None, tmp_path)


def test_no_network_is_one_line_at_once(tmp_path, monkeypatch):
    def refuse(address, timeout):
        assert timeout <= 5
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ConnectionError, match=r"cannot be reached .*--from FOLDER"):
        tfds_source.prepare_tfds("mnist", None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_is_an_error_that_names_another_way(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.util import DownloadError

    def fail(manager, urls):
        raise DownloadError("the host has no such file")

    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: socket.socket())
    monkeypatch.setattr(tfds.download.DownloadManager, "download", fail)
    with pytest.raises(ConnectionError, match=r"no such file: get the four IDX files .*--from"):
        tfds_source.prepare_tfds("mnist", None, tmp_path)


def test_the_newest_version_is_found(tmp_path):
    for version in ("3.0.1", "3.10.0", "2.9.9"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    assert tfds_source.find_prepared("mnist", tmp_path).name == "3.10.0"
    assert tfds_source.find_prepared("emnist", tmp_path) is None
