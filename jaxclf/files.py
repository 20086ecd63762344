"""Files that are whole or not there, and folders in which nothing of the user's is lost."""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jaxclf.unfinished import locked, name_of, sweep

_MANIFEST = ".jaxclf.json"
"""The file by which a folder of results is known, with the SHA-256 of all files in it."""
_ROOM = 4 * 2**20
"""The bytes that must be free for results; a report with figures takes one to three million."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a path to write to; when the block ends, that file takes the place of ``path``.

    If the block raises, what was at ``path`` is as it was, and nothing else is left. A link is
    followed, and a file that is replaced keeps its mode. What a killed process has left of an
    earlier try is removed.

    Raises:
      OSError: the file cannot be written, or something else than a file is there.
    """
    asked = Path(path)
    path = _target(asked)
    sweep(path.parent, path.name)
    partial = path.with_name(name_of(path.name))
    try:
        yield partial
        if path.exists():
            partial.chmod(stat.S_IMODE(path.stat().st_mode))
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:  # a message names the file that was asked for
        if error.filename is None or error.filename == str(partial):
            error.filename, error.filename2 = str(asked), None
        raise
    finally:
        partial.unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """The file that a path names, at the end of links.

    Raises:
      OSError: something else than a file is there, a device for instance.
    """
    try:
        target = path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError):
        raise OSError(errno.ELOOP, "its links lead round", str(path)) from None
    if target.exists() and not target.is_file() and not target.is_dir():
        raise OSError(errno.EINVAL, "it is no file that can be replaced", str(path))
    return target


def write_json(path: Path, content) -> None:
    """Writes ``content`` as strict JSON: NaN and infinities are refused.

    Raises:
      ValueError: if a number is not finite.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Sequence]) -> None:
    """Writes rows of comma-separated text, of which the first one has the names of the columns."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def choose_folder(path: Path | str, run: dict | None = None, *, overwrite: bool = False) -> Path:
    """The folder that the results of a run go to: ``path``, or ``path-2``, ``path-3``, ….

    That is the first one that is new or empty, or that has results of jaxclf alone: of the same
    run, which then goes on; of any run with ``overwrite``, or where no run is given. Files that
    start with a dot do not count. So no file of the user's is ever replaced.

    Args:
      path: the folder that is asked for.
      run: what tells this run from others, in the values of JSON.
      overwrite: whether results of another run may be replaced.

    Raises:
      OSError: ``path`` cannot be a folder that is written to.
    """
    wanted = _named(path)
    numbered = (wanted.with_name(f"{wanted.name}-{i}") for i in itertools.count(2))
    for folder in itertools.chain([wanted], numbered):
        manifest = _manifest_of(folder)
        if manifest is None and not _is_new(folder):
            continue
        if manifest is None or run is None or overwrite or manifest["run"] in (run, None):
            break
    if folder != wanted:
        print(f"{wanted} has other files, so the results go to {folder}", file=sys.stderr)
    return folder


