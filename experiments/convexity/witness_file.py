"""The witness of an experiment as files, which `experiments.verify_witness` replays without JAX."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments import verify_witness
from experiments.convexity.results import Results
from jaxclf.files import write_json


def write_witness(results: Results, folder: Path) -> Path:
    """Writes witness_NAME.json and, beside it, the rows that it speaks of."""
    name, problem = results.problem.dataset.name, results.problem
    features = np.asarray(problem.batch.features, np.float64)
    labels = np.asarray(problem.batch.labels, np.int64)
    loss = "sigmoid_squared_error" if problem.num_outputs is None else "softmax_squared_error"
    weights, direction = (
        np.asarray(x, np.float64) for x in (results.witness.weights, results.witness.direction)
    )
    jensen = results.jensen
    np.savez_compressed(folder / f"witness_{name}.npz", features=features, labels=labels)
    content = {
        "format": verify_witness.FORMAT,
        "version": verify_witness.VERSION,
        "loss": loss,
        "rows": {
            "file": f"witness_{name}.npz",
            "sha256": verify_witness.digest_of_rows(features, labels),
            "source": problem.dataset.source,
        },
        "weights": weights.tolist(),
        "direction": direction.tolist(),
        "distance": jensen.distance,
        "curvature": results.witness.curvature,
        "excess": jensen.at_middle - (jensen.at_start + jensen.at_end) / 2,
    }
    path = folder / f"witness_{name}.json"
    write_json(path, content | {"sha256": verify_witness.digest(content)})
    return path
