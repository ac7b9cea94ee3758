"""Temporary files of several writers: those of killed ones are removed, those in use stay."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from features.files.file_replacement import file_replacement, remove_leftovers

WRITER = """
import sys, time
from pathlib import Path
from features.files.file_replacement import file_replacement
with file_replacement(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of it")
    print(flush=True)
    time.sleep(60)
"""
ROOT = Path(__file__).parents[3]


def test_only_what_a_killed_writer_has_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    path.write_text("whole")
    own = tmp_path / f".h.parquet.{os.getpid()}.tmp"  # as of a process of another container
    own.write_text("left")
    (tmp_path / f"{own.name}.parts").mkdir()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    remove_leftovers(path)
    [left] = tmp_path.glob(".*.tmp")
    assert left.read_text() == "half of it"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert left.exists()
    remove_leftovers(path)
    assert [found.name for found in tmp_path.iterdir()] == ["h.parquet"]


def test_a_replacement_is_private_and_moved_or_gone(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    with file_replacement(path) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_text("new")
        temporary.replace(path)
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError), file_replacement(path):
        _ = 1 / 0
    assert [found.name for found in tmp_path.iterdir()] == ["h.parquet"]


@pytest.mark.usefixtures("without_locks")
def test_a_file_system_without_locks_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    with file_replacement(path) as temporary:
        temporary.write_text("new")
        remove_leftovers(path)  # of another process, which cannot tell what this one writes from a leftover
        temporary.replace(path)
    assert path.read_text() == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["h.parquet"]


def test_a_file_that_cannot_be_opened_is_removed_and_none_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, "flock", interrupted)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KeyboardInterrupt), file_replacement(tmp_path / "h.parquet"):
        pass
    assert os.listdir("/proc/self/fd") == before
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_name_with_brackets_are_removed_and_of_no_other(tmp_path: Path) -> None:
    path = tmp_path / "e[1].parquet"
    (tmp_path / f".{path.name}.0.tmp").touch()
    other = tmp_path / ".e1.parquet.0.tmp"
    other.touch()
    remove_leftovers(path)
    assert list(tmp_path.iterdir()) == [other]