@contextmanager
def claimed_folder(
    path: Path | str, run: dict, *, overwrite: bool = False, writes: bool = True
) -> Iterator[Path]:
    """The folder of :func:`choose_folder`, which is made, and belongs to the run from now on.

    If the block raises before results land there, no folder is left, and a folder of another run
    stays its own. One process at a time is in such a block.

    Args:
      path: the folder that is asked for.
      run: what tells this run from others, in the values of JSON.
      overwrite: whether results of another run may be replaced.
      writes: whether this process writes there; of several that run as one program the first does.

    Raises:
      OSError: ``path`` cannot be a folder that is written to, or another process is writing there.
    """
    folder = choose_folder(path, run, overwrite=overwrite)
    if not writes:
        yield folder
        return
    created = [p for p in (folder, *folder.parents) if not p.exists()]
    earlier = _manifest_of(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            _write_manifest(folder, {"run": run, "files": earlier["files"] if earlier else {}})
            yield folder
    except BaseException:
        landed = _manifest_of(folder)
        if earlier and landed and landed["files"] == earlier["files"]:  # nothing was replaced
            _write_manifest(folder, earlier)
        raise
    finally:
        if created and [entry.name for entry in folder.iterdir()] == [_MANIFEST]:
            (folder / _MANIFEST).unlink()
            _remove_empty(created)


def _named(path: Path | str) -> Path:
    """A path that ends in a name, to which a number can be added.

    Raises:
      OSError: the root of the file system.
    """
    path = Path(path).expanduser()
    path = path.resolve() if path.name in ("", "..") else path
    if not path.name:
        raise OSError(errno.EINVAL, "results need a folder of their own in it", str(path))
    return path


def _is_new(folder: Path) -> bool:
    """Whether there is no such folder, or nothing in it that shows."""
    if not os.path.lexists(folder):
        return True
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file where a folder is to go")
    return all(entry.name.startswith(".") for entry in folder.iterdir())


def _manifest_of(folder: Path) -> dict | None:
    """The run that a folder's results belong to, and the SHA-256 of each of its files."""
    try:
        found = json.loads((folder / _MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != {"run", "files"}:
        return None
    return found if isinstance(found["files"], dict) else None


def _write_manifest(folder: Path, content: dict) -> None:
    with atomic_write(folder / _MANIFEST) as partial:
        write_json(partial, content)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose_file(path: Path | str, inputs: Sequence[Path], *, overwrite: bool = False) -> Path:
    """The file that a result goes to: ``path``, or ``NAME-2.ext``, … where there is a file already.

    Args:
      path: the file that is asked for.
      inputs: the files that the result is made of, which it never replaces.
      overwrite: whether a file that is there may be replaced.

    Raises:
      ValueError: ``path`` is one of the inputs, or a file in one that is a folder.
      OSError: a path where no file can be.
    """
    wanted = _named(path)
    for given in inputs:
        same = wanted.exists() and given.exists() and wanted.samefile(given)
        if same or (given.is_dir() and wanted.resolve().is_relative_to(given.resolve())):
            raise ValueError(f"{wanted} is what the result is made of: give another --out")
    if wanted.is_dir():
        raise IsADirectoryError(f"{wanted} is a folder where a file is to go")
    if not wanted.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {wanted.parent} for {wanted.name}")
    numbered = (wanted.with_name(f"{wanted.stem}-{i}{wanted.suffix}") for i in itertools.count(2))
    if overwrite or not os.path.lexists(wanted):
        return wanted
    found = next(file for file in numbered if not os.path.lexists(file))
    print(f"{wanted} is there already, so the result goes to {found}", file=sys.stderr)
    return found


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yields an empty folder whose files land in ``path`` when the block ends without an error.

    If the block raises or is interrupted, ``path`` is as it was. Otherwise the files move in one by
    one, each whole. They replace what an earlier run wrote, and nothing else: a file of the same
    name that jaxclf did not write, or that was changed since, gets a number.

    Raises:
      OSError: at once, before any work, if ``path`` cannot be a folder that is written to, or has
        hardly any room, or another process is writing there; and before the first file moves, if a
        folder stands where a file is to go.
    """
    path = Path(path).resolve()
    created = [p for p in (path, *path.parents) if not p.exists()]
    lock = ExitStack()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.enter_context(locked(path))
        if (free := shutil.disk_usage(path).free) < _ROOM:
            raise OSError(errno.ENOSPC, f"only {free / 2**20:.1f} MiB are free there", str(path))
        stage = Path(tempfile.mkdtemp(name_of("results"), ".unfinished-", path))
    except OSError:
        lock.close()
        _remove_empty(created)
        raise
    try:
        yield stage
        manifest = _manifest_of(path) or {"run": None, "files": {}}
        files = [file for file in sorted(stage.rglob("*")) if file.is_file()]
        names = [str(file.relative_to(stage)) for file in files]
        for name in names:
            if (path / name).is_dir():
                raise IsADirectoryError(f"{path / name} is a folder where a file is to go")
            (path / name).parent.mkdir(parents=True, exist_ok=True)
        # The manifest names the files before they move, so that a killed run's files are known.
        written = {name: _sha256(file) for name, file in zip(names, files, strict=True)}
        for name in names:
            set_aside(path / name, manifest["files"].get(name))
        _write_manifest(path, manifest | {"files": manifest["files"] | written})
        for name, file in zip(names, files, strict=True):
            os.replace(file, path / name)
    except OSError as error:  # a message names the file that was to be written
        name = Path(str(error.filename or stage))
        if error.errno is not None and name.is_relative_to(stage):
            error.filename = str(path / name.relative_to(stage))
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        lock.close()
        _remove_empty(created)


def set_aside(path: Path, sha256: str | None = None) -> None:
    """Gives a file another name, ``NAME-1.ext`` and so on, unless it has the given SHA-256."""
    if not os.path.lexists(path) or (path.is_file() and _sha256(path) == sha256):
        return
    other = next(
        other
        for i in itertools.count(1)
        if not os.path.lexists(other := path.with_name(f"{path.stem}-{i}{path.suffix}"))
    )
    os.rename(path, other)
    print(f"{path.name} was there already, and is called {other.name} now", file=sys.stderr)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
