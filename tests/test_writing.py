"""Folders are replaced whole or not at all, wherever the writing fails or is killed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mi2v_lite.io.files import (
    LEFTOVER,
    atomic,
    atomic_folder,
    folder_names,
    locked,
    new_folder,
    recover_folders,
    remove_folder,
)

OLD, NEW = ({name: f"{age} {name}" for name in ("a.txt", "b.txt", "c.txt")} for age in ("old", "new"))


class Killed(BaseException):
    """Nothing that code could be expected to handle."""


class Killer:
    """Counts what changes folders on the disk; from one change on, each is refused, as after a kill there is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changes, self.last = 0, None
        self._remove = shutil.rmtree
        for module, name in ((os, "mkdir"), (os, "rename"), (os, "replace"), (shutil, "rmtree")):
            monkeypatch.setattr(module, name, self._watched(getattr(module, name), name))

    def after(self, changes: int) -> None:
        """Kills instead of the next change after so many."""
        self.changes, self.last = 0, changes

    def _watched(self, change: Callable, name: str) -> Callable:
        def watched(path, *args, **kwargs):
            if self.last is not None and self.changes >= self.last:
                if name == "rmtree" and self.changes == self.last:  # half of it is gone
                    next(file for file in sorted(Path(path).rglob("*")) if file.is_file()).unlink()
                self.changes += 1
                raise Killed
            self.changes += 1
            return change(path, *args, **kwargs)

        return watched


@pytest.fixture
def killer(monkeypatch) -> Killer:
    return Killer(monkeypatch)


def fill(folder: Path, files: dict[str, str]) -> Path:
    if not folder.exists():
        folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(path: Path, texts: dict[str, str] = NEW) -> None:
    with atomic_folder(path) as beside:
        fill(beside, texts)


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [None, {}, OLD])
def test_a_folder_is_replaced_and_nothing_else_stays(tmp_path, old):
    path = tmp_path / "x"
    if old is not None:
        fill(path, old)
    write(path)
    assert files(path) == NEW and inside(tmp_path) == ["x"]


def test_the_new_folder_is_not_seen_before_it_is_whole(tmp_path):
    path = fill(tmp_path / "x", OLD)
    with atomic_folder(path) as beside:
        fill(beside, NEW)
        assert files(path) == OLD and beside.parent == tmp_path and LEFTOVER.fullmatch(beside.name)["name"] == "x"


@pytest.mark.parametrize("old", [None, OLD])
def test_a_block_that_fails_changes_nothing(tmp_path, old):
    path = tmp_path / "x"
    if old:
        fill(path, old)
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as beside:
        fill(beside, {"a.txt": "half"})
        raise KeyboardInterrupt
    assert (files(path) == OLD if old else not path.exists()) and inside(tmp_path) == (["x"] if old else [])


@pytest.mark.parametrize("move", ["old aside", "new in place"])
def test_a_move_that_fails_changes_nothing(tmp_path, monkeypatch, move):
    path, rename = fill(tmp_path / "x", OLD), os.rename

    def refused(source, target):
        if Path(target).suffix == ".old" if move == "old aside" else Path(source).suffix == ".part":
            raise PermissionError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(PermissionError):
        write(path)
    assert files(path) == OLD and inside(tmp_path) == ["x"]


@pytest.mark.parametrize("next_call", ["recover", "write"])
@pytest.mark.parametrize("old", [None, OLD])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_folder(tmp_path, killer, old, next_call):
    """And the next call finds it and clears away the rest."""
    allowed, seen, changes = [each for each in (old, NEW) if each], [], 0
    while True:
        folder = tmp_path / str(changes)
        folder.mkdir()
        path = folder / "x"
        if old:
            fill(path, old)
        killer.after(changes)
        try:
            write(path)
            break
        except Killed:
            killer.last = None
        seen.append(inside(folder))
        if old:
            whole = path if path.exists() else next(folder.glob(".x.*.old"))
            assert files(whole) in allowed
        elif path.exists():
            assert files(path) == NEW
        if next_call == "write":
            write(path, {"a.txt": "newest"})
            assert files(path) == {"a.txt": "newest"} and inside(folder) == ["x"]
        else:
            recover_folders(folder, "x")
            assert inside(folder) == ["x"] if old else inside(folder) in ([], ["x"])
            assert not path.exists() or files(path) in allowed
        changes += 1
    assert files(path) == NEW and inside(folder) == ["x"]
    if old:  # killed before the new folder was made, either move, the farewell to the old one, and in its removal
        assert changes == 5 and sum("x" not in names for names in seen) == 1


def test_control_c_while_the_old_folder_is_removed_leaves_nothing(tmp_path, monkeypatch):
    remove, calls = shutil.rmtree, []

    def interrupted(path, **options):
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    path = fill(tmp_path / "x", OLD)
    with pytest.raises(KeyboardInterrupt):
        write(path)
    assert files(path) == NEW and inside(tmp_path) == ["x"]


def test_a_kill_while_a_folder_comes_back_leaves_it_whole(tmp_path, killer):
    path, changes = tmp_path / "x", 0
    while True:
        fill(tmp_path / ".x.01234567.old", OLD)
        fill(tmp_path / ".x.89abcdef.part", {"a.txt": "half"})
        killer.after(changes)
        try:
            recover_folders(tmp_path)
            break
        except Killed:
            killer.last = None
        whole = path if path.exists() else tmp_path / ".x.01234567.old"
        assert files(whole) == OLD
        for name in inside(tmp_path):
            shutil.rmtree(tmp_path / name)
        changes += 1
    assert changes == 2 and files(path) == OLD and inside(tmp_path) == ["x"]


