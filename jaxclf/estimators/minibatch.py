"""Minibatch training with scikit-learn's interface: any optax optimizer, any loss, any network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import issparse
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxclf import checks, metrics, penalties
from jaxclf.estimators.base import with_defaults
from jaxclf.estimators.inputs import (
    DTYPES,
    Training,
    dense,
    filled,
    offset_of,
    padded_rows,
    training_of,
)
from jaxclf.estimators.parameters import factors_of, seed_of
from jaxclf.estimators.parts import loss_of, mlp_logits, mlp_params, module_parts, widths
from jaxclf.extended_reals import weighted_mean
from jaxclf.forks import refuse_fork
from jaxclf.models import linear
from jaxclf.objectives import Batch, make_objective
from jaxclf.sparse_rows import read_sparse
from jaxclf.training import EarlyStopping, FitResult, fit, make_evaluation, make_logits
from jaxclf.training.optimizers import optimizer_of

MODELS = ("linear", "mlp")
_HELD_OUT = "held_out_loss"


def _gives_probabilities(estimator) -> bool:
    return estimator.loss == "log_loss"


class MinibatchClassifier(ClassifierMixin, BaseEstimator):
    """A linear model, a multilayer perceptron or a Flax module, trained by minibatch steps.

    The steps are those of :func:`jaxclf.fit`: each descends the weighted mean loss of its rows plus
    ``l2/2 ‖W‖²``. ``partial_fit`` makes one pass over the rows it is given and keeps the state of
    the optimizer.

    Args:
      model: ``linear``, ``mlp``, or an ``nnx.Module`` that maps the features ``(d,)`` of one
        example to a logit per class.
      hidden: widths of the hidden layers of ``mlp``, or the width of one.
      loss: ``log_loss``, ``hinge`` (of all classes), ``squared_error`` or ``softmax_squared_error``
        with one-hot targets, or a function ``(logits (K,), label) -> ()``.
      optimizer: the name of an optimizer of optax that takes a learning rate, or a transformation.
      learning_rate: the learning rate of an optimizer that is given by name.
      l2: strength λ of the penalty, at least 0.
      penalty_factors: of the linear model, numbers that λ is multiplied by: ``{name of a feature:
        factor}``, ``(d,)`` or ``(K, d)``, at least 0.
      batch_size: rows of a step.
      epochs: the most passes over the rows.
      early_stopping: whether to hold rows out, and to stop when the loss has not improved on them
        for ``n_iter_no_change`` epochs; the best weights are kept.
      validation_fraction: the share of the rows that is held out.
      n_iter_no_change: the number of epochs without improvement after which training stops.
      class_weight: ``{label: weight}``, ``"balanced"`` (not with ``partial_fit``) or ``None``.
      random_state: the random state of the first weights, the held-out rows and the order.
      verbose: 0 prints nothing, 1 shows progress, 2 also a line per epoch.
      dtype: float32 or float64; by default that of the features.

    Attributes: ``classes_``, ``params_``, ``n_iter_`` (epochs), ``history_`` (per epoch),
    ``status_``, ``n_features_in_``, ``feature_names_in_``.
    """

    def __init__(
        self,
        model="linear",
        *,
        hidden=(100,),
        loss="log_loss",
        optimizer="adam",
        learning_rate=0.01,
        l2=0.0,
        penalty_factors=None,
        batch_size=256,
        epochs=100,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        class_weight=None,
        random_state=None,
        verbose=0,
        dtype=None,
    ):
        self.model = model
        self.hidden = hidden
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.l2 = l2
        self.penalty_factors = penalty_factors
        self.batch_size = batch_size
        self.epochs = epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose
        self.dtype = dtype

    def __setstate__(self, state: dict) -> None:
        """Unpickles; a parameter that the version which pickled it did not have is the default."""
        super().__setstate__({**with_defaults(type(self)), **state})

    def fit(self, X, y, sample_weight=None, offset=None):
        """Trains on features ``(n, d)`` and labels ``(n,)``, from new weights or the module's own.

        ``offset`` is added to the logits, ``(n, K)``; for two classes ``(n,)`` is added to the
        second logit less the first. ``predict`` and the other methods for rows take one too.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        training = training_of(self, X, y, sample_weight, takes_sparse=self._is_linear())
        training = _with_offset(training, offset)
        seed, held = seed_of(self.random_state), None
        if self.early_stopping:
            checks.check_number("n_iter_no_change", self.n_iter_no_change, at_least=1)
            training, held = _held_out(training, self.validation_fraction, seed)
        result = self._trained(training, held, self.epochs, seed, None, 0)
        return self._keep(result, training, (), 1)

    def partial_fit(self, X, y, classes=None, sample_weight=None, offset=None):
        """Makes one pass over some rows, from where the last call ended.

        Args:
          X: features ``(n, d)``.
          y: labels ``(n,)``.
          classes: all labels there will be; needed at the first call.
          sample_weight: ``(n,)``. The loss is a weighted mean over the rows of this call, so a
            weight, or a class weight, that all rows of a call share changes nothing.
          offset: as in :meth:`fit`.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        first = getattr(self, "_state", None) is None
        if first and classes is None:
            raise ValueError("the first call of partial_fit needs classes, all labels there are")
        known = np.unique(classes) if first else self.classes_
        if not first and classes is not None and not np.array_equal(known, np.unique(classes)):
            raise ValueError(f"classes were {self.classes_} at the first call, got {classes}")
        if self.class_weight == "balanced":
            raise ValueError("class_weight 'balanced' needs all rows: give {label: weight}")
        training = training_of(
            self,
            X,
            y,
            sample_weight,
            dtype=None if first else jax.tree.leaves(self.params_)[0].dtype,
            classes=known,
            reset=first,
            takes_sparse=self._is_linear(),
        )
        training = _with_offset(training, offset)
        state, calls, history = None, 0, ()
        if not first:
            state, calls, history = self._state, self._calls, self.history_
        result = self._trained(training, None, 1, seed_of(self.random_state), state, calls)
        return self._keep(result, training, history, calls + 1)

    def _trained(
        self, training: Training, held: Training | None, epochs: int, seed: int, state, calls: int
    ) -> FitResult:
        """The result of ``fit``, from new parameters or on from a state; nothing is kept yet."""
        refuse_fork()
        checks.check_number("l2", self.l2, at_least=0)
        checks.check_weights(training.weights, num_rows=len(training.weights))
        dtype = training.features.dtype
        with jax.enable_x64(dtype == np.float64):
            init_key, order_key = jax.random.split(jax.random.key(seed))
            logits, params = self._model(init_key, dtype, len(training.classes))
            loss = loss_of(self.loss)
            if self.penalty_factors is not None and not self._is_linear():
                raise ValueError("penalty_factors are for the weights of the linear model")
            factors = factors_of(self, len(training.classes))
            objective = make_objective(logits, loss, penalties.l2(float(self.l2), factors=factors))
            data = _on_device(training)
            watched = stopping = None
            if held is not None:
                watched = make_evaluation(logits, _on_device(held), _measures(loss))
                stopping = EarlyStopping(_HELD_OUT, "min", self.n_iter_no_change)
            return fit(
                objective,
                params if state is None else state,
                data,
                optimizer=optimizer_of(self.optimizer, self.learning_rate),
                batch_size=self.batch_size,
                epochs=epochs,
                key=jax.random.fold_in(order_key, calls),
                evaluate=watched,
                early_stopping=stopping,
                verbose=self.verbose,
            )

    def _keep(self, result: FitResult, training: Training, history: tuple, calls: int):
        """Sets what was fitted, all at once, so that training that fails leaves no part of it."""
        self.classes_ = training.classes
        self.params_ = jax.tree.map(np.asarray, result.params)
        # partial_fit goes on from the weights that predict: with early stopping they are not the
        # last.
        self._state = jax.tree.map(_on_host, result.state._replace(params=result.params))
        self._calls = calls
        self.history_ = (*history, *result.history)
        self.n_iter_ = len(self.history_)
        self.status_ = result.status
        if result.status == "nonfinite":
            warnings.warn(
                "the loss became infinite: try a lower learning_rate, or scale the features",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _model(self, key, dtype, num_classes: int) -> tuple[Callable, object]:
        """Logits of one example, and new parameters."""
        if isinstance(self.model, str):
            checks.check_option("model", self.model, MODELS)
        d, logits = self.n_features_in_, self._logits(num_classes)
        if self.model == "linear":
            return logits, linear.init(key, d, num_classes, dtype=dtype)
        if self.model == "mlp":
            params = mlp_params(d, num_classes, widths(self.hidden), key)
        else:
            params = module_parts(self.model)[1]
            shape = jax.eval_shape(logits, params, jax.ShapeDtypeStruct((d,), dtype)).shape
            if shape != (num_classes,):
                raise ValueError(
                    f"model must give a logit for each of {num_classes} classes, got shape {shape}"
                )
        return logits, jax.tree.map(lambda x: jnp.asarray(x, dtype), params)

    def _is_linear(self) -> bool:
        return isinstance(self.model, str) and self.model == "linear"

    def _logits(self, num_classes: int) -> Callable:
        if self.model == "linear":
            return linear.logits
        if self.model == "mlp":
            return mlp_logits(self.n_features_in_, num_classes, widths(self.hidden))
        return module_parts(self.model)[0]

    def _scores(self, X, offset=None) -> np.ndarray:
        """The logits ``(n, K)``."""
        scores = self._scores_without_offset(X)
        if offset is None:
            return scores
        return scores + _offset_per_logit(offset, *scores.shape).astype(scores.dtype)

    def _scores_without_offset(self, X) -> np.ndarray:
        refuse_fork()
        check_is_fitted(self, "params_")
        X = validate_data(self, X, accept_sparse="csr", dtype=list(DTYPES), reset=False)
        if issparse(X) and self._is_linear():
            weights, intercept = self.params_
            return X.astype(weights.dtype) @ weights.T + intercept
        X, dtype = dense(X), jax.tree.leaves(self.params_)[0].dtype
        with jax.enable_x64(dtype == np.float64):
            logits = self._logits(len(self.classes_))
            rows = filled(X.astype(dtype, copy=False), (padded_rows(len(X)), X.shape[1]))
            all_logits = make_logits(logits, like=(self.params_, rows))
            return np.asarray(all_logits(self.params_, rows))[: len(X)]

    def decision_function(self, X, offset=None) -> np.ndarray:
        """The logits ``(n, K)``; for two classes the second logit less the first, ``(n,)``."""
        scores = self._scores(X, offset)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X, offset=None) -> np.ndarray:
        """The label of each row, ``(n,)``."""
        numbers = self._scores(X, offset).argmax(1)
        return self.classes_[numbers]

    def score(self, X, y, sample_weight=None, offset=None) -> float:
        """The accuracy."""
        return accuracy_score(y, self.predict(X, offset), sample_weight=sample_weight)

    @available_if(_gives_probabilities)
    def predict_proba(self, X, offset=None) -> np.ndarray:
        """``(n, K)`` probabilities of the classes, with ``log_loss`` only."""
        return softmax(self._scores(X, offset), 1)

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X, offset=None) -> np.ndarray:
        """``(n, K)`` logarithms of the probabilities, with ``log_loss`` only."""
        return log_softmax(self._scores(X, offset), 1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _on_device(training: Training) -> Batch:
    features, targets, weights = training[:3]
    placed = read_sparse("X", features) if issparse(features) else jax.device_put(features)
    return Batch(placed, *jax.device_put((targets, weights, training.offset)))


def _with_offset(training: Training, offset) -> Training:
    """The same rows with an offset of each logit, if one is given."""
    if offset is None:
        return training
    offset = _offset_per_logit(offset, len(training.weights), len(training.classes))
    return training._replace(offset=offset.astype(training.features.dtype))


def _offset_per_logit(offset, num_rows: int, num_classes: int) -> np.ndarray:
    """The offset ``(n, K)``; one of two classes is shared out between their logits."""
    if num_classes == 2 and np.ndim(offset) == 1:
        half = offset_of(offset, num_rows, 1) / 2
        return np.stack([-half, half], 1)
    return offset_of(offset, num_rows, num_classes)


def _on_host(leaf):
    """The leaf as an array that can be pickled; a typed random key stays what it is."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else np.asarray(leaf)


def _held_out(training: Training, share: float, seed: int) -> tuple[Training, Training]:
    checks.check_number("validation_fraction", share, above=0, at_most=0.9)
    rows = np.arange(len(training.targets))
    kept, held = train_test_split(
        rows, test_size=share, stratify=training.targets, random_state=seed
    )
    offset = training.offset
    return tuple(
        Training(*(x[i] for x in training[:3]), training.classes)._replace(
            offset=None if offset is None else offset[i]
        )
        for i in (kept, held)
    )


@lru_cache(maxsize=64)
def _measures(loss: Callable) -> dict[str, Callable]:
    """The measures on held-out rows after each epoch, by name."""

    def mean_loss(logits, labels, weights):
        return weighted_mean(jax.vmap(loss)(logits, labels), weights)

    return {_HELD_OUT: mean_loss, "accuracy": metrics.accuracy}
