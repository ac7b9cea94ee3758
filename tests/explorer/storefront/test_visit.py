from __future__ import annotations

from dataclasses import replace

import pytest

from explorer.storefront.visit import (
    MOST_ACTIONS,
    Action,
    Done,
    Ledger,
    RecordedKind,
    ShopAddress,
    Visit,
    kinds_of_actions,
)

A, B, C = Done(Action.click, "a"), Done(Action.cart, "b"), Done(Action.buy, "c")


def test_an_address_says_everything_about_a_state() -> None:
    visit = Visit("0123abcd", "user 1", (Done(Action.click, "a:b&c"), Done(Action.buy, "é")))
    address = ShopAddress(visit, "item 1", "", "for my mother", (("brand", "A&B"), ("price", "1-2")), "t0ken")
    assert ShopAddress.of(address.query_string) == address
    assert address.url.startswith("/storefront?visit=0123abcd&as=user+1&item=item+1")


def test_another_state_keeps_visit_and_filters() -> None:
    visit = Visit("0123abcd", "", (A,))
    address = ShopAddress(visit, item="x", intent="gift", filters=(("brand", "Acme"),), page="t")
    assert ShopAddress.of(address.at(query="mug").partition("?")[2]) == replace(
        address, item="", query="mug", page=""
    )
    assert ShopAddress.of(address.at().partition("?")[2]) == replace(address, item="", page="")
    other = replace(visit, id="ffffffff")
    assert address.with_visit(other) == replace(address, visit=other)


@pytest.mark.parametrize(
    "query",
    [
        "visit=XYZ",
        "visit=0123abcde",
        "did=steal:x",
        "did=click:",
        "did=click",
        "f.=x",
        "",
        "did=click:" + "x" * 257,
    ],
)
def test_what_an_address_cannot_mean_is_left_out(query: str) -> None:
    address = ShopAddress.of(query)
    assert len(address.visit.id) == 8
    assert replace(address, visit=Visit("0" * 8)) == ShopAddress(Visit("0" * 8))


def test_a_visit_without_id_gets_one_of_its_own() -> None:
    assert ShopAddress.of("").visit.id != ShopAddress.of("").visit.id


def test_too_many_actions_are_refused() -> None:
    visit = Visit("0" * 8, done=(A,) * MOST_ACTIONS)
    with pytest.raises(ValueError, match="a visit holds 200 actions; begin a new one"):
        visit.after(Action.click, "a")
    longer = "&".join(["did=click:a"] * (MOST_ACTIONS + 5))
    assert len(ShopAddress.of(longer).visit.done) == MOST_ACTIONS


def test_an_action_has_the_same_event_id_whenever_it_is_sent() -> None:
    visit = Visit("0123abcd").after(Action.click, "a").after(Action.buy, "b")
    assert visit.done == (Done(Action.click, "a"), Done(Action.buy, "b"))
    assert [visit.event_id(n) for n in range(2)] == ["storefront-0123abcd-0", "storefront-0123abcd-1"]


@pytest.mark.parametrize(
    ("known", "names"),
    [
        (["purchase", "add_to_cart", "view"], ("view", "add_to_cart", "purchase")),
        (["transaction", "addtocart", "view"], ("view", "addtocart", "transaction")),
        (["orders", "carts", "clicks"], ("clicks", "carts", "orders")),
        (["Buy", "Product View"], ("Product View", "add_to_cart", "Buy")),
    ],
)
def test_actions_are_recorded_as_kinds_of_the_model(known: list[str], names: tuple[str, str, str]) -> None:
    assert tuple(kind.name for kind in kinds_of_actions(known).values()) == names


def test_what_a_model_makes_of_other_kinds_is_said() -> None:
    kinds = kinds_of_actions(["purchase"])
    assert kinds[Action.buy] == RecordedKind("purchase")
    assert kinds[Action.click] == RecordedKind(
        "click", "the model was not trained on “click” and takes it as a sign of interest"
    )
    weaker = kinds_of_actions(["purchase", "view"])[Action.cart]
    assert weaker.note == "the model was not trained on “add_to_cart” and takes it as “view”"


def test_a_ledger_holds_what_is_recorded() -> None:
    ledger, visit = Ledger(), Visit("0" * 8, done=(A, B))
    assert ledger.times(visit) == []
    assert not ledger.may_continue(visit)
    assert ledger.may_continue(Visit("0" * 8))
    ledger.add(visit, [10, 20])
    assert ledger.times(visit) == [10, 20]
    assert ledger.may_continue(visit)
    assert ledger.times(replace(visit, done=(A, B, C))) == [10, 20]


def test_a_step_back_and_another_action_part_from_what_is_recorded() -> None:
    ledger, visit = Ledger(), Visit("0" * 8, done=(A, B))
    ledger.add(visit, [10, 20])
    back = replace(visit, done=(A,))
    assert ledger.times(back) == [10, 20]
    assert not ledger.may_continue(back)
    assert ledger.times(replace(visit, done=(A, C))) is None
