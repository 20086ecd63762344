"""A program of two processes that trains until it is stopped, or for so many epochs.

python -m tests.scaling.endless PORT RANK EPOCHS CHECKPOINTS [error|slow]

With ``error`` it ends with an error after some epochs, with ``slow`` it takes long to end.
"""

import sys
import time

import jax
import numpy as np
import optax

from jaxclf import fit, losses, make_objective, penalties
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.scaling import processes
from tests.scaling import keep_programs  # noqa: F401


def main(port: str, rank: int, epochs: int, folder: str, fault: str = "") -> None:
    def tell(progress):
        print("alive", flush=True)
        time.sleep(0.05)
        if fault == "error" and progress.epoch == 3:
            raise ValueError(f"the data of process {rank}")

    processes.SILENCE = 4.0  # half of it, so that the tests wait less
    features = np.random.default_rng(rank).normal(size=(100, 4)).astype(np.float32)
    with processes.distributed(f"127.0.0.1:{port}", 2, rank):
        result = fit(
            make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-3)),
            linear.LinearParams(np.zeros(4, np.float32)),
            Batch(features, (features[:, 0] > 0).astype(np.int32)),
            optimizer=optax.sgd(0.1), batch_size=40, epochs=epochs, key=jax.random.key(1),
            devices="all", checkpoint=folder, save_seconds=0.2,
            callbacks=[tell],
        )  # fmt: skip
        print("weights", np.asarray(result.params.weights).tolist(), flush=True)
        if fault == "slow":
            time.sleep(1.5 * processes.SILENCE)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
