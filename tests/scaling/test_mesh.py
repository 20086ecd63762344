"""The same result on one device, on several, and in two processes."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
import pytest

from jaxclf import Batch, fit, losses, make_batch, make_objective, minimize
from jaxclf.models import linear
from jaxclf.scaling import make_mesh, mesh, sharing

CLOSE = {"float32": 1e-6, "float64": 1e-8}


def worker(devices: int, *arguments):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.scaling.worker", *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def all_said(started) -> list[dict]:
    """The results of processes, each read by a thread of its own: none waits for a full pipe."""
    with ThreadPoolExecutor(len(started)) as readers:
        texts = list(readers.map(partial(subprocess.Popen.communicate, timeout=500), started))
    for process, (_, err) in zip(started, texts, strict=True):
        assert process.returncode == 0, err[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in texts]


def start_two(folder) -> list:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [worker(2, port, rank, folder) for rank in (0, 1)]


def check_alike(found: dict, reference: dict) -> None:
    for dtype in found:
        close = CLOSE[dtype]
        for solver in found[dtype]["solved"]:
            value, status, bound, weights = found[dtype]["solved"][solver]
            expected = reference[dtype]["solved"][solver]
            # The bound of some is above what was asked, which is next to nothing.
            assert {status, expected[1]} <= {
                "converged", "precision_floor", "stationary", "stalled"
            }, solver  # fmt: skip
            assert value == pytest.approx(expected[0], rel=close), solver
            # The objective is strongly convex but for L1, so that the weights agree as well.
            if solver != "proximal_newton":
                assert bound < {"float32": 1e-6, "float64": 1e-8}[dtype], (solver, bound)
                np.testing.assert_allclose(weights, expected[3], atol=30 * close**0.5)
        ours, theirs = found[dtype], reference[dtype]
        same(ours["trained"], theirs["trained"], close)
        same(ours["swept"]["minibatch"], theirs["swept"]["minibatch"], close)
        convex, expected = ours["swept"]["convex"], theirs["swept"]["convex"]
        same(convex["objective"], expected["objective"], close)
        # Not the minimum of these: their error is of the order of that of the parameters.
        same(convex["judged"], expected["judged"], close**0.5)


def same(ours, theirs, close: float) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=close, atol=close), ours, theirs)


def test_devices_and_processes_give_the_same(tmp_path):
    """One test for all, as what it compiles takes minutes; two processes wait much for each other,
    so that they run beside the one."""
    started = [worker(8, "devices"), *start_two(tmp_path)]
    found, first, second = all_said(started)
    for devices in ("all", "model"):
        check_alike(found[devices], found["None"])
    assert first == second
    check_alike(first["processes"], found["None"])
    # From their checkpoint they go on to the same bits.
    assert first["resumed"] == first["processes"]["float32"]["trained"]


def problem():
    features = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    return (
        make_objective(linear.logits, losses.bernoulli_nll),
        linear.LinearParams(np.zeros(2, np.float32)),
        make_batch(features, np.arange(9) % 2),
    )


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("some", "devices must be 'all', a number, devices or a mesh; got 'some'"),
        (0, r"devices must be 1 … \d+, which are here; got 0"),
        (1000, r"devices must be 1 … \d+, which are here; got 1000"),
        ([], "a mesh needs at least one device"),
        (
            jax.make_mesh((1, 1), ("rows", "x"), axis_types=(jax.sharding.AxisType.Auto,) * 2),
            "must have the axis 'rows' and may have 'model'",
        ),
        (
            jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)),
            "must have the axis 'rows'",
        ),
    ],
)
def test_devices_that_are_not_there_are_refused(devices, message):
    with pytest.raises(ValueError, match=message):
        minimize(*problem(), devices=devices)


def test_what_does_not_go_with_devices_is_refused():
    import optax

    objective, params, batch = problem()
    with pytest.raises(ValueError, match="stream=True reads rows for one device"):
        fit(
            objective, params, batch, optimizer=optax.sgd(0.1), batch_size=4, epochs=1,
            key=jax.random.key(0), devices="all", stream=True,
        )  # fmt: skip
    with pytest.raises(TypeError, match="needs an objective of make_objective"):
        minimize(lambda params, batch: 0.0, params, batch, devices="all")


def test_model_must_divide():
    with pytest.raises(ValueError, match="model=2 must divide the number of devices, which is 1"):
        make_mesh(1, model=2)


def test_a_mesh_is_in_use_inside_only():
    assert not mesh.in_use()
    with mesh.using(make_mesh("all")):
        assert mesh.in_use()
    assert not mesh.in_use()


def test_rows_that_fill_up_weigh_nothing():
    one = make_mesh(1)
    shared = sharing.share_rows(Batch(np.ones((5, 2), np.uint8), np.arange(5)), one)
    assert shared.features.dtype == np.uint8
    assert np.asarray(shared.weights).tolist() == [1] * 5
    assert sharing.row_places(5, one).tolist() == list(range(5))


def test_rows_that_fill_up_have_a_label_that_the_loss_takes(monkeypatch):
    monkeypatch.setattr(sharing, "_own_size", lambda count, mesh: count + 2)
    batch = Batch(np.ones((3, 1), np.float32), np.array([-1.0, 1, 1]), None)
    shared = sharing.share_rows(batch, make_mesh(1))
    np.testing.assert_array_equal(shared.labels, [-1, 1, 1, -1, -1])
    np.testing.assert_array_equal(shared.weights, [1, 1, 1, 0, 0])
