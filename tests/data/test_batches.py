import jax
import numpy as np
import pytest

from jaxclf import Batch
from jaxclf.data import batches


def rows_visited(data, plan, order, segments, first=0):
    visited = []
    for segment in segments(data, plan, order, first):
        for rows, count in zip(segment.rows, segment.counts, strict=True):
            visited.extend(np.asarray(segment.data.labels)[rows[:count]].tolist())
    return visited


@pytest.mark.parametrize(
    ("num_rows", "batch_size"), [(1, 1), (10, 3), (1000, 7), (64 * 5, 5), (5, 9)]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_epoch_visits_every_row_once_in_order(num_rows, batch_size, streamed):
    data = Batch(np.ones((num_rows, 2), np.float32), np.arange(num_rows))
    plan = batches.make_plan(data, batch_size)
    order = batches.epoch_order(jax.random.key(0), 3, num_rows)
    segments = batches.streamed_segments if streamed else batches.resident_segments
    assert rows_visited(data, plan, order, segments) == order.tolist()
    assert sorted(order) == list(range(num_rows))
    # Taken up in the middle.
    skipped = (plan.segments - 1) * plan.steps * batch_size
    last = rows_visited(data, plan, order, segments, plan.segments - 1)
    assert last == order[skipped:].tolist()


def test_the_order_depends_on_key_and_epoch_only():
    order = batches.epoch_order(jax.random.key(0), 1, 50)
    np.testing.assert_array_equal(order, batches.epoch_order(jax.random.key(0), 1, 50))
    assert not np.array_equal(order, batches.epoch_order(jax.random.key(0), 2, 50))
    assert not np.array_equal(order, batches.epoch_order(jax.random.key(1), 1, 50))


def test_streamed_segments_are_bounded_in_bytes():
    data = Batch(np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (10**6, 10**5), (0, 0)),
                 np.zeros(10**6))  # fmt: skip
    plan = batches.make_plan(data, 128)
    assert plan.steps * 128 * 10**5 <= 64 * 2**20
    assert plan.steps * plan.segments * 128 >= 10**6


def test_a_row_that_is_not_finite_is_named_when_it_is_read():
    features = np.zeros((20, 2), np.float32)
    features[13, 1] = np.nan
    data = Batch(features, np.zeros(20))
    plan = batches.make_plan(data, 4)
    with pytest.raises(ValueError, match="features must be finite, row 13 is not"):
        list(batches.streamed_segments(data, plan, np.arange(20, dtype=np.int32)))


def test_data_on_the_device_never_stream(monkeypatch):
    device = jax.devices()[0]
    monkeypatch.setattr(batches, "free_memory", lambda device: 100)
    host = Batch(np.zeros((10, 10), np.float32), np.zeros(10, np.float32))
    assert batches.must_stream(host, device)
    assert not batches.must_stream(jax.tree.map(jax.numpy.asarray, host), device)
    monkeypatch.setattr(batches, "free_memory", lambda device: 1000)
    assert not batches.must_stream(host, device)
