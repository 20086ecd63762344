"""TensorFlow Datasets without TensorFlow: prepared folders, and preparing the MNIST family.

TFDS keeps a dataset as ``DATA_DIR/NAME/VERSION``. Its records hold compressed images, which decode
at a few thousand a second, so the arrays are kept beside them after the first reading.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import socket
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import numpy as np

from jaxclf.checks import check_option
from jaxclf.data.idx import read_idx, read_idx_folder
from jaxclf.files import atomic_write
from jaxclf.progress import progress_bar

MNIST_FAMILY = ("mnist", "fashion_mnist", "kmnist")
"""The datasets that :func:`prepare_tfds` can prepare: they are published as four IDX files."""

_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_SECONDS_TO_CONNECT = 3.0


def default_data_dir() -> Path:
    """TFDS's own folder: ``$TFDS_DATA_DIR``, or ``~/tensorflow_datasets``."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find_prepared(name: str, data_dir: Path) -> Path | None:
    """The newest prepared version of ``name`` (``mnist``, ``emnist/letters``) or ``None``."""
    versions = [file.parent for file in (data_dir / name).glob("*/dataset_info.json")]
    numbers = {v: tuple(int(n) for n in v.name.split(".") if n.isdecimal()) for v in versions}
    return max(versions, key=numbers.__getitem__, default=None)


def read_tfds(name: str, data_dir: Path | str | None = None):
    """Features and labels of every part of a prepared dataset, its class names, and its folder.

    Args:
      name: the name of the dataset, as TFDS has it.
      data_dir: TFDS's folder; :func:`default_data_dir` if not given.

    Returns:
      ``{part: (features (n, ...), labels (n,))}``, the class names, and the folder it came from.

    Raises:
      ValueError: not prepared, or not a table of inputs of one shape with class labels.
    """
    data_dir = Path(data_dir).expanduser() if data_dir else default_data_dir()
    folder = find_prepared(name, data_dir)
    if folder is None:
        raise ValueError(_how_to_get(name, data_dir))
    fingerprint = hashlib.sha256(
        b"".join((folder / f).read_bytes() for f in ("dataset_info.json", "features.json"))
    ).hexdigest()
    cache = folder / f"jaxclf-arrays-{fingerprint[:16]}.npz"
    arrays = _read_cache(cache)
    if arrays is None:
        arrays = _decode(folder)
        _write_cache(cache, arrays)
    names = tuple(str(n) for n in arrays.pop("class_names"))
    splits = sorted({key.rpartition("/")[0] for key in arrays})
    parts = {s: (arrays[f"{s}/features"], arrays[f"{s}/labels"]) for s in splits}
    return parts, names, folder


def _how_to_get(name: str, data_dir: Path) -> str:
    wanted = f"tfds:{name} is not prepared in {data_dir}: "
    if name in MNIST_FAMILY:
        return (
            f"{wanted}run `jaxclf datasets prepare tfds:{name} --from FOLDER` with its four IDX "
            f"files, or `jaxclf datasets prepare tfds:{name}` to download them"
        )
    return (
        f"{wanted}copy a prepared folder there (or name its parent with TFDS_DATA_DIR), or run "
        f"`tfds build {name} --file_format=array_record` where TensorFlow is installed"
    )


def _read_cache(cache: Path) -> dict[str, np.ndarray] | None:
    try:
        with open(cache, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        return None
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError):
        return None  # damaged: decoded again


def _write_cache(cache: Path, arrays: dict[str, np.ndarray]) -> None:
    # The folder may belong to others, or the disk may be full: the next load then decodes again.
    with suppress(OSError), atomic_write(cache) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


