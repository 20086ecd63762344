"""A mapped file that is cut or written to while it is read is named; one that is replaced stays."""

import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from jaxclf import Batch, fit, losses, make_objective
from jaxclf.data import transforms
from jaxclf.data.dataset import digest
from jaxclf.data.streams import feature_chunks
from jaxclf.mapped_files import check_unchanged
from jaxclf.models import linear
from jaxclf.scaling import chunks


@pytest.fixture
def path(tmp_path):
    features = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", features)
    return tmp_path / "x.npy"


def cut(path):
    os.truncate(path, 5000)


def test_a_file_that_is_cut_or_written_to_is_named(path):
    mapped = np.load(path, mmap_mode="r")
    for array in (mapped, mapped[5:], np.asarray(mapped), mapped.T, np.zeros(3), "text"):
        check_unchanged(array)
    time = path.stat().st_mtime_ns
    os.utime(path, ns=(time, time + 1000))
    with pytest.raises(OSError, match="was written to while it was read") as error:
        check_unchanged(mapped[5:])
    assert error.value.filename == str(path)
    cut(path)
    with pytest.raises(OSError, match="was cut to 5000 bytes while it was read"):
        check_unchanged(np.asarray(mapped)[:3])


@pytest.mark.parametrize("change", [os.unlink, lambda p: os.replace(p.parent / "other", p)])
def test_a_file_that_is_replaced_or_deleted_is_read_to_its_end(path, change):
    (path.parent / "other").write_bytes(b"other")
    mapped = np.load(path, mmap_mode="r")
    check_unchanged(mapped)
    before = mapped.sum()
    change(path)
    check_unchanged(mapped)
    assert mapped.sum() == before


def test_a_file_that_this_process_writes_to_may_change(path):
    mapped = np.load(path, mmap_mode="r+")
    check_unchanged(mapped)
    mapped[:] = 1
    mapped.flush()
    os.utime(path)
    check_unchanged(mapped)


def test_passes_over_rows_look_first(path, monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 2**14)
    mapped = np.load(path, mmap_mode="r")
    rows = Batch(mapped, np.zeros(len(mapped), np.int32), np.ones(len(mapped)))
    source, seen = chunks.chunked(rows), []

    def count(rows):
        seen.append(len(rows.labels))
        if len(seen) == 2:
            cut(path)
        return rows.labels.sum(), rows.labels

    with pytest.raises(OSError, match=r"was cut to 5000 bytes|ends before row"):
        chunks.sum_chunks(count, source)
    for function in (transforms.fit_standardiser, digest):
        with pytest.raises(OSError, match="was cut to 5000 bytes"):
            function(mapped)


def test_predictions_look_before_each_part(path):
    read = feature_chunks(f"npy:{path}").arrays
    next(read)
    cut(path)
    with pytest.raises(OSError, match="was cut to 5000 bytes"):
        next(read)


def test_training_ends_with_the_name_of_the_file(path):
    mapped = np.load(path, mmap_mode="r")
    told = []

    def tell(progress):
        told.append(progress)
        cut(path)

    with pytest.raises(OSError, match="was cut to 5000 bytes") as error:
        fit(
            make_objective(linear.logits, losses.bernoulli_nll),
            linear.LinearParams(np.zeros(4, np.float32)),
            Batch(mapped, np.zeros(len(mapped), np.int32)),
            optimizer=optax.sgd(0.1), batch_size=10, epochs=10, key=jax.random.key(0),
            stream=True, callbacks=[tell],
        )  # fmt: skip
    assert told
    assert error.value.filename == str(path)


def test_a_crash_of_a_command_has_words(tmp_path):
    code = (
        "import ctypes; from jaxclf.commands import cli; cli._run = lambda _: ctypes.string_at(0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}; cli.main([])"], capture_output=True, text=True
    )
    assert ended.returncode < 0
    assert "Segmentation fault" in ended.stderr
