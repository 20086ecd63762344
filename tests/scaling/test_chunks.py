"""Sums over rows in chunks and in blocks are sums over rows, whatever their sizes."""

import gc
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.linear_algebra.problem import Rows
from jaxclf.scaling import chunks, row_sums
from jaxclf.scaling.chunks import chunked, sum_chunks


def rows(n=103, d=7, dtype=np.uint8) -> Rows:
    rng = np.random.default_rng(0)
    features = rng.integers(0, 200, (n, d)).astype(dtype)
    return Rows(features, rng.integers(0, 3, n), rng.uniform(size=n))


@jax.jit
def weighted(rows: Rows, scale):
    x = rows.features.astype(jnp.float32)
    sums = {"sum": scale * rows.weights @ x, "count": jnp.sum(rows.weights > 0)}
    return sums, jnp.sum(x, 1) + rows.labels


@pytest.mark.parametrize("size", [1, 10, 50, 51, 52, 102, 103, 1000])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_chunks_add_up(size, dtype, monkeypatch):
    given = rows(dtype=dtype)
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", size * sum(x[0].nbytes for x in given))
    source = chunked(given)
    assert source.size == min(size, 103)
    for _ in range(2):  # the memory of the chunks is used again
        sums, each = sum_chunks(weighted, source, 2.0)
        np.testing.assert_allclose(
            sums["sum"], 2 * given.weights @ given.features.astype(float), rtol=1e-5
        )
        assert int(sums["count"]) == 103
        np.testing.assert_allclose(each, given.features.sum(1, dtype=float) + given.labels)


def test_memory_maps_and_arrays_on_the_device_are_chunks_too(tmp_path, monkeypatch):
    given = rows(dtype=np.float16)
    np.save(tmp_path / "features.npy", given.features)
    mapped = given._replace(features=np.load(tmp_path / "features.npy", mmap_mode="r"))
    on_device = jax.tree.map(jnp.asarray, given)
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 1000)
    expected = sum_chunks(weighted, chunked(given), 1.0)
    for other in (mapped, on_device):
        found = sum_chunks(weighted, chunked(other), 1.0)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, expected)
    assert chunked(mapped).count == 4
    assert chunked(on_device).count == 1


def test_what_a_chunk_raises_ends_the_reading(monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 300)

    def broken(rows):
        raise RuntimeError("no")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no"):
        sum_chunks(broken, chunked(rows()))
    gc.collect()
    assert threading.active_count() == before


def test_a_file_that_was_replaced_is_not_read_for_the_one_that_is_mapped(tmp_path):
    path, given = tmp_path / "features.npy", rows()
    np.save(path, given.features)
    mapped = given._replace(features=np.load(path, mmap_mode="r"))
    np.save(tmp_path / "other.npy", given.features * 0)
    (tmp_path / "other.npy").replace(path)
    found, _ = sum_chunks(weighted, chunked(mapped), 1.0)
    np.testing.assert_allclose(found["sum"], given.weights @ given.features, rtol=1e-5)


def test_a_part_of_a_map_is_read_from_where_it_lies(tmp_path):
    given, part = rows(), slice(13, 90)
    np.save(tmp_path / "features.npy", given.features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    cut = Rows(mapped[part], given.labels[part], given.weights[part])
    found, _ = sum_chunks(weighted, chunked(cut), 1.0)
    np.testing.assert_allclose(found["sum"], cut.weights @ given.features[part], rtol=1e-5)


def test_labels_count_for_the_size_of_a_chunk():
    wide = rows()._replace(labels=np.zeros((103, 10**6), np.float32))
    assert chunked(wide).size == chunks._CHUNK_BYTES // (4 * 10**6 + 7 + 8)


@pytest.mark.parametrize("block", [1, 7, 36, 10**6])
@pytest.mark.parametrize("held", [1, 50])
def test_blocks_map_and_add_up(block, held, monkeypatch):
    monkeypatch.setattr(row_sums, "_BLOCK_NUMBERS", block)
    monkeypatch.setattr(row_sums, "_FEWEST_ROWS", 3)
    x, _, w = rows()

    def function(x, w):
        return w @ x, x[:, 0] * 2

    total, mapped = row_sums.sum_and_map_rows(function, jnp.asarray(x, float), w, held=held)
    np.testing.assert_allclose(total, w @ x, rtol=1e-5)
    np.testing.assert_allclose(mapped, 2.0 * x[:, 0])


def test_blocks_of_what_is_wide_have_few_rows():
    def size(d, held):
        return row_sums._blocks(np.broadcast_to(np.uint8(0), (10**5, d)), held)[2]

    assert size(1024, 1) == 1024
    assert size(1024, 10**5) == row_sums._FEWEST_ROWS
    assert size(10**6, 1) == 1
