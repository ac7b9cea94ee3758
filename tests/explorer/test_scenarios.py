"""Requests in addresses: what is written is read again, and what is wrong is named."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.datastructures import QueryParams

from explorer.problems import PageError
from explorer.scenarios import parameters, read_scenario, why_address, without_entry
from ranking.insight.scenario import Scenario

FULL = Scenario(
    k=113, filter='price < 9 AND brand = "A&B"', intent="trail boots", exclude_seen=False, diversity=0.25,
    novelty=0.0, at=1_717_156_800, exclude=("a", "b c"), caps=(("brand", 2), ("a:b", 1)), pins=(("x:1", 3),),
    boosts=((-0.5, 'title:"a:b"'), (0.05, "price > 2")), exploration=0.1, seed=7,
    events=(("click", "i:3"), ("purchase", "i4")), without=("d",), quotas=(("popular", 0),),
)  # fmt: skip


@pytest.mark.parametrize("scenario", [Scenario(), Scenario(k=3), Scenario(exclude_seen=True), FULL])
def test_an_address_says_all_of_a_request(scenario: Scenario) -> None:
    address = why_address("u 1&2", "i/9?", scenario)
    parts = urlsplit(address)
    assert parts.path == "/why"
    values = QueryParams(parts.query)
    assert (values["user"], values["item"]) == ("u 1&2", "i/9?")
    assert read_scenario(values) == scenario
    assert dict(parse_qsl(parts.query))["item"] == "i/9?"


def test_only_what_differs_from_the_defaults_is_in_an_address() -> None:
    assert parameters(Scenario()) == []
    assert parameters(Scenario(k=20, without=("a", "b"))) == [("k", "20"), ("without", "a"), ("without", "b")]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("k=0", "k: “0” is not a whole number from 1 to 500."),
        ("k=501", "k: “501” is not"),
        ("cap=brand", "cap: “brand” is not like ATTRIBUTE:2."),
        ("cap=brand:many", "cap: “many” is not a whole number"),
        ("pin=x:0", "pin: “0” is not a whole number from 1"),
        ("boost=price", "boost: “price” is not like 0.3:price < 5"),
        ("boost=2:price", "boost: “2:price” is not like"),
        ("event=purchase", "event: “purchase” is not like purchase:ITEM."),
        ("quota=popular:-1", "quota: “-1” is not a whole number from 0"),
        ("exploration=2", "exploration: “2” is not a number from 0 to 1."),
        ("exclude_seen=maybe", "exclude_seen: “maybe” is not yes or no."),
        ("&".join(f"without={n}" for n in range(21)), "without: “21 values” is not at most 20 of them."),
    ],
)
def test_a_wrong_value_is_named(query: str, said: str) -> None:
    with pytest.raises(PageError) as caught:
        read_scenario(QueryParams(query))
    assert caught.value.status == 400
    assert said in caught.value.message


def test_one_entry_is_taken_out() -> None:
    assert without_entry(FULL, "boost", 0).boosts == ((0.05, "price > 2"),)
    assert without_entry(FULL, "cap", 1).caps == (("brand", 2),)
    assert without_entry(FULL, "exclude", 0).exclude == ("b c",)
    assert without_entry(FULL, "quota", 0) == read_scenario(
        QueryParams([entry for entry in parameters(FULL) if entry[0] != "quota"])
    )
