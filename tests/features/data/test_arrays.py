"""Reading and making arrays in pieces, with room for later rows, gives what it gives without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from features.data.arrays import empty_rows, load_arrays, load_rows, map_rows, mapped_rows, with_capacity


@pytest.mark.parametrize("block", [1, 100, 1 << 22])
def test_arrays_come_back_whole_however_they_are_read(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.data.arrays._BLOCK_BYTES", block)
    rng = np.random.default_rng(0)
    saved: dict[str, npt.NDArray[Any]] = {
        "table": rng.normal(size=(37, 5)).astype(np.float32),
        "line": np.arange(23, dtype=np.int64),
        "mask": rng.random(9) < 0.5,
        "cube": rng.integers(0, 9, (3, 4, 5)).astype(np.int16),
        "nothing": np.zeros((0, 4), dtype=np.float32),
        "narrow": np.zeros((4, 0), dtype=np.float32),
        "number": np.array(2.5),
    }
    save_file(saved, tmp_path / "arrays.safetensors")
    found = load_arrays(tmp_path / "arrays.safetensors")
    assert found.keys() == saved.keys()
    for name, array in saved.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.writeable


def test_arrays_are_read_with_room_which_is_taken_over(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    save_file({"table": table}, tmp_path / "arrays.safetensors")
    found = load_arrays(tmp_path / "arrays.safetensors", room=5)["table"]
    np.testing.assert_array_equal(found, table)
    block = with_capacity(found, 5)
    assert block.shape == (9, 3)
    assert np.shares_memory(block, found)
    np.testing.assert_array_equal(block[:4], table)


@pytest.mark.parametrize("block", [1, 7, 1 << 22])
@pytest.mark.parametrize("room", [0, 5])
def test_rows_are_read_with_room_which_is_taken_over(
    tmp_path: Path, block: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.data.arrays._BLOCK_BYTES", block)
    for table in (np.arange(12, dtype=np.float32).reshape(4, 3), np.zeros((0, 3), np.float32), np.arange(7)):
        np.save(tmp_path / "rows.npy", table)
        found = load_rows(tmp_path / "rows.npy", room)
        assert (found.dtype, found.shape, found.flags.writeable) == (table.dtype, table.shape, True)
        np.testing.assert_array_equal(found, table)
        assert np.shares_memory(with_capacity(found, room), found) is (len(table) > 0)


def test_files_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.asfortranarray(np.ones((3, 2))))
    with pytest.raises(ValueError, match="not rows of numbers in C order"):
        load_rows(path)
    np.save(path, np.ones((3, 2)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut off"):
        load_rows(path)


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((4, 3)),
        empty_rows((4, 3), np.float64, 2),
        empty_rows((4, 3), np.float64, 9),
        empty_rows((5, 3), np.float64, 4)[1:],  # not from the beginning
        empty_rows((4, 3), np.float64, 5).view(np.int64),
        empty_rows((4, 6), np.float64, 5)[:, :3],
    ],
)
def test_rows_without_just_that_room_are_copied(rows: npt.NDArray[Any]) -> None:
    rows[:] = 7
    block = with_capacity(rows, 5)
    assert block.shape == (9, 3)
    assert block.dtype == rows.dtype
    assert not np.shares_memory(block, rows)
    np.testing.assert_array_equal(block[:4], rows)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("room", [0, 3])
def test_rows_are_made_some_at_a_time(count: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.data.arrays._ROWS", 4)
    rows = np.random.default_rng(count).normal(size=(count, 2)).astype(np.float32)
    asked: list[int] = []

    def work(part: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        asked.append(len(part))
        return np.repeat(part, 2, axis=1)

    made = map_rows(work, rows, 4, room)
    np.testing.assert_array_equal(made, np.repeat(rows, 2, axis=1))
    assert sum(asked) == count
    assert max(asked, default=0) <= 4
    assert with_capacity(made, room).shape == (count + room, 4)


def test_mapped_rows_are_the_file_and_what_is_written_into_them_is_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    for table in (np.arange(12, dtype=np.float32).reshape(4, 3), np.zeros((0, 3), np.float32), np.arange(7)):
        np.save(path, table)
        found = mapped_rows(path)
        assert (type(found), found.dtype, found.flags.writeable) == (np.ndarray, table.dtype, True)
        np.testing.assert_array_equal(found, table)
        found[:] = 5
        np.testing.assert_array_equal(np.load(path), table)


def test_a_cut_off_file_is_not_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(7))
    os.truncate(tmp_path / "rows.npy", (tmp_path / "rows.npy").stat().st_size - 1)
    with pytest.raises(ValueError, match="rows.npy: cut off"):
        mapped_rows(tmp_path / "rows.npy")


_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


@pytest.mark.skipif(
    not _OVERCOMMIT.is_file() or _OVERCOMMIT.read_text().strip() != "0",
    reason="Linux's usual rule: a mapping that it cannot provide is refused",
)
def test_a_file_larger_than_the_memory_is_mapped(tmp_path: Path) -> None:
    """Of a shop with a billion events, or of texts of ten million items, on a small machine."""
    swap = Path("/proc/swaps").read_text().splitlines()[1:]
    known = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + sum(
        int(line.split()[2]) * 1024 for line in swap
    )
    size = 2 * known
    with (tmp_path / "rows.npy").open("wb") as file:
        header = {"descr": "|i1", "fortran_order": False, "shape": (size,)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + size)  # a hole, which takes no disk
    with (tmp_path / "rows.npy").open("r+b") as file:
        file.seek(start + size - 2)
        file.write(bytes([3]))
    found = mapped_rows(tmp_path / "rows.npy")
    assert found[-4:].tolist() == [0, 0, 3, 0]
