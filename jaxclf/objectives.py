"""The objective that is minimised: the weighted mean of a per-example loss plus a penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.array_input import as_array, as_labels
from jaxclf.extended_reals import weighted_mean
from jaxclf.facts import Facts, facts_of
from jaxclf.penalties import Penalty, penalty_value
from jaxclf.sparse_rows import is_sparse, is_sparse_input, read_sparse
from jaxclf.stored_rows import StoredRows, check_in_memory


class Batch(NamedTuple):
    """Rows of data: a plain pytree. :func:`make_batch` builds one from unchecked input."""

    features: Any
    """The features, ``(n, ...)`` of any real dtype; integers are converted when the logits are
    formed. Sparse features are :class:`~jaxclf.sparse_rows.SparseRows`."""
    labels: Any
    """The labels, ``(n,)`` or ``(n, K)``, whatever the loss takes."""
    weights: Any = None
    """The weights of the rows, ``(n,)``, non-negative; ``None`` weighs all rows alike."""
    offset: Any = None
    """Numbers that are added to the logits of the rows, ``(n,)`` or ``(n, K)`` as the logits are;
    ``None`` adds nothing."""


def make_batch(
    features,
    labels,
    weights=None,
    *,
    offset=None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Batch:
    """Checks data once, where they enter, and returns them as a :class:`Batch` on the device.

    Inside jit JAX would clamp a label that is out of range, wrap -1 and spread a NaN, all silently.
    Here each of these raises an error of one sentence.

    Sparse features, a matrix or array of ``scipy.sparse`` or a ``BCOO`` or ``BCSR`` of
    ``jax.experimental.sparse``, stay sparse: the numbers other than zero are stored twice, by row
    and by column. Those at the same place are added up, as floats.

    The arguments may also be lists, arrays of NumPy or JAX, tables of pandas or polars whose
    columns are numbers, and tensors of torch, CuPy or another library with DLPack. An array on an
    accelerator stays where it is; any other is copied. float64 becomes float32 while JAX's 64-bit
    mode is off, and stays float64 under ``jax.enable_x64(True)``. Labels that are texts become the
    numbers of their classes in sorted order, in which ``numpy.unique(labels)`` gives the names;
    batches that may lack a class need ``class_names``.

    Args:
      features: ``(n, ...)`` of at least two axes, finite numbers.
      labels: ``(n,)`` or ``(n, k)``.
      weights: ``(n,)``, non-negative, not all zero.
      offset: finite numbers that are added to the logits: ``(n,)`` for models of one logit,
        ``(n, K)`` for those of K.
      num_classes: if given, labels must be integers in ``0 … K-1``, distributions ``(n, K)``, or
        for K = 2 probabilities of class 1.
      class_names: the texts of the labels in the order of their numbers.

    Raises:
      ValueError: empty, mismatched, non-finite or out-of-range data.
      TypeError: text or missing cells among numbers, or integers that need 64 bits while JAX's
        64-bit mode is off.

    Example:
      >>> from jaxclf import make_batch
      >>> make_batch([[0.5], [2.0], [1.0]], ["no", "yes", "no"]).labels.tolist()
      [0, 1, 0]
    """
    sparse = is_sparse_input(features)
    features = read_sparse("features", features) if sparse else as_array("features", features)
    labels = as_labels(labels, class_names)
    if num_classes is not None and class_names is not None and len(class_names) != num_classes:
        raise ValueError(f"num_classes is {num_classes}, but class_names has {len(class_names)}")
    if not sparse:
        checks.check_features(features)
    checks.check_labels(labels, num_rows=len(features), num_classes=num_classes)
    if weights is not None:
        weights = as_array("weights", weights)
        checks.check_weights(weights, num_rows=len(features))
    if offset is not None:
        offset = as_array("offset", offset)
        checks.check_offset(offset, num_rows=len(features))
    return jax.tree.map(_on_device, Batch(features, labels, weights, offset))


def _on_device(array: np.ndarray | jax.Array) -> jax.Array:
    """The array on the device. A device that is the host would use the caller's memory, which may
    change, so that an array of the host is copied first."""
    return array if isinstance(array, jax.Array) else jax.device_put(np.array(array))


# Objectives are compared by identity, as functions are: jit caches by it, and strengths may be
# arrays.
@dataclass(frozen=True, eq=False)
class Objective:
    """``objective(params, batch) -> ()``. Its parts stay readable, so that solvers can use them."""

    logits_fn: Callable
    loss: Callable
    penalty: Penalty | None = None

    def __call__(self, params, batch: Batch) -> jax.Array:
        value = weighted_mean(self.per_example(params, batch), batch.weights)
        if self.penalty is not None:
            value = value + penalty_value(self.penalty, params)
        return value

    @property
    def strengths(self) -> Penalty:
        """The penalty, with strengths of zero where there is none."""
        return self.penalty or Penalty()

    def per_example(self, params, batch: Batch) -> jax.Array:
        """The unweighted, unpenalised losses ``(n,)`` of the rows."""
        check_rows(batch)
        check_in_memory("an objective", batch.features)
        if is_sparse(batch.features):
            check_takes_sparse(self.logits_fn)
            logits = self.logits_fn(params, batch.features)
            return jax.vmap(self._loss_of_logits)(logits, batch.labels, batch.offset)
        rows = batch.features, batch.labels, batch.offset
        return jax.vmap(self._example_loss, (None, 0, 0, 0))(params, *rows)

    def _example_loss(self, params, features, label, offset):
        return self._loss_of_logits(self.logits_fn(params, features), label, offset)

    def _loss_of_logits(self, logits, label, offset):
        return self.loss(logits if offset is None else plus_offset(logits, offset), label)


def make_objective(
    logits_fn: Callable, loss: Callable, penalty: Penalty | None = None
) -> Objective:
    """``F(params, batch) = Σᵢ wᵢ loss(logits(params, xᵢ), yᵢ) / Σᵢ wᵢ + penalty(params)``.

    Args:
      logits_fn: ``(params, features of one example) -> logits``.
      loss: ``(logits, label) -> ()``, one of :mod:`jaxclf.losses` or your own.
      penalty: a penalty of :mod:`jaxclf.penalties`, which never touches an intercept.

    Returns:
      A pure function ``objective(params, batch) -> ()``, ready for jit, grad and vmap. It adds the
      offset of the batch, if there is one, to the logits.

    Example:
      >>> from jaxclf import losses, make_batch, make_objective
      >>> objective = make_objective(lambda w, x: w * x[0], losses.squared_error)
      >>> float(objective(2.0, make_batch([[1.0], [3.0]], [2.0, 5.0])))
      0.5
    """
    return Objective(logits_fn, loss, penalty)


def plus_offset(logits, offset) -> jax.Array:
    """The logits with an offset of the same shape, in the dtype of the logits."""
    logits = checks.at_least_float32(logits)
    checks.check_same_shape("the offset", offset, "the logits", logits)
    return logits + jnp.asarray(offset).astype(logits.dtype)


def check_takes_sparse(logits_fn: Callable) -> None:
    """Raises TypeError unless the logits are those of a linear model, which takes sparse rows."""
    from jaxclf.models.linear import is_linear  # which needs the data, and they need a batch

    if not is_linear(logits_fn):
        raise TypeError(
            "sparse features need the logits of models.linear.logits; .toarray() makes them dense"
        )


def check_rows(batch: Batch) -> None:
    """Raises ValueError unless all parts of a batch have the same n >= 1 rows."""
    held = is_sparse(batch.features) or isinstance(batch.features, StoredRows)
    if is_sparse_input(batch.features) and not held:
        kind = type(batch.features).__name__
        raise TypeError(
            f"features are a {kind}, which make_batch puts on the device; give its Batch"
        )
    # Features may be a pytree: an image beside a random key, for instance.
    shapes = [
        (name, np.shape(leaf))
        for name, field in batch._asdict().items()
        for leaf in jax.tree.leaves(field, is_leaf=is_sparse)
    ]
    rows = {shape[0] if shape else None for _, shape in shapes}
    if len(rows) != 1 or rows & {None, 0} or len(dict(shapes).get("weights", (0,))) != 1:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes[:6])
        raise ValueError(
            f"a batch needs n >= 1 rows in features, labels, weights and offset; got {given}"
        )


def with_checked_labels(batch: Batch, loss: Callable, num_logits: int | None) -> Batch:
    """The batch, or an error where the loss does not take its labels.

    A row of weight zero may have any label. If the loss does not take that label, the row gets
    another one: the loss may be no number there, and zero times that is no number either.
    """
    given = np.asarray(batch.labels)
    weights = None if batch.weights is None else np.asarray(batch.weights)
    labels = check_labels_of(facts_of(loss), given, num_logits, weights)
    if labels is given:
        return batch
    if isinstance(batch.labels, jax.Array):
        with jax.enable_x64(labels.dtype.itemsize == 8):  # they keep their dtype
            labels = jax.device_put(labels, batch.labels.sharding)
    return batch._replace(labels=labels)


def check_labels_of(
    facts: Facts, labels: np.ndarray, num_logits: int | None, weights: np.ndarray | None = None
) -> np.ndarray:
    """Raises unless a loss takes such labels.

    Args:
      facts: the facts of the loss; a loss of which nothing is known takes any finite numbers.
      labels: ``(n,)`` or ``(n, K)``.
      num_logits: K, or ``None`` where it is not known.
      weights: ``(n,)``; rows of weight zero may have any labels.

    Returns:
      The given labels, or a copy in which rows of weight zero have the first label that counts,
      where the loss may be no number, or beyond all numbers, for one that they had.
    """
    kind, several, given = facts.labels, None if num_logits == 1 else num_logits, labels
    if weights is not None and not (used := weights > 0).all():
        filled = used.reshape(-1, *[1] * (labels.ndim - 1))
        labels = np.where(filled, labels, labels[np.argmax(used)][None])
    checks.check_labels(labels, num_rows=len(labels), num_classes=None)
    if kind in ("probabilities", "distribution"):
        checks.check_shape("labels", labels, (len(labels), several))
    elif kind in ("class", "sign", "probability"):
        checks.check_shape("labels", labels, (len(labels),))
    if kind == "class":
        checks.check_integer("labels", labels)
    elif kind == "distribution":
        checks.check_distribution("labels", labels)
    most = np.iinfo(np.int64).max if several is None else several - 1
    allowed = {
        "class": (lambda y: (y >= 0) & (y <= most), f"classes 0 … {most}"),
        "sign": (lambda y: np.abs(y) == 1, "-1 or +1"),
        "probability": (lambda y: (y >= 0) & (y <= 1), "in [0, 1]"),
        "probabilities": (lambda y: (y >= 0) & (y <= 1), "in [0, 1]"),
    }
    fine, wanted = allowed.get(kind, (np.isfinite, "finite"))
    _check_all(fine(labels), labels, wanted)
    return given if kind in allowed and fine(given).all() else labels


def _check_all(fine: np.ndarray, labels: np.ndarray, wanted: str) -> None:
    if not fine.all():
        place = tuple(int(i) for i in np.argwhere(~fine)[0])
        row = place[0] if len(place) == 1 else place
        raise ValueError(f"labels of this loss must be {wanted}, got {labels[place]} in row {row}")
