"""What the tests of meshes run in processes of their own: it prints one JSON line of results.

python -m tests.scaling.worker devices            1 and all of this process's devices, and 2 × 3
python -m tests.scaling.worker PORT RANK FOLDER   two processes, each with its own rows
"""

import gc
import json
import sys

import jax
import numpy as np
import optax

from jaxclf import fit, load_dataset, losses, make_objective, minimize, penalties, sweep
from jaxclf.data import transforms
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.scaling import chunks, make_mesh
from tests.scaling import keep_programs  # noqa: F401

SOLVERS = ("newton_cg", "newton_cholesky", "lbfgs", "proximal_newton")


def rows(dtype) -> Batch:
    """173 rows with weights, a class after another: no number of devices divides them."""
    data = load_dataset("wine", dtype=dtype)
    features = transforms.standardise(transforms.fit_standardiser(data.features), data.features)
    weights = np.random.default_rng(0).uniform(0.5, 2, 173).astype(dtype)
    order = np.sort(np.random.default_rng(1).permutation(len(data.labels))[:173])
    return Batch(np.asarray(features)[order], data.labels[order], weights)


def objective(penalty):
    return make_objective(linear.logits, losses.categorical_nll, penalty)


def numbers(tree) -> list:
    return [np.asarray(leaf, np.float64).ravel().tolist() for leaf in jax.tree.leaves(tree)]


def solved(batch: Batch, devices, dtype) -> dict:
    """The value of each solver, and its status."""
    start = linear.LinearParams(np.zeros((3, 13), dtype), np.zeros(3, dtype))
    tol, found = (1e-13 if dtype == np.float64 else 1e-8), {}
    for solver in SOLVERS:
        penalty = penalties.l1(1e-2) if solver == "proximal_newton" else penalties.l2(1e-2)
        one = minimize(
            objective(penalty), start, batch, solver=solver, tol=tol, devices=devices
        )  # fmt: skip
        found[solver] = [one.value, one.status, one.gap_bound, numbers(one.params.weights)]
    chunks._CHUNK_BYTES = 4000
    one = minimize(
        objective(penalties.l2(1e-2)), start, batch, tol=tol, devices=devices, stream=True
    )
    found["in chunks"] = [one.value, one.status, one.gap_bound, numbers(one.params.weights)]
    if dtype == np.float64:
        # A bound without a penalty, and a curvature that is not written down.
        bits = (np.sin(1e3 * batch.features[:, 2]) > 0).astype(dtype)
        start = linear.LinearParams(np.zeros(13, dtype), np.zeros((), dtype))
        unpenalised = make_objective(linear.logits, losses.bernoulli_nll)
        for name, stream in (("no penalty", False), ("no penalty, in chunks", True)):
            options = {"solver": "newton_cg", "stream": stream, "devices": devices, "tol": tol}
            one = minimize(unpenalised, start, batch._replace(labels=bits), **options)
            found[name] = [one.value, one.status, one.gap_bound, numbers(one.params.weights)]
    return found


def swept(batch: Batch, devices, dtype) -> dict:
    """Of convex and of minibatch lanes: objectives, and what judged and tested them."""
    tol = 1e-13 if dtype == np.float64 else 1e-8
    grids = {
        "convex": ({"l2": [1e-2, 1e-1], "fold": [0, 1]}, {"tol": tol}),
        "minibatch": (
            {"learning_rate": [0.01, 0.1, 0.3], "batch_size": [24]},
            {"epochs": 2, "validation": 0.2},
        ),
    }
    found = {}
    for method, (grid, options) in grids.items():
        one = sweep(grid, batch, method=method, devices=devices, test=batch, **options)
        judged = [row["log_loss"] for row in one.table] + list(one.selection.test.values())
        found[method] = {"objective": [row["objective"] for row in one.table], "judged": judged}
    return found


def trained(batch: Batch, devices, dtype, **options):
    """The parameters after some epochs, and the losses."""
    start = linear.LinearParams(np.full((3, 13), 0.01, dtype), np.zeros(3, dtype))
    result = fit(
        objective(penalties.l2(1e-3)), start, batch, optimizer=optax.sgd(0.1, momentum=0.9),
        batch_size=24, key=jax.random.key(1), devices=devices, **{"epochs": 3} | options,
    )  # fmt: skip
    return [numbers(result.params), [record["loss"] for record in result.history]]


def everything(part: slice, devices, dtypes=(np.float32, np.float64)) -> dict:
    found = {}
    for dtype in dtypes:
        with jax.enable_x64(dtype == np.float64):
            batch = Batch(*(x[part] for x in rows(dtype)[:3]))
            found[np.dtype(dtype).name] = {
                "solved": solved(batch, devices, dtype),
                "trained": trained(batch, devices, dtype),
                "swept": swept(batch, devices, dtype),
            }
    return found


def main(arguments: list[str]) -> None:
    gc.freeze()  # as the tests do, so that tracing is faster
    gc.set_threshold(50_000, 20, 20)
    if arguments == ["devices"]:
        whole = slice(None)
        # Each mesh, and the two processes, in one dtype: both in all would take twice the time.
        found = {
            "None": everything(whole, None),
            "all": everything(whole, "all", [np.float64]),
            "model": everything(whole, make_mesh(6, model=3), [np.float32]),
        }
        print(json.dumps(found))
        return
    port, rank, folder = arguments
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}", 2, int(rank), heartbeat_timeout_seconds=10,
        initialization_timeout=60, shutdown_timeout_seconds=10,
    )  # fmt: skip
    # In numbers that differ: 40 rows of one class, and 133.
    part = slice(0, 40) if rank == "0" else slice(40, None)
    found = everything(part, "all", [np.float32])
    batch = Batch(*(x[part] for x in rows(np.float32)[:3]))
    resumed = [
        trained(batch, "all", np.float32, checkpoint=folder, epochs=epochs) for epochs in (1, 3)
    ]
    print(json.dumps({"processes": found, "resumed": resumed[1]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
