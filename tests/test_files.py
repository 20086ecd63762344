"""Files that are whole or not there, and folders in which nothing of the user's is lost."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jaxclf.files import _MANIFEST as MANIFEST
from jaxclf.files import (
    atomic_folder,
    atomic_write,
    choose_file,
    choose_folder,
    claimed_folder,
    write_json,
)


def shown(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def write(folder, text="new", names=("result.txt",)):
    with atomic_folder(folder) as stage:
        for name in names:
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).write_text(text)


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "a" / "b"
    with atomic_folder(out) as stage:
        (stage / "new.txt").write_text("new")
        assert not (out / "new.txt").exists()
    assert shown(out) == ["new.txt"]


def test_after_an_error_nothing_is_left(tmp_path):
    out = tmp_path / "a" / "b"
    with pytest.raises(KeyboardInterrupt), atomic_folder(out) as stage:
        (stage / "half.txt").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_earlier_results_survive_an_error_and_are_replaced_by_success(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    write(tmp_path, "old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path) as stage:
        (stage / "result.txt").write_text("half")
        raise RuntimeError
    assert (tmp_path / "result.txt").read_text() == "old"
    write(tmp_path, "new")
    assert shown(tmp_path) == ["kept.txt", "result.txt"]
    assert (tmp_path / "result.txt").read_text() == "new"


@pytest.mark.parametrize("named", [True, False])
def test_an_error_in_writing_names_the_place_of_the_result(named, tmp_path):
    with pytest.raises(OSError, match="full") as error, atomic_folder(tmp_path / "out") as stage:
        raise OSError(errno.ENOSPC, "full", *([str(stage / "a.png")] if named else []))
    assert error.value.filename == str(tmp_path / "out" / ("a.png" if named else ""))


def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below"):
        with pytest.raises(OSError, match="file"), atomic_folder(path):
            raise AssertionError("the block must not run")
    assert file.read_text() == ""


def test_nothing_moves_if_something_is_in_the_way(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError, match="b is a folder"), atomic_folder(tmp_path) as stage:
        for name in "abc":
            (stage / name).write_text("new")
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"λ": 0.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"λ": 0.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()


NAMES = ("result.txt", "model.npz", "figures/path.png")


def users(folder, *names):
    """Files of the user's, whose contents are their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my {name}")


def edited(folder, *names):
    write(folder, "result of earlier", NAMES)
    users(folder, *names)


def link_to_a_file(folder):
    users(folder.parent, "elsewhere/result.txt")
    folder.mkdir()
    (folder / "result.txt").symlink_to(folder.parent / "elsewhere" / "result.txt")


def link_to_a_folder(folder):
    users(folder.parent, "elsewhere/result.txt")
    folder.symlink_to(folder.parent / "elsewhere")


LAYOUTS = {
    "nothing": lambda folder: None,
    "an empty folder": lambda folder: folder.mkdir(),
    "notes": lambda folder: users(folder, "notes.txt"),
    "the same names": lambda folder: users(folder, *NAMES),
    "a folder of years": lambda folder: users(folder, "2019/a.txt", "2020/result.txt"),
    "a hidden file": lambda folder: users(folder, ".hidden"),
    "results": edited,
    "results, one changed": lambda folder: edited(folder, "result.txt"),
    "results, all changed": lambda folder: edited(folder, *NAMES),
    "results and notes": lambda folder: edited(folder, "notes.txt", "figures/mine.png"),
    "a link to a file": link_to_a_file,
    "a link to a folder": link_to_a_folder,
}
RUN, OTHER = {"command": "probe", "seed": 0}, {"command": "probe", "seed": 1}


def whole(folder):
    write(folder, names=NAMES)


def claimed(folder):
    with claimed_folder(folder, RUN) as out:
        write(out, names=NAMES)


def another(folder):
    for run in (OTHER, RUN):
        with claimed_folder(folder, run) as out:
            write(out, names=NAMES)


def overwriting(folder):
    for run in (OTHER, RUN):
        with claimed_folder(folder, run, overwrite=True) as out:
            write(out, names=NAMES)


def contents(folder):
    found = (Path(where, name) for where, _, names in os.walk(folder) for name in names)
    return [path.read_text() for path in found]


@pytest.mark.parametrize("ways", [whole, claimed, another, overwriting])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_of_the_users_is_lost(tmp_path, layout, ways):
    folder = tmp_path / "out"
    LAYOUTS[layout](folder)
    before = sorted(text for text in contents(tmp_path) if text.startswith("my "))
    ways(folder)
    ways(folder)
    after = sorted(text for text in contents(tmp_path) if text.startswith("my "))
    assert after == before
    assert contents(tmp_path).count("new") >= len(NAMES)


def test_a_run_gets_its_folder_again_and_another_one_a_number(tmp_path, capsys):
    out = tmp_path / "out"
    with claimed_folder(out, RUN) as first:
        assert first == out
        write(first)
    with claimed_folder(out, RUN) as again:
        assert again == out
    with claimed_folder(out, OTHER) as second:
        assert second == tmp_path / "out-2"
        write(second)
    assert f"{out} has other files, so the results go to {second}" in capsys.readouterr().err
    with claimed_folder(out, OTHER) as second_again:
        assert second_again == second
        write(second_again)
    assert shown(tmp_path) == ["out", "out-2"]
    assert choose_folder(out) == out
    users(tmp_path, "mine/notes.txt")
    assert choose_folder(tmp_path / "mine") == tmp_path / "mine-2"
    assert not (tmp_path / "mine-2").exists()
    with pytest.raises(NotADirectoryError, match=r"notes\.txt is a file where"):
        choose_folder(tmp_path / "mine" / "notes.txt")


