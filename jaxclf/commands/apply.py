"""The commands that take a model or a dataset as it is: evaluate, predict, explain, show."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from jaxclf import metrics
from jaxclf.activations import softmax
from jaxclf.checks import check_option
from jaxclf.commands import evaluation
from jaxclf.commands.command_line import wrapped
from jaxclf.commands.console import check_seed, input_errors, show_measures, show_notes, show_table
from jaxclf.commands.recipe import check_one_label, dtype_of
from jaxclf.data import Dataset, TableOptions, load_dataset
from jaxclf.data.dataset import invented_names, with_dense_features
from jaxclf.data.kinds import kind_of
from jaxclf.data.sources import SPLITS
from jaxclf.data.streams import FeatureChunks, feature_chunks
from jaxclf.data.table_encoding import note_of_unread
from jaxclf.data.table_plan import plan_of_numbers
from jaxclf.data.tables import harmless
from jaxclf.files import atomic_write, choose_file
from jaxclf.messages import listed
from jaxclf.models.classifier import Classifier
from jaxclf.models.prediction import make_predict, takes_sparse


@dataclass(frozen=True)
class Source:
    """The dataset and its options."""

    dataset: str
    """Dataset, in the form that `jaxclf fit` takes."""
    label: str | None = None
    """Label column of a table: its name, its position from 1, or last; by default that of the
    model, or a good guess."""
    table: TableOptions = field(default_factory=TableOptions)
    seed: int = 0
    """Seed of the split, where the dataset has no parts of its own: the seed of the training."""
    data_dir: Path | None = None
    """Folder of TensorFlow Datasets, if not its default."""

    def load(self, split: str, classifier: Classifier | None = None) -> Dataset:
        """A part of the dataset, read as the rows were that a classifier learned from."""
        check_seed(self.seed)
        options = {"label": self.label, "table": self.table}
        options |= {"seed": self.seed, "data_dir": self.data_dir}
        options |= {"dtype": dtype_of(self.dataset)}
        if classifier is not None:
            shape = classifier.architecture.feature_shape
            options |= {"plan": classifier.plan, "image_shape": shape}
        return load_dataset(self.dataset, split=split, **options)

    def load_for(self, classifier: Classifier, split: str) -> Dataset:
        """The part of :meth:`load` as the model takes it, with all of its columns: a sparse file
        ends with the last column that some row has a number in."""
        data, wanted = self.load(split, classifier), classifier.architecture.feature_shape
        sparse = kind_of(self.dataset)[0] == "svmlight"
        if sparse and len(wanted) == 1 and data.features.shape[1] < wanted[0]:
            features = csr_array(data.features)
            features.resize((len(data.labels), *wanted))
            data = data._replace(features=features, feature_names=invented_names(*wanted))
        return data if takes_sparse(classifier) else with_dense_features(data)


@dataclass(frozen=True)
class Evaluate:
    """Accuracy, log loss, Brier score and calibration of a model on a dataset."""

    model: Path
    """A model.npz of `jaxclf fit`."""
    source: Source
    split: str = "test"
    """Part of the dataset: all, train or test."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        with input_errors():
            classifier = evaluation.load_classifier(self.model)
            data = self.source.load_for(classifier, self.split)
            check_one_label(data)
            measured = evaluation.evaluate(classifier, data)
            of_shares = metrics.measures_of_shares(data.labels, data.num_classes)
        if self.json:
            print(json.dumps(measured | {"class_shares": of_shares}))
        else:
            show_notes(data.notes)
            title = f"{self.source.dataset}, {self.split}: {measured['rows']} rows"
            show_measures(title, measured, of_shares)


@dataclass(frozen=True)
class Predict:
    """Write the class and probabilities of every row as comma-separated text.

    Tables, arrays of features in npy:FILE, npz:FILE, safetensors:FILE or pt:FILE, and images:FOLDER
    with the images in the folder itself need no labels. They are read some thousand rows at a time.
    """

    model: Path
    """A model.npz, of `jaxclf fit` for instance."""
    source: Source
    out: Path = Path("predictions.csv")
    """File to write."""
    overwrite: bool = False
    """Replace the file if it is there; else a numbered one beside it is written. It never replaces
    the model or the dataset."""
    raw_text: bool = False
    """Write names of classes as they are, also those that a spreadsheet would take for formulas."""
    split: str = "all"
    """Part of the dataset: all, train or test. A part needs labels, and is read as a whole."""

    def run(self) -> None:
        with input_errors():
            classifier = evaluation.load_classifier(self.model)
            dataset, plan = self.source.dataset, classifier.plan
            check_option("split", self.split, SPLITS)
            if plan is None and classifier.feature_names:
                plan = plan_of_numbers(classifier.feature_names)
            found = (
                feature_chunks(dataset, plan, classifier.architecture.feature_shape)
                if self.split == "all"
                else None
            )
            if found is None:
                data = self.source.load_for(classifier, self.split)
                rows = evaluation.matched_columns(classifier, data)
                found = FeatureChunks(iter([rows]), data.notes)
            order = evaluation.column_order(classifier, found.names, dataset)
            arrays = found.arrays if order is None else (x[:, order] for x in found.arrays)
            show_notes(found.notes)
            # The first rows come before the file, so that rows that do not fit leave no trace.
            predicted = filter(len, map(make_predict(classifier, dataset), arrays))
            first = next(predicted, None)
            if first is None:
                raise ValueError(f"{dataset}: expected at least one row")
            given = Path(kind_of(dataset)[1]).expanduser()
            out = choose_file(self.out, (self.model, given), overwrite=self.overwrite)
            names = [str(name) for name in classifier.class_names]
            names = names if self.raw_text else [harmless(name) for name in names]
            count = 0
            with (
                atomic_write(out) as partial,
                open(partial, "w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.writer(file)
                writer.writerow(["row", "class", *(f"p({name})" for name in names)])
                for logits in chain([first], predicted):
                    for p in np.asarray(softmax(logits)):
                        writer.writerow([count, names[p.argmax()], *(f"{x:.6g}" for x in p)])
                        count += 1
        show_notes(note_of_unread(found.unread))
        print(f"{count} rows to {out}")


@dataclass(frozen=True)
class Show:
    """Show the contents of a dataset, and its source."""

    source: Source
    split: str = "all"
    """Part of the dataset: all, train or test."""

    def run(self) -> None:
        with input_errors():
            data = self.source.load(self.split)
        show_notes(data.notes)
        _print_contents(data)
        print(f"sha256    {data.sha256}")


@dataclass(frozen=True)
class Explain:
    """Say what would be done with a table, without fitting: its columns, its labels, its rows."""

    source: Source

    def run(self) -> None:
        with input_errors():
            data = self.source.load("train")
        show_table(data)
        _print_contents(data)
        print("The other rows are kept for testing.")
        if data.num_classes < 2:
            what = "All rows have one label" if data.num_classes else "The labels have fractions"
            print(f"{what}, so there is nothing to classify: --label takes another column.")


def _print_contents(data: Dataset) -> None:
    print(f"source    {data.source}")
    print(f"features  {data.features.dtype} {data.features.shape}")
    if data.num_classes:
        several = data.labels.ndim == 2
        counts = data.labels.sum(0, dtype=np.int64) if several else np.bincount(
            data.labels, minlength=data.num_classes
        )  # fmt: skip
        # A class and its count stay in one line.
        named = [f"{n}:\xa0{count}" for n, count in zip(data.class_names, counts, strict=True)]
        text = wrapped(
            ("labels    " if several else "classes   ") + listed(named, quoted=False), indent=10
        )
        print(text.replace("\xa0", " "))
