from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from conf.errors import InputError
from conf.schema import DataConfig
from features import prepare as prepare_module
from features.data.content_hash import content_hash
from features.data.dataset import load_dataset
from tests.features.conftest import Shop


def _events(shop: Shop, *rows: str, header: str = "user_id,item_id,timestamp") -> str:
    return shop.write("events.csv", "\n".join((header, *rows)) + "\n")


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file in a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_small_shop_from_files_to_arrays(shop: Shop, items: str) -> None:
    events = _events(
        shop,
        "b,1,100,view",
        "a,2,300,purchase",
        "a,1,200,view",
        "a,3,250,impression",
        "b,3,50,view",
        header="user_id,item_id,timestamp,event",
    )
    done = shop.prepare(
        DataConfig(items=items, events=events, event_weights={"view": 1, "purchase": 3, "impression": 0})
    )
    assert done.table("events").rows() == [
        ("a", "1", "view", 200, None),
        ("a", "2", "purchase", 300, None),
        ("b", "3", "view", 50, None),
        ("b", "1", "view", 100, None),
    ]
    assert done.table("items").rows() == [
        ("1", "Red boots", "Red boots"),
        ("2", "Blue hat", "Blue hat"),
        ("3", "Green scarf", "Green scarf"),
    ]
    info = done.info
    expected = {
        "items": 3,
        "events": 4,
        "users": 2,
        "kinds": ["purchase", "view"],
        "event_weights": {"purchase": 3.0, "view": 1.0},
        "kind_counts": {"purchase": 1, "view": 3},
        "ignored_events": {"impression": 1},
        "has_time": True,
        "has_order": False,
        "time_range": ["1970-01-01T00:00:50+00:00", "1970-01-01T00:05:00+00:00"],
        "text_fields": ["title"],
        "attributes": {"title": "string"},
        "items_without_text": 0,
        "rows_read": {"items": 3, "events": 5},
        "rejects": {"items": {}, "events": {}},
    }
    assert {k: info[k] for k in expected} == expected
    assert info["data"]["items"] == items
    assert info["data"]["adapter"] == "files"
    dataset = load_dataset(done.folder)
    assert list(dataset.user_ids) == ["a", "b"]
    assert dataset.kinds == ["purchase", "view"]
    assert dataset.events.item.tolist() == [0, 1, 2, 0]
    assert dataset.events.kind.tolist() == [1, 0, 1, 1]
    assert dataset.events.offsets.tolist() == [0, 2, 4]
    for word in ("items", "users", "purchase", "1970-01-01"):
        assert word in done.printed


def test_too_many_rejects_stop_the_run_and_leave_nothing(shop: Shop, items: str) -> None:
    events = _events(shop, *(f"a,{9 if i % 2 else 1},100" for i in range(40)))
    with pytest.raises(InputError) as error:
        shop.prepare(DataConfig(items=items, events=events))
    lines = str(error.value).splitlines()
    assert lines[0] == (
        f"data.events ({events}): 20 of 40 rows rejected, more than data.max_reject_fraction=0.01: "
        "unknown item (20) (ids in the items table look like '1', '2', '3'). "
        "'data.max_reject_fraction={events: 0.5}' goes on without them. The first 10:"
    )
    assert lines[1:] == [f"  {events} row {row}: unknown item '9'" for row in range(2, 21, 2)]
    assert not shop.work.exists()


def test_the_fraction_is_a_limit_not_beyond_it(shop: Shop, items: str) -> None:
    events = _events(shop, *("a,1,100" for _ in range(99)), "a,9,100")
    assert shop.prepare(DataConfig(items=items, events=events)).info["events"] == 99
    with pytest.raises(InputError, match="1 of 100 rows"):
        shop.prepare(DataConfig(items=items, events=events, max_reject_fraction=0.009))


def test_a_failed_run_leaves_the_former_dataset_as_it_was(shop: Shop, items: str) -> None:
    done = shop.prepare(DataConfig(items=items))
    before = content(done.folder)
    with pytest.raises(InputError):
        shop.prepare(DataConfig(items=items, events=_events(shop, "a,9,1")))
    assert content(done.folder) == before
    assert [p.name for p in shop.work.iterdir()] == ["dataset"]