@contextmanager
def _quietly() -> Iterator[None]:
    """Lets TensorFlow Datasets say nothing of its own; its errors are raised as ever."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import tensorflow_datasets as tfds
            from tensorflow_datasets.core.utils import tqdm_utils

            shown = getattr(tqdm_utils, "_active", True)
            tfds.disable_progress_bar()
            try:
                yield
            finally:
                if shown:
                    tfds.enable_progress_bar()
    finally:
        log.setLevel(level)


def _decode(folder: Path) -> dict[str, np.ndarray]:
    with progress_bar() as bar, _quietly():
        return _decoded(folder, bar)


def _decoded(folder: Path, bar: Any) -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    keys = builder.info.supervised_keys
    label = builder.info.features[keys[1]] if keys and len(keys) == 2 else None
    if not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(f"{folder}: not a dataset of inputs with one class label each")
    arrays = {"class_names": np.array(label.names)}
    for split, source in builder.as_data_source().items():
        step = f"decoding the {split} part"
        rows = [source[i] for i in bar.track(range(len(source)), description=step)]
        shapes = {np.shape(row[keys[0]]) for row in rows}
        if len(shapes) != 1:
            raise ValueError(
                f"{folder}: inputs of {len(shapes)} different shapes, such as "
                f"{' and '.join(map(str, sorted(shapes)[:2]))}; resize them to one shape first"
            )
        features = np.stack([row[keys[0]] for row in rows])
        if features.ndim == 4 and features.shape[-1] == 1:
            features = features[..., 0]  # grey images are (n, height, width), as in IDX files
        arrays[f"{split}/features"] = features
        arrays[f"{split}/labels"] = np.array([row[keys[1]] for row in rows], np.int32)
    return arrays


def prepare_tfds(name: str, folder: Path | str | None, data_dir: Path | str | None = None) -> Path:
    """Prepares a dataset of the MNIST family as TFDS would, without TensorFlow.

    Args:
      name: one of :data:`MNIST_FAMILY`.
      folder: a folder with its IDX files, or ``None`` to download them where TFDS would, checksums
        included.
      data_dir: TFDS's folder.

    Returns:
      The prepared folder; one that is there already is left as it is.

    Raises:
      ValueError: a dataset of any other name, or files that cannot be used.
      ConnectionError: no folder given, and the files' host cannot be reached, or gives others.
      OSError: the prepared folder cannot be written.
    """
    check_option("dataset to prepare", name, MNIST_FAMILY)
    data_dir = Path(data_dir).expanduser() if data_dir else default_data_dir()
    prepared = find_prepared(name, data_dir)
    if prepared is not None:
        return prepared
    parts = None if folder is None else read_idx_folder(folder)

    with progress_bar() as bar, _quietly():
        return _prepared(name, parts, data_dir, bar)


def _prepared(name: str, parts: dict | None, data_dir: Path, bar: Any) -> Path:
    import tensorflow_datasets as tfds
    from PIL import Image
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    stock = tfds.builder_cls(name)
    if parts is None:
        _check_reachable(name, stock.URL)
    task = bar.add_task("", total=None)

    # TFDS calls these two methods; the stock ones read through TensorFlow.
    def _split_generators(self, downloads):
        given = parts
        if given is None:
            bar.update(task, description=f"downloading the files of {name}")
            urls = {part: [urljoin(self.URL, f) for f in pair] for part, pair in _FILES.items()}
            files = downloads.download(urls)
            given = {part: tuple(read_idx(f) for f in pair) for part, pair in files.items()}
        bar.update(task, total=sum(len(labels) for _, labels in given.values()))
        return {part: self._generate_examples(*pair, part) for part, pair in given.items()}

    def _generate_examples(self, images, labels, part):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            bar.update(task, advance=1, description=f"writing the {part} part")
            yield i, {"image": Image.fromarray(image), "label": int(label)}

    with registered.skip_registration():
        methods = {"_split_generators": _split_generators, "_generate_examples": _generate_examples}
        builder_class = type(stock.__name__, (stock,), {"name": name, **methods})
    builder = builder_class(data_dir=str(data_dir), file_format="array_record")
    try:
        builder.download_and_prepare()
    except (DownloadError, NonMatchingChecksumError) as error:
        raise ConnectionError(f"{error}: {_another_way(name)}") from None
    except RuntimeError as error:  # the writer of records says so of a full disk
        raise OSError(f"{name} cannot be written: {error}") from None
    return Path(builder.data_path)


def _another_way(name: str) -> str:
    return (
        f"get the four IDX files of {name} another way and run `jaxclf datasets prepare "
        f"tfds:{name} --from FOLDER`"
    )


def _check_reachable(name: str, url: str) -> None:
    # TFDS's downloader retries for minutes; a host that does not answer is known in seconds.
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname, port), timeout=_SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise ConnectionError(
            f"{address.hostname} cannot be reached ({error}): {_another_way(name)}"
        ) from None