def test_a_claim_without_results_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no"), claimed_folder(tmp_path / "a" / "b", RUN):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_a_folder_to_its_own_run(tmp_path):
    out = tmp_path / "out"
    with claimed_folder(out, RUN):
        write(out)
    with pytest.raises(ValueError, match="no"), claimed_folder(out, OTHER, overwrite=True):
        raise ValueError("no")
    with claimed_folder(out, RUN) as again:
        assert again == out
    with pytest.raises(ValueError, match="late"), claimed_folder(out, OTHER, overwrite=True):
        write(out, "replaced")
        raise ValueError("late")
    with claimed_folder(out, OTHER) as theirs:
        write(theirs, "again")
    assert shown(tmp_path) == ["out"]
    assert shown(out) == ["result.txt"]


def test_paths_that_end_in_no_name(tmp_path, monkeypatch):
    users(tmp_path, "here/notes.txt")
    monkeypatch.chdir(tmp_path / "here")
    assert choose_folder(".") == tmp_path / "here-2"
    with pytest.raises(IsADirectoryError, match="here is a folder where a file is to go"):
        choose_file(".", ())
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere for p\.csv"):
        choose_file(tmp_path / "nowhere" / "p.csv", ())


def test_a_file_gets_a_number_and_never_replaces_what_it_is_made_of(tmp_path, capsys):
    users(tmp_path, "x.csv", "model.npz")
    given = (tmp_path / "x.csv", tmp_path / "model.npz")
    (tmp_path / "link.csv").symlink_to(given[0])
    for name in ("x.csv", "model.npz", "link.csv"):
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="is what the result is made of"):
                choose_file(tmp_path / name, given, overwrite=overwrite)
    users(tmp_path, "arrays/labels.npy")
    for name in ("labels.npy", "new.npy"):
        with pytest.raises(ValueError, match="is what the result is made of"):
            choose_file(tmp_path / "arrays" / name, (tmp_path / "arrays",), overwrite=True)
    assert choose_file(tmp_path / "new.csv", given) == tmp_path / "new.csv"
    users(tmp_path, "p.csv", "p-2.csv")
    assert choose_file(tmp_path / "p.csv", given) == tmp_path / "p-3.csv"
    assert "so the result goes to" in capsys.readouterr().err
    assert choose_file(tmp_path / "p.csv", given, overwrite=True) == tmp_path / "p.csv"


def test_a_file_that_is_replaced_keeps_its_mode_and_a_link_is_followed(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    (tmp_path / "ahead").symlink_to(tmp_path / "later")
    write_text(tmp_path / "ahead", "new")
    assert (tmp_path / "later").read_text() == "new"
    assert shown(tmp_path) == ["ahead", "file", "later", "link"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name, message in (("pipe", "no file that can be replaced"), ("round", "lead round")):
        with pytest.raises(OSError, match=message):
            write_text(tmp_path / name, "new")
    assert (tmp_path / "pipe").is_fifo()


def write_text(path, text):
    with atomic_write(path) as partial:
        partial.write_text(text)


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(tmp_path):
    with subprocess.Popen(["true"]) as gone:
        pass
    there = os.getppid()
    kept = [f".file.{there}.partial", f".other.{gone.pid}.partial", ".file.x.partial"]
    for name in (*kept, f".file.{gone.pid}.partial"):
        (tmp_path / name).write_text("")
    write_text(tmp_path / "file", "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "file"])
    stage = tmp_path / f".unfinished-abc.results.{gone.pid}.partial"
    stage.mkdir()
    (stage / "half").write_text("")
    write(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(
        [kept[0], kept[2], MANIFEST, "file", "result.txt"]
    )


@pytest.mark.parametrize("enter", [lambda p: claimed_folder(p, {"a": 1}), atomic_folder])
def test_a_folder_that_another_run_writes_to_is_refused(enter, tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(OSError, match="another run writes its results there"), enter(tmp_path):
            raise AssertionError("the block must not run")
    finally:
        os.close(descriptor)
    assert os.listdir(tmp_path) == []
    with enter(tmp_path):
        pass


def test_a_disk_without_room_is_refused_before_the_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with (
        pytest.raises(OSError, match=r"only 1\.0 MiB are free there"),
        atomic_folder(tmp_path / "a"),
    ):
        raise AssertionError("the block must not run")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("choose", [choose_folder, lambda path: choose_file(path, [])])
def test_the_root_is_no_place_for_results(choose):
    with pytest.raises(OSError, match="results need a folder of their own in it: '/'"):
        choose("/")


def test_of_several_processes_one_writes_to_the_folder(tmp_path):
    run = {"a": 1}
    with claimed_folder(tmp_path / "out", run) as first:
        with claimed_folder(tmp_path / "out", run, writes=False) as other:
            assert other == first
        assert os.listdir(first) == [MANIFEST]
