"""What the test of sparse rows on a mesh runs with eight devices: it prints one JSON line.

Each case is solved with dense features on one device, and with the same features sparse on one, on
eight, on 2 × 3 with the classes shared out, and from files in chunks.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import scipy.sparse as sp

from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.data import store_rows
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.scaling import chunks, make_mesh
from tests.scaling import keep_programs  # noqa: F401

ROWS, COLUMNS = 173, 13
RIDGE, LASSO = penalties.l2(0.01), penalties.l1(0.01)
ALL, STREAM = {"devices": "all"}, {"stream": True}


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, in a number of rows that no number of devices divides, with labels and weights.

    A column is far from zero, one is empty, and one has large numbers; a row is empty.
    """
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 3, ROWS))
    x = rng.poisson(rng.lognormal(-1, 1, (3, COLUMNS))[labels]).astype(float)
    x[7], x[:, 3] = 0, 0
    x[:, 4] *= 2.0**14
    x[:, 5] += 20
    return x, labels, rng.uniform(0.5, 2, ROWS)


def start(*shape: int) -> linear.LinearParams:
    return linear.LinearParams(np.zeros((*shape, COLUMNS)), np.zeros(shape))


def main(folder: Path) -> None:
    x, labels, weights = rows()
    single, noise = np.minimum(labels, 1), (np.sin(1e3 * x.sum(1)) > 0).astype(int)
    mesh = {"devices": make_mesh(6, model=3)}
    both = STREAM | ALL
    cases = {
        "softmax": (RIDGE, 3, labels, "newton_cg", [ALL, mesh], [STREAM, both, ALL]),
        "softmax by L-BFGS": (RIDGE, 3, labels, "lbfgs", [ALL], []),
        "softmax with L1": (LASSO, 3, labels, "auto", [ALL], []),
        "one logit": (RIDGE, 1, single, "newton_cg", [ALL, STREAM], [STREAM]),
        "one logit without a penalty": (None, 1, noise, "newton_cg", [ALL], [STREAM]),
    }
    chunks._CHUNK_BYTES = 4000
    found = {}
    for name, (penalty, num_logits, y, solver, held, stored) in cases.items():
        if penalty is None:  # an empty column would leave no bound
            x[:, 3] = x[::-1, 2]
        loss = losses.categorical_nll if num_logits > 1 else losses.bernoulli_nll
        objective = make_objective(linear.logits, loss, penalty)
        params = start(num_logits) if num_logits > 1 else start()
        dense, sparse = (make_batch(kind(x), y, weights) for kind in (np.asarray, sp.csr_array))
        parts = np.array_split(np.arange(ROWS), 4)
        files = store_rows(folder / name, ((sp.csr_array(x[at]), y[at]) for at in parts))
        files = Batch(files.features, y, weights)
        where = [(dense, {}), (sparse, {}), *((sparse, one) for one in held)]
        found[name] = {}
        for batch, options in [*where, *((files, one) for one in stored)]:
            result = minimize(objective, params, batch, solver=solver, tol=1e-7, **options)
            kind = {id(dense): "dense", id(sparse): "sparse"}.get(id(batch), "files")
            place = f"{kind} {sorted(options)} {options.get('devices') == 'all'}"
            found[name][place] = [result.value, result.status, result.gap_bound, result.solver]
    print(json.dumps(found))


if __name__ == "__main__":
    assert jax.device_count() == 8
    with jax.enable_x64(True):
        main(Path(sys.argv[1]))