def test_a_crash_while_writing_leaves_nothing_behind(
    shop: Shop, items: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> str:
        raise KeyboardInterrupt

    done = shop.prepare(DataConfig(items=items))
    monkeypatch.setattr(prepare_module, "content_hash", crash)
    with pytest.raises(KeyboardInterrupt):
        shop.prepare(DataConfig(items=shop.write("other.csv", "item_id,title\n9,Tea\n")))
    assert [p.name for p in shop.work.iterdir()] == ["dataset"]
    assert load_dataset(done.folder).catalogue.ids == ["1", "2", "3"]


def test_a_new_run_replaces_the_former_dataset(shop: Shop, items: str) -> None:
    shop.prepare(DataConfig(items=items))
    (shop.work / "dataset" / "leftover").write_text("x")
    done = shop.prepare(DataConfig(items=shop.write("other.csv", "item_id,title\n9,Tea\n")))
    assert load_dataset(done.folder).catalogue.ids == ["9"]
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "arrays",
        "dataset.json",
        "events.parquet",
        "items.parquet",
        "rejects.parquet",
    ]


def test_a_catalogue_without_history(shop: Shop, items: str) -> None:
    done = shop.prepare(DataConfig(items=items, event_weights={"click": 1.0}))
    assert done.table("events").columns == ["user_id", "item_id", "event", "timestamp", "order"]
    assert (done.info["events"], done.info["kinds"], done.info["time_range"]) == (0, ["click"], None)
    dataset = load_dataset(done.folder)
    assert len(dataset.events) == 0
    assert dataset.events.users == 0
    assert len(dataset.catalogue) == 3
    weighted = shop.prepare(
        DataConfig(items=items, event_weights={"view": 1, "purchase": 2, "impression": 0})
    )
    assert weighted.info["kinds"] == ["purchase", "view"]


@pytest.mark.parametrize(
    ("items", "events", "message"),
    [
        (None, None, "data.items is not set"),
        ("item_id,title\n", None, "no data rows"),
        ("item_id,title\n1,Tea\n", "user_id,item_id,timestamp\n", "no data rows"),
        ("sku,title\n1,Tea\n", None, "no column 'item_id'"),
        ("item_id,item_text\n1,Tea\n", None, "the name 'item_text' is taken"),
        (
            "item_id,title\n1,Tea\n",
            "user,item_id,timestamp\nu,1,1\n",
            "no column 'user_id'; did you mean 'user'",
        ),
        (
            "item_id,title\n1,Tea\n",
            "user_id,item_id,time\nu,1,1\n",
            "no column 'timestamp'; did you mean 'time'",
        ),
        ("item_id,title\n,Tea\n", None, "1 of 1 rows rejected"),
    ],
)
def test_unusable_tables_are_one_readable_line(
    shop: Shop, items: str | None, events: str | None, message: str
) -> None:
    items_path = None if items is None else shop.write("items.csv", items)
    events_path = None if events is None else shop.write("events.csv", events)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        shop.prepare(DataConfig(items=items_path, events=events_path))
    assert len(str(error.value).splitlines()) <= 2
    assert not (shop.work / "dataset").exists()


def test_a_work_dir_that_cannot_be_made(shop: Shop, items: str) -> None:
    shop.work.write_text("a file")
    with pytest.raises(InputError, match="work_dir=.*cannot write there"):
        shop.prepare(DataConfig(items=items))


def test_same_input_same_bytes_and_hash(shop: Shop, items: str) -> None:
    config = DataConfig(items=items, events=_events(shop, "a,1,1", "a,2,2"))
    first = shop.prepare(config)
    before = content(first.folder)
    again = shop.prepare(config)
    assert content(again.folder) == before


def test_the_hash_follows_content_not_storage(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"a": ["x", None, "yz"], "n": [1, None, 3], "t": [["p"], [], None], "b": [True, None, False]}
    )
    frame.write_parquet(tmp_path / "a.parquet", compression="uncompressed", row_group_size=1)
    frame.write_parquet(tmp_path / "b.parquet")

    def of(changed: pl.DataFrame) -> str:
        return content_hash([changed.lazy()])

    same = {content_hash([pl.scan_parquet(tmp_path / f)]) for f in ("a.parquet", "b.parquet")} | {of(frame)}
    assert len(same) == 1
    changed = [
        frame.with_columns(a=pl.Series(["xy", None, "z"])),
        frame.with_columns(a=pl.Series(["x", "", "yz"])),
        frame.with_columns(n=pl.Series([1, 0, 3])),
        frame.with_columns(t=pl.Series([["p"], None, []], dtype=pl.List(pl.String))),
        frame.rename({"a": "c"}),
        frame.reverse(),
    ]
    assert len({of(c) for c in changed} | same) == len(changed) + 1


def test_the_manifest_is_plain_json(shop: Shop, items: str) -> None:
    info = shop.prepare(DataConfig(items=items)).info
    assert info["format_version"] == 1
    assert re.fullmatch(r"[0-9a-f]{64}", info["content_hash"])
    assert json.loads(json.dumps(info)) == info
