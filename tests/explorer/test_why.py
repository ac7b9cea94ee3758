"""`shelfwise why`: an explanation at the terminal, for people and for programs, and what it refuses."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conf.errors import InputError
from conf.explorer import BoostConfig, OutputFormat, WhyConfig
from conf.schema import PipelineConfig
from explorer.why import scenario_of, why
from ranking.insight.scenario import Scenario


@pytest.fixture(scope="module")
def store(trained: PipelineConfig) -> str:
    return str(Path(trained.work_dir) / "artifacts")


def printed(config: WhyConfig) -> str:
    console = Console(file=io.StringIO(), width=200)
    why(config, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def record_of(config: WhyConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed(config))
    return found


def test_a_listed_item_and_one_that_is_not(store: str) -> None:
    record = record_of(WhyConfig(store, "u1", "i1", k=5, format=OutputFormat.json))
    listed = record["list"]
    assert len(listed) == 5
    first = record_of(WhyConfig(store, "u1", listed[0]["item_id"], k=5, format=OutputFormat.json))
    assert (first["place"], first["lost_at"]) == (1, None)
    assert first["score"]["score"] == pytest.approx(listed[0]["score"])
    points = sum(group["points"] for group in first["features"]["groups"])
    assert points == pytest.approx(first["features"]["score"] - first["features"]["baseline"], abs=1e-6)
    ids = {item["item_id"] for item in listed}
    outside = next(f"i{n}" for n in range(60) if f"i{n}" not in ids)
    other = record_of(WhyConfig(store, "u1", outside, k=5, format=OutputFormat.json))
    assert other["place"] is None
    assert other["lost_at"] in ("sources", "ranking")
    lost = [stage["name"] for stage in other["stages"] if stage["outcome"] == "lost"]
    assert lost == [other["lost_at"]]
    assert other["list"] == listed
    text = printed(WhyConfig(store, "u1", outside, k=5))
    assert f"({outside}) is not in this list of 5." in text
    for stage in other["stages"]:
        for line in stage["lines"]:
            assert line in text
    for change in other["changes"]:
        assert f"{change['text']}: it is at place {change['place']}" in text


def test_a_change_is_a_request_of_its_own(store: str) -> None:
    record = record_of(WhyConfig(store, "u3", "i1", k=4, format=OutputFormat.json))
    longer = next(change for change in record["changes"] if list(change["request"]) == ["k"])
    again = record_of(WhyConfig(store, "u3", "i1", k=longer["request"]["k"], format=OutputFormat.json))
    assert again["place"] == longer["place"] == longer["request"]["k"]


def test_a_visitor_is_explained_too(store: str) -> None:
    record = record_of(WhyConfig(store, None, "i1", format=OutputFormat.json))
    assert record["user"] is None
    assert record["history"] == []
    reasons = {source["source"]: source["reason"] for source in record["sources"]}
    assert reasons["user_vector"] == "no history to search with"


def test_every_option_reaches_the_request() -> None:
    config = WhyConfig(
        k=3, filter="price < 9", intent="boots", exclude_seen=True, diversity=0.2, novelty=0.1, exclude=["a"],
        caps={"brand": 2}, pins=["b:1:4"], boosts=[BoostConfig("price < 3", 0.3)], exploration=0.1, seed=7,
        events=["click:c:2"], without=["d"], quotas={"popular": 9}, request_time="2024-05-31T12:00:00",
    )  # fmt: skip
    assert scenario_of(config) == Scenario(
        k=3, filter="price < 9", intent="boots", exclude_seen=True, diversity=0.2, novelty=0.1,
        at=1_717_156_800, exclude=("a",), caps=(("brand", 2),), pins=(("b:1", 4),),
        boosts=((0.3, "price < 3"),),
        exploration=0.1, seed=7, events=(("click", "c:2"),), without=("d",), quotas=(("popular", 9),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (WhyConfig(item=None), "item: name the item to explain, item=ID"),
        (WhyConfig(user="u1", item="i1x"), "item: no item 'i1x' in the catalogue; did you mean i1"),
        (
            WhyConfig(user="u", item="i1"),
            "user: no shopper 'u' in the stored histories; did you mean u0, u1, u10",
        ),
        (
            WhyConfig(user="u1", item="i1", filter="prize < 3"),
            "unknown attribute 'prize'; did you mean 'price'?",
        ),
        (WhyConfig(user="u1", item="i1", pins=["i1"]), "pins: 'i1' is not ITEM:POSITION, for example pins="),
        (
            WhyConfig(user="u1", item="i1", events=["i1"]),
            "events: 'i1' is not KIND:ITEM, for example events=",
        ),
        (WhyConfig(user="u1", item="i1", request_time="noon"), "request_time: 'noon' is not an ISO time"),
    ],
)
def test_wrong_input_is_one_line_with_a_way_on(store: str, config: WhyConfig, message: str) -> None:
    with pytest.raises(InputError) as caught:
        why(replace(config, artifacts=store), Console(quiet=True))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