def test_a_kill_while_a_folder_is_removed_leaves_no_half_of_it(tmp_path, killer):
    for changes in (0, 1):
        path = fill(tmp_path / "x", OLD)
        killer.after(changes)
        with pytest.raises(Killed):
            remove_folder(path)
        killer.last = None
        assert files(path) == OLD if changes == 0 else not path.exists()
    assert inside(tmp_path) and not folder_names(tmp_path)
    recover_folders(tmp_path)
    assert inside(tmp_path) == []


def test_what_others_keep_beside_is_left_alone(tmp_path):
    """Only folders are ours, and only with a name that nobody gives by chance; and of another folder's name none."""
    fill(tmp_path / "x", OLD)
    kept = ("x.partial", ".x.part", ".x.old", "x.old", "x.0123abcd.old", ".x.0123abcd.part2", ".x.0123ABCD.part")
    others = (".xx.0123abcd.part", ".y.x.0123abcd.old", ".y.0123abcd.old")
    for name in (*kept, *others):
        fill(tmp_path / name, {"mine.txt": name})
    (tmp_path / ".x.01234567.part").write_text("a file of `atomic`")
    (tmp_path / ".x.76543210.part").symlink_to(tmp_path / "x.partial")
    before = inside(tmp_path)
    write(tmp_path / "x")
    assert inside(tmp_path) == before and files(tmp_path / "x") == NEW
    assert all(files(tmp_path / name) == {"mine.txt": name} for name in (*kept, *others))


def test_the_names_of_folders_count_those_that_are_moved_aside(tmp_path):
    for name in ("a", ".b.01234567.old", ".c.01234567.part"):
        (tmp_path / name).mkdir()
    (tmp_path / "d").write_text("a file")
    assert folder_names(tmp_path) == {"a", "b"}


def test_all_that_is_moved_aside_comes_back(tmp_path):
    fill(tmp_path / "a", NEW)
    for name in (".a.01234567.old", ".b.01234567.old", ".c.d.01234567.old"):
        fill(tmp_path / name, OLD)
    recover_folders(tmp_path)
    assert inside(tmp_path) == ["a", "b", "c.d"] and files(tmp_path / "a") == NEW and files(tmp_path / "c.d") == OLD
    recover_folders(tmp_path / "missing")


def test_files_and_links_are_not_taken_for_folders(tmp_path):
    folder = fill(tmp_path / "x", OLD)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    before = inside(tmp_path)
    for name in ("file", "link", "nowhere"):
        with pytest.raises(NotADirectoryError, match=name):
            write(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "x")
    assert inside(tmp_path) == before and files(folder) == OLD and (tmp_path / "file").read_text() == "a file"
    remove_folder(tmp_path / "link")
    assert files(folder) == OLD and not (tmp_path / "link").is_symlink()


def test_a_file_is_replaced_or_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError), atomic(path) as beside:
        beside.write_text("half")
        raise ValueError
    assert files(tmp_path) == {"a.txt": "old"}
    with atomic(path) as beside:
        beside.write_text("new")
    assert files(tmp_path) == {"a.txt": "new"}


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as raised, atomic(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(tmp_path / "a.txt") and not list(tmp_path.iterdir())


def test_a_lock_is_held_by_one_program_and_leaves_no_file(tmp_path):
    path = tmp_path / "x"
    with locked(path):
        assert inside(tmp_path) == [".x.lock"]
        with pytest.raises(BlockingIOError, match="another program is working on it"), locked(path):
            pass
        with locked(tmp_path / "y"):
            pass
    with locked(path):
        pass
    assert inside(tmp_path) == []


def test_a_killed_program_leaves_no_lock(tmp_path):
    code = f"import time\nfrom mi2v_lite.io.files import locked\nwith locked({str(tmp_path / 'x')!r}):\n"
    code += "    print('locked', flush=True)\n    time.sleep(60)"
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "locked\n"
    with pytest.raises(BlockingIOError), locked(tmp_path / "x"):
        pass
    program.kill()
    program.communicate()
    with locked(tmp_path / "x"):
        pass
    assert inside(tmp_path) == []


def test_two_programs_do_not_write_one_folder(tmp_path):
    path = fill(tmp_path / "x", OLD)
    with atomic_folder(path) as beside:
        fill(beside, NEW)
        with pytest.raises(BlockingIOError):
            write(path)
    assert files(path) == NEW and inside(tmp_path) == ["x"]


def test_what_is_written_has_reached_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "rename", lambda *names: (done.append("rename"), rename(*names)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), replace(*names)))
    write(tmp_path / "x")
    assert done == ["fsync"] * (len(NEW) + 1) + ["rename", "fsync"]
    done.clear()
    with atomic(tmp_path / "y") as beside:
        beside.write_text("new")
    assert done == ["fsync", "rename", "fsync"]


def test_a_new_folder_goes_again_if_nothing_came_into_it(tmp_path):
    with new_folder(tmp_path / "a" / "b"):
        pass
    assert inside(tmp_path) == []
    with new_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "x").write_text("x")
    assert inside(tmp_path / "a") == ["x"]
    with new_folder(tmp_path / "a"):
        pass
    assert inside(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["n" * 250, "ä" * 125, "\udcff" * 240])
def test_a_file_may_have_as_long_a_name_as_the_system_allows(tmp_path, name):
    with locked(tmp_path / name), atomic(tmp_path / name) as beside:
        beside.write_text("new")
    assert (tmp_path / name).read_text() == "new" and inside(tmp_path) == [name]
    with pytest.raises(OSError, match="longer than"), atomic_folder(tmp_path / "x" / name):
        pass
