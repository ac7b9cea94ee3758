from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from features.data import event_arrays
from features.data.dataset import Dataset, load_dataset
from features.data.event_arrays import FOLDER, UserIds, write_event_arrays

KINDS = ["purchase", "view"]
EVENTS = pl.DataFrame(
    {
        "user_id": ["ann", "ann", "ann", "bob", "cid", "cid", "cid", "cid"],
        "item_id": ["b", "a", "b", "c", "a", "c", "c", "b"],
        "event": ["view", "purchase", "view", "view", "purchase", "view", "view", "purchase"],
        "timestamp": [10, 20, 30, 5, 1, 2, 3, 1 << 40],
        "order": pl.Series([None] * 8, dtype=pl.Int64),
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset directory without arrays."""
    made = tmp_path / "dataset"
    made.mkdir()
    pl.DataFrame({"item_id": ["a", "b", "c"], "item_text": ["A", "B", "C"]}).write_parquet(
        made / "items.parquet"
    )
    EVENTS.write_parquet(made / "events.parquet")
    info = {
        "content_hash": "x",
        "kinds": KINDS,
        "event_weights": {"purchase": 1, "view": 0.5},
        "has_time": True,
    }
    (made / "dataset.json").write_text(json.dumps(info))
    return made


def with_arrays(folder: Path) -> Path:
    """Write the arrays of a dataset directory as `prepare` does."""
    info = json.loads((folder / "dataset.json").read_text())
    (folder / FOLDER).mkdir()
    write_event_arrays(folder, info, pl.Series(["a", "b", "c"]), folder / FOLDER)
    return folder


def check(loaded: Dataset) -> None:
    """Compare with the events by hand."""
    assert loaded.events.user.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert loaded.events.item.tolist() == [1, 0, 1, 2, 0, 2, 2, 1]
    assert loaded.events.kind.tolist() == [1, 0, 1, 1, 0, 1, 1, 0]
    assert loaded.events.time.tolist() == [10, 20, 30, 5, 1, 2, 3, 1 << 40]
    assert loaded.events.offsets.tolist() == [0, 3, 4, 8]
    assert list(loaded.user_ids) == ["ann", "bob", "cid"]
    types = [getattr(loaded.events, name).dtype for name in ("user", "item", "kind", "time", "offsets")]
    assert types == [np.int32, np.int32, np.int8, np.int64, np.int64]


@pytest.mark.parametrize("block", [1, 2, 3, 8, 100])
def test_blocks_may_end_within_a_user(block: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_arrays, "_BLOCK", block)
    loaded = load_dataset(with_arrays(folder))
    check(loaded)
    assert [loaded.user_ids[place] for place in (0, 1, 2, -1)] == ["ann", "bob", "cid", "cid"]


def test_arrays_are_mapped_from_the_dataset_and_writing_leaves_the_file_alone(folder: Path) -> None:
    loaded = load_dataset(with_arrays(folder))
    base: object = loaded.events.item.base
    assert isinstance(base, mmap.mmap)
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    assert str(folder / FOLDER / "item.npy") in mapped
    loaded.events.item[0] = 2
    check(load_dataset(folder))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_without_arrays_a_temporary_copy_is_mapped_and_disappears(folder: Path, scratch: Path) -> None:
    check(load_dataset(folder))
    assert list(scratch.iterdir()) == []
    assert not (folder / FOLDER).exists()


@pytest.mark.parametrize("change", ["content_hash", "kinds", "rows"])
def test_arrays_of_other_events_are_not_used(change: str, folder: Path) -> None:
    info = json.loads((with_arrays(folder) / "dataset.json").read_text())
    if change == "rows":
        EVENTS.head(3).write_parquet(folder / "events.parquet")
    else:
        info[change] = {"content_hash": "y", "kinds": KINDS[::-1]}[change]
        (folder / "dataset.json").write_text(json.dumps(info))
    loaded = load_dataset(folder)
    expected = {"content_hash": ([1, 0, 1], 8), "kinds": ([0, 1, 0], 8), "rows": ([1, 0, 1], 3)}[change]
    assert (loaded.events.kind[:3].tolist(), len(loaded.events)) == expected


def test_arrays_of_items_in_another_order_are_not_used(folder: Path) -> None:
    """The arrays hold row numbers of the catalogue."""
    with_arrays(folder)
    pl.DataFrame({"item_id": ["c", "b", "a", "d"], "item_text": [*"CBAD"]}).write_parquet(
        folder / "items.parquet"
    )
    assert load_dataset(folder).events.item.tolist() == [1, 2, 1, 0, 2, 0, 0, 1]


@pytest.mark.parametrize("name", ["user.npy", "time.npy", "offsets.npy", "user_ids.arrow"])
@pytest.mark.parametrize("left", [None, 0, 100, -1])
def test_a_part_of_the_arrays_is_not_used(name: str, left: int | None, folder: Path) -> None:
    """A copy that was interrupted, or for which the disk was too small."""
    path = with_arrays(folder) / FOLDER / name
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left if left >= 0 else path.stat().st_size + left)
    check(load_dataset(folder))


def test_an_event_of_an_unknown_item_is_an_error_and_leaves_nothing(folder: Path, scratch: Path) -> None:
    pl.DataFrame({"item_id": ["a", "b"], "item_text": ["A", "B"]}).write_parquet(folder / "items.parquet")
    with pytest.raises(InputError, match="its events name items that it lacks; run `shelfwise prepare`"):
        load_dataset(folder)
    assert list(scratch.iterdir()) == []


def test_a_full_disk_is_one_line_that_names_the_setting(
    folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(_file: object, _offsets: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(
        InputError, match=r"scratch: cannot hold .*\(No space left on device\); set TMPDIR to"
    ):
        load_dataset(folder)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_dataset_that_is_replaced_while_it_is_opened_is_not_mixed_with_the_new_one(
    moment: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`prepare` sets the old folder aside and renames the new one, with other items."""
    newer = tmp_path / "newer"
    shutil.copytree(with_arrays(folder), newer)
    pl.DataFrame({"item_id": ["c", "b", "a"], "item_text": [*"CBA"]}).write_parquet(newer / "items.parquet")
    info = json.loads((newer / "dataset.json").read_text())
    (newer / "dataset.json").write_text(json.dumps(info | {"content_hash": "y"}))
    opened = event_arrays.open_event_arrays

    def replaced(*given: Any) -> Any:
        found = opened(*given) if moment == "after" else None
        folder.rename(tmp_path / "aside")
        if moment != "between":
            newer.rename(folder)
        return found or opened(*given)

    monkeypatch.setattr("features.data.dataset.open_event_arrays", replaced)
    with pytest.raises(InputError, match="dataset: replaced by another `shelfwise prepare`"):
        load_dataset(folder)


def test_user_ids_are_a_sequence() -> None:
    ids = UserIds(pl.Series(["u1", "u2", "u3"]))
    assert (len(ids), ids[1], ids[-1], ids[1:], list(ids)) == (
        3,
        "u2",
        "u3",
        ["u2", "u3"],
        ["u1", "u2", "u3"],
    )
    assert ("u2" in ids, "u9" in ids) == (True, False)
    assert (ids.index("u3"), ids.index("u2", 1, 2)) == (2, 1)
    with pytest.raises(ValueError, match="no such user"):
        ids.index("u1", 1)
    with pytest.raises(IndexError, match="user 3 of 3"):
        ids[3]
