"""A classifier: the architecture by name, its parameters, and what belongs to its data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf.checks import check_number, check_option
from jaxclf.data import transforms
from jaxclf.data.table_plan import TablePlan
from jaxclf.models import linear

ARCHITECTURES = ("linear", "mlp", "convnet")


class Architecture(NamedTuple):
    """The plan by which a model is built, in plain values that JSON can hold."""

    name: str
    """``linear``, ``mlp`` or ``convnet``."""
    feature_shape: tuple[int, ...]
    """The shape of the features of one example."""
    num_classes: int
    hidden: tuple[int, ...] = (256,)
    """Widths of the hidden dense layers: any number for ``mlp``, one for ``convnet``."""
    dropout: float = 0.0
    """Share of hidden units dropped in training."""
    pixels: str = ""
    """The unsigned dtype of the features, such as ``uint8``; empty where they are numbers."""


class Model(NamedTuple):
    """Parameters and pure functions of one example."""

    params: Any
    logits: Callable
    """The logits for prediction, ``(params, features) -> (K,)``."""
    stochastic_logits: Callable | None
    """The logits for training, ``(params, (features, key)) -> (K,)``; ``None`` where nothing is
    random."""


class Classifier(NamedTuple):
    """A model with all that is needed to use it, as a model file holds it."""

    architecture: Architecture
    params: Any
    class_names: tuple[str | int | float | bool, ...]
    """The names of the classes, as the labels were given."""
    feature_names: tuple[str, ...] = ()
    standardiser: transforms.Standardiser | None = None
    """The standardiser that is applied to the features first; ``None`` for pixels, which are
    divided by the largest number of their dtype."""
    plan: TablePlan | None = None
    """The plan by which the columns of a table become features."""

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities ``(n, K)`` of the classes, in the order of ``class_names``.

        Args:
          X: features ``(n, ...)`` as the model was trained on; or a table of pandas, polars or
            pyarrow, or a mapping from names to columns, of which the model takes the columns that
            it knows, in whatever order. A linear model that was trained on sparse features takes
            them as they are.

        Raises:
          ValueError, TypeError: rows that the model does not take.
        """
        return self._predicted(X)

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row, ``(n,)``; X as in :meth:`predict_proba`.

        Labels that are written as whole numbers, or as True and False, are integers or booleans, as
        they were in the data.
        """
        return np.array(_as_given(self.class_names))[self._predicted(X).argmax(1)]

    def _predicted(self, X: Any) -> np.ndarray:
        from jaxclf.models.prediction import probabilities

        found, notes = probabilities(self, X)
        for note in notes:
            warnings.warn(note, UserWarning, stacklevel=3)
        return found


def _as_given(names: tuple) -> list:
    """The labels that class names stand for: files keep the names as texts."""
    texts = [str(name) for name in names]
    if set(texts) == {"False", "True"}:
        return [text == "True" for text in texts]
    try:
        numbers = [int(text) for text in texts]
    except ValueError:
        return list(names)
    return numbers if list(map(str, numbers)) == texts else list(names)


def make_model(
    architecture: Architecture, key, standardiser: transforms.Standardiser | None = None
) -> Model:
    """A model with new parameters: normal weights of σ = 0.01 (linear), He's (networks).

    Args:
      architecture: the plan of the model.
      key: a JAX random key.
      standardiser: the standardiser of the features, or ``None``.

    Raises:
      ValueError: an architecture that cannot be built.
    """
    check_option("model", architecture.name, ARCHITECTURES)
    check_number("dropout", architecture.dropout, at_least=0, at_most=1)
    if architecture.num_classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {architecture.num_classes}")
    if architecture.name != "linear" and min(architecture.hidden, default=1) < 1:
        raise ValueError(f"hidden widths must be at least 1, got {architecture.hidden}")
    if architecture.name == "linear" and architecture.dropout:
        raise ValueError("a linear model has no hidden units to drop: dropout must be 0")
    if architecture.name == "convnet" and len(architecture.hidden) != 1:
        raise ValueError(f"a convnet has one hidden dense layer, got {architecture.hidden}")

    def prepared(features):
        if standardiser is None:
            return transforms.to_float(features)
        return transforms.standardise(standardiser, features)

    if architecture.name == "linear":
        columns = math.prod(architecture.feature_shape)
        params = linear.init(key, columns, architecture.num_classes)
        flat = lambda params, x: linear.logits(params, transforms.flatten(prepared(x)))  # noqa: E731
        return Model(params, flat, None)

    params, logits, stochastic_logits = _network(architecture, key)

    def on_prepared(params, features):
        return logits(params, prepared(features))

    def on_prepared_with_key(params, features_and_key):
        features, key = features_and_key
        return stochastic_logits(params, (prepared(features), key))

    return Model(params, on_prepared, on_prepared_with_key if architecture.dropout else None)


def _network(architecture: Architecture, key):
    from flax import nnx

    from jaxclf.models.flax_module import flax_module
    from jaxclf.models.networks import MLP, ConvNet

    _, shape, num_classes, hidden, dropout, _ = architecture
    rngs = nnx.Rngs(key)
    if architecture.name == "mlp":
        columns = math.prod(shape)
        return flax_module(MLP(columns, num_classes, hidden=hidden, dropout=dropout, rngs=rngs))
    network = ConvNet(shape, num_classes, hidden=hidden[0], dropout=dropout, rngs=rngs)
    return flax_module(network)


@lru_cache(maxsize=16)
def logits_by(architecture: Architecture) -> Callable:
    """``((params, standardiser), features of one example) -> (K,)`` of an architecture.

    The function is kept, so that a model that predicts again finds its compiled programs. The
    standardiser may be ``None``, where features are standardised already or are pixels.
    """
    key = jax.random.key(0)  # the key of parameters that are thrown away
    of_prepared = make_model(architecture, key).logits

    def logits(fitted, features):
        params, standardiser = fitted
        if standardiser is not None:
            features = transforms.standardise(standardiser, features)
        return of_prepared(params, features)

    return logits
