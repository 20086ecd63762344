"""Makes a trained classifier from the name of a dataset, for `jaxclf fit`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from scipy.sparse import issparse

from jaxclf import checks, losses, penalties
from jaxclf.commands.console import check_seed
from jaxclf.commands.device_options import check_same
from jaxclf.commands.offset_column import (
    offset_of_both,
    offset_place,
    plan_with_offset,
    split_offset,
    with_offset_weight,
)
from jaxclf.data import (
    Dataset,
    TableOptions,
    class_weights,
    load_dataset,
    split_dataset,
    transforms,
)
from jaxclf.data.dataset import with_dense_features
from jaxclf.data.kinds import kind_of
from jaxclf.data.table_plan import TablePlan, indicators
from jaxclf.data.tables import TABLES
from jaxclf.models import linear
from jaxclf.models.classifier import Architecture, Classifier, Model, make_model
from jaxclf.objectives import Batch, make_batch, make_objective
from jaxclf.scaling import make_mesh
from jaxclf.training import EarlyStopping, FitResult, fit, make_evaluation

_EPOCHS, _STEPS = 10, 2000
"""The epochs, and the steps of a small dataset, that are taken by default."""
PLATEAU = 0.005
"""The loss has reached a plateau if it falls by fewer nats in the last fifth of the epochs."""
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")


@dataclass(frozen=True)
class Recipe:
    """The data, the model and its training."""

    dataset: str
    """A file or a folder: a table, arrays, images; or digits, iris, wine, breast_cancer, tfds:NAME.
    `jaxclf datasets list` tells all kinds."""
    model: Literal["linear", "mlp", "convnet"] = "linear"
    """linear is softmax regression."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers of mlp, and of the dense layer of convnet."""
    dropout: float = 0.0
    """Share of hidden units dropped in training."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "sgd"
    """momentum is SGD with momentum 0.9."""
    learning_rate: float = 0.1
    """Learning rate of the first step."""
    schedule: Literal["constant", "cosine"] = "constant"
    """cosine falls to zero at the last step."""
    l2: float = 0.0
    """Ridge penalty: l2 / 2 times the sum of squared weights (adamw decays by l2 instead)."""
    batch_size: int | None = None
    """Rows of a step; by default 256, or a sixteenth of the rows if that is less, but at least
    16."""
    epochs: int | None = None
    """Passes over the rows; by default 10, or as many as 2000 steps take if that is more."""
    validation: float = 0.0
    """Share of the training rows held out and measured after each epoch."""
    patience: int = 0
    """Stop after so many epochs without a lower log loss on the held-out rows; 0 never stops."""
    balanced: bool = False
    """Give every class the same total weight."""
    seed: int = 0
    """Seed of the weights, the order of rows, and the splits."""
    label: str | None = None
    """Label column of a table: its name, its position from 1, or last; by default a good guess."""
    offset: str | None = None
    """Column of a table whose numbers are added to the logit of the second of two classes."""
    table: TableOptions = field(default_factory=TableOptions)
    data_dir: Path | None = None
    """Folder of TensorFlow Datasets, if not its default."""


def as_json(recipe: Recipe) -> dict:
    """The recipe as a dictionary that JSON gives back unchanged; paths are text."""
    return json.loads(json.dumps(asdict(recipe), default=str))


class Trained(NamedTuple):
    """The result of a recipe."""

    classifier: Classifier
    result: FitResult
    train: Dataset
    """The rows that the classifier was trained on."""


def load(recipe: Recipe, split: str, plan: TablePlan | None = None) -> Dataset:
    """A part of the recipe's dataset, by the plan of its training part; it must have classes, or
    several labels a row. Sparse features stay so for a linear model of one process."""
    options = {"label": recipe.label, "table": recipe.table, "plan": plan}
    options |= {"data_dir": recipe.data_dir, "seed": recipe.seed}
    options |= {"dtype": dtype_of(recipe.dataset)}
    dataset = load_dataset(recipe.dataset, split=split, **options)
    if recipe.offset is not None and plan is None:
        options["plan"] = plan_with_offset(dataset, recipe.offset)
        dataset = load_dataset(recipe.dataset, split=split, **options)
    if not dataset.num_classes:
        raise ValueError(f"{recipe.dataset} has no classes: its labels are not whole numbers")
    if recipe.model != "linear" or jax.process_count() > 1:
        dataset = with_dense_features(dataset)
    if not issparse(dataset.features):
        checks.check_features(dataset.features)
    if jax.process_count() > 1:
        check_same(f"the {split} rows", dataset.sha256)
    return dataset


def dtype_of(source: str) -> Any:
    """The dtype in which the features of a source are read: float64 for a table, whose columns are
    standardised before they are narrowed, and for others their own."""
    return np.float64 if kind_of(source)[0] in TABLES else None


def check_one_label(dataset: Dataset) -> None:
    """Raises ValueError where rows may have several labels."""
    if dataset.labels.ndim == 2:
        raise ValueError(
            f"{dataset.name} has several labels a row, {dataset.labels.shape}, which "
            "`jaxclf probe` and jaxclf.OneVsRestLogisticRegression take"
        )


def batch_size_of(recipe: Recipe, num_rows: int) -> int:
    """The rows of a step where there are so many rows to train on."""
    return recipe.batch_size or min(256, max(16, num_rows // 16))


def fit_scaling(dataset: Dataset, offset: str | None) -> transforms.Standardiser | None:
    """The scaling of a dataset's features: ``None`` for pixels, else a standardiser.

    Features of a table that are 0 or 1 are centred and keep their unit: divided by its small
    deviation, a rare category would be hardly penalised. The column of the offset stays as it is.
    """
    scaling = transforms.fit_scaling(dataset.features)
    if scaling is None or dataset.plan is None:
        return scaling
    mean, scale = np.array(scaling.mean), np.where(indicators(dataset.plan), 1, scaling.scale)
    if (place := offset_place(dataset, offset)) is not None:
        mean[place], scale[place] = 0, 1
    return scaling._replace(mean=mean, scale=scale)


def pixels_of(dataset: Dataset, scaling: transforms.Standardiser | None) -> str:
    """The dtype of features that are pixels, which have no standardiser; empty for others."""
    return str(dataset.features.dtype) if scaling is None else ""


def prepare(recipe: Recipe, devices: Any = None) -> Callable[..., Trained]:
    """Checks a recipe and loads its data; the function it returns does the training.

    Args:
      recipe: the recipe.
      devices: devices as :func:`jaxclf.fit` takes them. With them each of several processes trains
        on its own part of the rows.

    Returns:
      ``(checkpoint=None, callbacks=(), verbose=0, save_seconds=30) -> Trained``.

    Raises:
      ValueError: a recipe that cannot be followed, before any training.
    """
    _check(recipe)
    mesh = None if devices is None else make_mesh(devices)
    dataset = load(recipe, "train")
    if mesh is not None:
        dataset = with_dense_features(dataset)
    check_one_label(dataset)
    held_out = None
    if recipe.validation:
        dataset, held_out = split_dataset(dataset, recipe.validation, seed=recipe.seed)
    standardiser, place = fit_scaling(dataset, recipe.offset), offset_place(dataset, recipe.offset)
    architecture = Architecture(
        recipe.model,
        dataset.features.shape[1:],
        dataset.num_classes,
        recipe.hidden if recipe.model != "linear" else (),
        recipe.dropout,
        pixels_of(dataset, standardiser),
    )
    init_key, fit_key = jax.random.split(jax.random.key(recipe.seed))
    classifier = Classifier(
        architecture, None, dataset.class_names, dataset.feature_names, standardiser, dataset.plan
    )
    sparse, learned = issparse(dataset.features), architecture
    in_advance = sparse or transforms.standardises_wide(standardiser, dataset.features)
    if place is not None:
        learned = architecture._replace(feature_shape=(architecture.feature_shape[0] - 1,))
    model = make_model(learned, init_key, None if in_advance else standardiser)
    if sparse:  # rows of them are no examples, which the function above takes
        model = model._replace(logits=linear.logits)

    def prepared(part: Dataset) -> Dataset:
        if not in_advance:
            return part
        features = transforms.standardise(standardiser, part.features)
        return part._replace(features=features if sparse else np.asarray(features))

    rows = prepared(dataset)
    batch_size = batch_size_of(recipe, len(dataset.labels))
    steps = math.ceil(len(dataset.labels) / batch_size)  # of an epoch
    epochs = recipe.epochs or max(_EPOCHS, math.ceil(_STEPS / steps))
    optimizer = _optimizer(recipe, epochs * steps)
    weights = class_weights(dataset.labels, dataset.num_classes) if recipe.balanced else None
    batch = _batch(rows, weights, place) if mesh is None else _own_batch(rows, weights, place)
    evaluate = None
    if held_out is not None:
        evaluate = make_evaluation(model.logits, _batch(prepared(held_out), None, place))

    def train(
        checkpoint: Path | None = None,
        callbacks: Sequence[Callable] = (),
        verbose: int = 0,
        save_seconds: float = 30.0,
    ) -> Trained:
        result = fit(
            _objective(recipe, model),
            model.params,
            batch,
            optimizer=optimizer,
            batch_size=batch_size,
            epochs=epochs,
            key=fit_key,
            augment=transforms.with_key if model.stochastic_logits else None,
            evaluate=evaluate,
            early_stopping=EarlyStopping(patience=recipe.patience) if recipe.patience else None,
            devices=mesh,
            checkpoint=checkpoint,
            save_seconds=save_seconds,
            callbacks=callbacks,
            verbose=verbose,
        )
        params = result.params if place is None else with_offset_weight(result.params, place)
        return Trained(classifier._replace(params=params), result, dataset)

    return train


def _check(recipe: Recipe) -> None:
    checks.check_option("optimizer", recipe.optimizer, OPTIMIZERS)
    if recipe.offset is not None and recipe.model != "linear":
        raise ValueError(f"an offset needs the model linear, got {recipe.model}")
    checks.check_option("schedule", recipe.schedule, ("constant", "cosine"))
    largest = float(np.finfo(np.float32).max)
    checks.check_number("learning_rate", recipe.learning_rate, above=0, at_most=largest)
    checks.check_number("l2", recipe.l2, at_least=0)
    checks.check_number("validation", recipe.validation, at_least=0, at_most=0.9)
    for name in ("batch_size", "epochs"):
        if (given := getattr(recipe, name)) is not None:
            checks.check_number(name, given, at_least=1)
    checks.check_number("patience", recipe.patience, at_least=0)
    check_seed(recipe.seed)
    if recipe.optimizer == "adamw" and not recipe.l2:
        raise ValueError("adamw is adam with decay: give an l2 above 0, or use adam")
    if recipe.patience and not recipe.validation:
        raise ValueError("patience needs rows to judge by: give validation, 0.1 for instance")


def _batch(dataset: Dataset, weights, place: int | None) -> Batch:
    features, offset = split_offset(dataset.features, place)
    options = {"offset": offset_of_both(offset), "num_classes": dataset.num_classes}
    return make_batch(features, dataset.labels, weights, **options)


def own_slice(num_rows: int) -> slice:
    """The slice of the rows of this process, so that the rest of a memory map is not read.

    The slices of all processes have the same length, or differ by one row.
    """
    ends = np.linspace(0, num_rows, jax.process_count() + 1).astype(int)
    return slice(*(int(end) for end in ends[jax.process_index() :][:2]))


def _own_batch(dataset: Dataset, weights, place: int | None) -> Batch:
    own = own_slice(len(dataset.labels))
    features, offset = split_offset(dataset.features, place)
    columns = features, dataset.labels, weights, offset_of_both(offset)
    return Batch(*(None if x is None else np.asarray(x[own]) for x in columns))


def _objective(recipe: Recipe, model: Model):
    penalty = penalties.l2(recipe.l2) if recipe.l2 and recipe.optimizer != "adamw" else None
    return make_objective(model.stochastic_logits or model.logits, losses.categorical_nll, penalty)


def fall_at_the_end(history: Sequence[dict]) -> float:
    """The nats by which the loss of the training rows fell in the last fifth of the epochs."""
    losses = [record["loss"] for record in history]
    return losses[-1 - len(losses) // 5] - losses[-1] if len(losses) >= 5 else 0.0


def _optimizer(recipe: Recipe, num_steps: int):
    import optax

    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, num_steps)
    return {
        "sgd": lambda: optax.sgd(rate),
        "momentum": lambda: optax.sgd(rate, momentum=0.9),
        "adam": lambda: optax.adam(rate),
        "adamw": lambda: optax.adamw(rate, weight_decay=recipe.l2, mask=penalties.penalised),
    }[recipe.optimizer]()
