"""Files that are whole or not there, and folders that a failed run leaves as they were."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a path to write to; when the block ends, that file takes the place of ``path``.

    If the block raises, what was at ``path`` is as it was, and nothing else is left.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content) -> None:
    """Writes ``content`` as strict JSON: NaN and infinities are refused.

    Raises:
      ValueError: if a number is not finite.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yields an empty folder whose files land in ``path`` when the block ends without an error.

    If the block raises or is interrupted, ``path`` is as it was. Otherwise the files move in one by
    one, each whole: they replace files of the same name, and all other files stay.

    Raises:
      OSError: at once, before any work, if ``path`` cannot be a folder that is written to; and
        before the first file moves, if a folder stands where a file is to go.
    """
    path = Path(path).resolve()
    created = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=path))
    except OSError:
        _remove_empty(created)
        raise
    try:
        yield stage
        files = [file for file in sorted(stage.rglob("*")) if file.is_file()]
        targets = [path / file.relative_to(stage) for file in files]
        for target in targets:
            if target.is_dir():
                raise IsADirectoryError(f"{target} is a folder where a file is to go")
            target.parent.mkdir(parents=True, exist_ok=True)
        for file, target in zip(files, targets, strict=True):
            os.replace(file, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        _remove_empty(created)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
