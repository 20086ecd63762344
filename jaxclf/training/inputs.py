"""The arguments of a training run, checked, and its rows, on devices or on the host."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.data import batches
from jaxclf.objectives import Batch, Objective, make_batch, with_checked_labels
from jaxclf.penalties import check_factors_finite
from jaxclf.scaling.sharing import all_gather, on_device, share_rows
from jaxclf.stored_rows import StoredRows
from jaxclf.training.run import EarlyStopping
from jaxclf.training.segment import TrainState


def check_arguments(objective, params, data, optimizer, key, sizes: dict) -> None:
    """Raises ValueError or TypeError for arguments of a wrong kind, or that do not fit together."""
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must come from make_objective, got {type(objective).__name__}")
    if objective.penalty is not None:
        check_factors_finite("fit", objective.penalty)
    if not isinstance(data, Batch) or not hasattr(data.features, "shape"):
        raise TypeError("data must be a Batch of arrays, such as make_batch gives")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer must be an optax transformation, got {optimizer!r}")
    if not hasattr(key, "dtype"):
        raise TypeError(f"key must be a JAX random key, such as jax.random.key(0); got {key!r}")
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {size!r}")
    if sizes["batch_size"] % sizes["accumulation_steps"]:
        raise ValueError(
            "accumulation_steps must divide batch_size, got "
            f"{sizes['accumulation_steps']} and {sizes['batch_size']}"
        )
    start = params.params if isinstance(params, TrainState) else params
    for path, leaf in jax.tree_util.tree_leaves_with_path(start):
        name = f"params{jax.tree_util.keystr(path)}"
        checks.check_no_downcast(name, leaf)
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"{name} must be floating, got dtype {jnp.result_type(leaf)}")
        checks.check_number(name, leaf)


def check_whole_rows(augment, accumulation_steps: int, stream: bool | None, mesh) -> None:
    """Raises ValueError for what would cut or change single rows of sparse features."""
    given = {
        "augment": augment is not None,
        "accumulation_steps": accumulation_steps != 1,
        "stream": bool(stream),
        "devices": mesh is not None,
    }
    for name, present in given.items():
        if present:
            raise ValueError(f"{name} needs dense features; .toarray() makes sparse ones dense")


def labels_checked(objective: Objective, params, data: Batch, augment, key) -> Batch:
    """The data, or an error where the loss does not take the labels: inside jit JAX would clamp
    class K to K - 1."""
    start = params.params if isinstance(params, TrainState) else params

    def logits(features):
        features = features if augment is None else augment(key, features)
        return objective.logits_fn(start, features)

    one = jax.ShapeDtypeStruct(data.features.shape[1:], data.features.dtype)
    shape = jax.eval_shape(logits, one).shape
    num_logits = shape[0] if len(shape) == 1 else 1 if shape == () else None
    return with_checked_labels(data, objective.loss, num_logits)


def check_early_stopping(evaluate, early_stopping: EarlyStopping | None, params) -> None:
    """Raises ValueError for a rule of early stopping that cannot be followed, before any work."""
    if early_stopping is None:
        return
    checks.check_option("early_stopping.mode", early_stopping.mode, ("min", "max"))
    checks.check_number("early_stopping.patience", early_stopping.patience, at_least=1)
    checks.check_number("early_stopping.min_delta", early_stopping.min_delta, at_least=0)
    measured = () if evaluate is None else evaluate(params)
    checks.check_option("early_stopping.monitor", early_stopping.monitor, ["loss", *measured])


def over_mean_weight(data: Batch) -> float:
    """One over the mean weight of the rows of all processes."""
    if data.weights is None:
        return 1.0
    weights = np.asarray(data.weights, np.float64)
    total, count = all_gather([weights.sum(), len(weights)]).sum(0)
    return float(count / total)


def placed(data: Batch, stream: bool | None, mesh) -> tuple[Batch, bool]:
    """The data, on the devices unless they stream, and whether they stream."""
    if mesh is not None:
        if stream:
            raise ValueError("stream=True reads rows for one device; with devices it must be off")
        data = _checked_host(data)
        checks.check_features(data.features)
        return share_rows(data, mesh), False
    if isinstance(data.features, StoredRows):  # of which the host reads the rows of each step
        checks.check_no_downcast("features", data.features.values)
        host = _checked_host(data)
        return Batch(data.features, *on_device(tuple(host[1:]))), False
    if stream is None:
        stream = batches.must_stream(data, jnp.zeros(()).device)
    if not stream:
        there = all(isinstance(x, jax.Array) for x in jax.tree.leaves(data))
        return (data if there else make_batch(*data[:3], offset=data.offset)), False
    return _checked_host(data), True


def _is_read_later(features) -> bool:
    return not isinstance(features, np.ndarray | jax.Array) and hasattr(features, "dtype")


def _checked_host(data: Batch) -> Batch:
    # Features may be read as they are needed; jaxclf.data.records has such features.
    features = data.features
    features = features if _is_read_later(features) else np.asarray(features)
    data = Batch(features, *(None if x is None else np.asarray(x) for x in data[1:]))
    checked = data._replace(features=features[:1] if _is_read_later(features) else features)
    for name, array in checked._asdict().items():
        checks.check_no_downcast(name, array)
    checks.check_labels(data.labels, num_rows=len(data.features), num_classes=None)
    if data.weights is not None:
        checks.check_weights(data.weights, num_rows=len(data.features))
    if data.offset is not None:
        checks.check_offset(data.offset, num_rows=len(data.features))
    return data
