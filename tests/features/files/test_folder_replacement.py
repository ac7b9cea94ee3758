"""Temporary folders of processes that are killed while they replace a folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conf.schema import DataConfig
from features.files.folder_replacement import folder_replacement
from tests.features.conftest import Shop

WRITES = """
import sys, time
from pathlib import Path
from features.files.folder_replacement import folder_replacement
with folder_replacement(Path(sys.argv[1])) as folder:
    (folder / "large").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""
ENDS_BETWEEN_RENAMES = """
import os, signal, sys
from pathlib import Path
from features.files.folder_replacement import folder_replacement
rename = Path.rename
def once(self, target):
    if self.name == "new":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = once
with folder_replacement(Path(sys.argv[1])) as folder:
    (folder / "content").write_text("new")
"""


@contextmanager
def _writing(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that writes a folder until it is killed."""
    command = [sys.executable, "-c", WRITES, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_prepare_removes_what_a_killed_one_has_left_and_nothing_else(shop: Shop, items: str) -> None:
    target = shop.work / "dataset"
    with _writing(target):
        pass
    assert len(_names(shop.work)) == 1
    (shop.work / ".dataset-mine").mkdir()
    with _writing(target):
        assert len(_names(shop.work)) == 2
        running = [name for name in _names(shop.work) if name != ".dataset-mine"]
        shop.prepare(DataConfig(items=items))
        assert _names(shop.work) == sorted([*running, ".dataset-mine", "dataset"])
    shop.prepare(DataConfig(items=items))
    assert _names(shop.work) == [".dataset-mine", "dataset"]


def test_a_folder_that_was_set_aside_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "dataset"
    target.mkdir()
    (target / "content").write_text("former")
    done = subprocess.run([sys.executable, "-c", ENDS_BETWEEN_RENAMES, str(target)])
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    with pytest.raises(KeyError), folder_replacement(target):
        raise KeyError
    assert (target / "content").read_text() == "former"
    assert _names(tmp_path) == ["dataset"]


def test_an_interrupt_between_the_renames_leaves_the_former_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "dataset"
    target.mkdir()
    (target / "content").write_text("former")
    rename = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), folder_replacement(target):
        pass
    assert (target / "content").read_text() == "former"
    assert _names(tmp_path) == ["dataset"]


@pytest.mark.usefixtures("without_locks")
def test_a_file_system_without_locks_is_written_all_the_same(tmp_path: Path) -> None:
    with folder_replacement(tmp_path / "dataset") as folder:
        (folder / "content").write_text("new")
    assert (tmp_path / "dataset" / "content").read_text() == "new"
    assert _names(tmp_path) == ["dataset"]


def test_a_folder_with_brackets_in_its_name_finds_its_own_leftovers(tmp_path: Path) -> None:
    with _writing(tmp_path / "data[1]"):
        pass
    with _writing(tmp_path / "data1"):
        pass
    assert len(_names(tmp_path)) == 2
    with folder_replacement(tmp_path / "data[1]"):
        assert sum(name.startswith(".data[1]-") for name in _names(tmp_path)) == 1
    assert len(_names(tmp_path)) == 2
