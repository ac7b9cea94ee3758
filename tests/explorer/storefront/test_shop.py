"""The shop against a real server, which the storefront starts by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from explorer.storefront.shop import FOR_YOU, Entry, Shop, ShopError, compared
from explorer.storefront.shop_server import Phase, ShopServer
from explorer.storefront.visit import STEP, Action, Ledger, ShopAddress, Visit, kinds_of_actions
from ranking.bundle.bundle import load_bundle
from shelfwise_client import Client, RecommendedItem, SessionEvent
from tests.explorer.storefront.test_guard import until
from tests.processes import children, runs


@pytest.fixture
def client(server: ShopServer) -> Iterator[Client]:
    server.start()
    server.restart()
    state = server.wait(120)
    assert state.phase is Phase.running, state
    with Client(state.address, timeout=30) as client:
        yield client


@pytest.fixture
def shop(client: Client, artifacts: Path) -> Shop:
    known = client.status().event_kinds
    start = int(client.status().model_data_time.timestamp()) + 1
    return Shop(client, Ledger(), kinds_of_actions(known), start=start)


def _ids(shop: Shop, visit: Visit) -> list[str]:
    return [entry.item.item_id for entry in shop.for_you(ShopAddress(visit)).entries]


def _settled(shop: Shop, visit: Visit) -> list[str]:
    """The list once the model has counted what was recorded: the same one twice, half a second apart."""
    found: list[list[str]] = [[]]

    def same() -> bool:
        time.sleep(0.5)
        found.append(_ids(shop, visit))
        return found[-1] == found[-2]

    until(same)
    return found[-1]


def _hike(shop: Shop, visit: Visit, count: int = 3) -> Visit:
    """Click items of one topic: every sixth item of the synthetic shop."""
    for number in range(count):
        visit = shop.act(visit, Action.click, f"i{6 * number}")
    return visit


def test_the_store_is_only_read(artifacts: Path, client: Client) -> None:
    assert not (artifacts / "state.sqlite").exists()
    assert client.status().event_count > 0


def test_an_action_is_recorded_and_changes_the_list_at_once(shop: Shop, client: Client) -> None:
    before = client.status().event_count
    empty = Visit.new()
    first = shop.for_you(ShopAddress(empty))
    assert first.degradation == "popularity"
    assert first.changed == 0
    assert len(first.entries) == FOR_YOU
    visit = _hike(shop, empty)
    visit = shop.act(visit, Action.buy, "i18")
    assert client.status().event_count == before + 4
    assert shop.recorded(visit)
    made = shop.for_you(ShopAddress(visit))
    assert made.degradation == "none"
    assert [entry.item.item_id for entry in made.entries] != [entry.item.item_id for entry in first.entries]
    assert any(entry.item.reasons for entry in made.entries)
    assert all(int(entry.item.item_id[1:]) % 6 == 0 for entry in made.entries[:3])


def test_what_changed_is_marked_against_the_list_before_the_action(shop: Shop) -> None:
    visit = _hike(shop, Visit.new(), 2)
    after = shop.act(visit, Action.cart, "i30")
    before = _settled(shop, visit)
    made = shop.for_you(ShopAddress(after))
    now = [entry.item.item_id for entry in made.entries]
    assert now != before
    for place, entry in enumerate(made.entries, start=1):
        name = entry.item.item_id
        assert (entry.change == "new") == (name not in before)
        if name in before:
            assert entry.before == before.index(name) + 1
            assert entry.by == abs(entry.before - place)
    assert {item.item_id for item in made.left} == set(before) - set(now)


def test_the_same_address_shows_the_same_list_in_another_explorer(shop: Shop, client: Client) -> None:
    visit = _hike(shop, Visit.new())
    count = client.status().event_count
    other = replace(shop, ledger=Ledger())
    assert not other.recorded(visit)
    assert _ids(other, visit) == _ids(shop, visit)
    assert client.status().event_count == count


def test_a_step_back_shows_the_list_of_then(shop: Shop) -> None:
    one = _hike(shop, Visit.new(), 1)
    then = _settled(shop, one)
    visit = shop.act(one, Action.buy, "i6")
    back = _ids(shop, one)  # the purchase is demand, which may move an item of anyone's list
    assert back[:5] == then[:5]
    assert len(set(back) & set(then)) >= len(then) - 1
    assert _ids(shop, visit) != back
    other = shop.act(one, Action.buy, "i12")
    assert other.id != visit.id
    assert [done.item_id for done in other.done] == ["i0", "i12"]
    assert shop.recorded(visit)
    assert shop.recorded(other)
    assert _ids(shop, other) == _ids(replace(shop, ledger=Ledger()), other)


def test_an_action_that_is_sent_twice_is_stored_once(shop: Shop, client: Client) -> None:
    visit = shop.act(Visit.new(), Action.click, "i0")
    count = client.status().event_count
    again = replace(shop, ledger=Ledger()).act(replace(visit, done=()), Action.click, "i0")
    assert again == visit
    assert client.status().event_count == count


def test_without_writing_nothing_is_recorded_and_the_list_changes(shop: Shop, client: Client) -> None:
    reader = replace(shop, writes=False)
    count = client.status().event_count
    visit = _hike(reader, Visit.new())
    assert client.status().event_count == count
    assert not reader.recorded(visit)
    assert _ids(reader, visit) == _ids(replace(shop, ledger=Ledger()), visit)
    assert _ids(reader, visit) != _ids(reader, Visit.new())


def test_a_copied_shopper_has_the_history_and_stays_unchanged(shop: Shop, client: Client) -> None:
    assert shop.start is not None
    past = [
        SessionEvent(f"i{1 + 6 * n}", "purchase", datetime.fromtimestamp(shop.start - 100 + n, UTC))
        for n in range(4)
    ]
    copying = replace(shop, history=lambda user: past if user == "u1" else ())
    visit = Visit.new("u1")
    first = _ids(copying, visit)
    assert first != _ids(copying, Visit.new())
    count = client.status().user_count
    after = copying.act(visit, Action.click, "i25")
    assert client.status().user_count == count + 1
    assert _ids(copying, after) == _ids(replace(copying, ledger=Ledger()), after)


def test_a_shopper_without_a_copy_is_asked_for_by_id(shop: Shop) -> None:
    asked = shop._context(Visit.new("u1"), 0)
    assert asked == ("u1", (), [])


def test_at_a_live_shop_events_have_the_time_of_now(shop: Shop, client: Client) -> None:
    live = replace(shop, start=None, ledger=Ledger())
    visit = _hike(live, Visit.new())
    times = live.ledger.times(visit)
    assert times is not None
    assert all(later > earlier for earlier, later in zip(times, times[1:], strict=False))
    assert abs(times[0] - datetime.now(UTC).timestamp()) < 60
    assert shop.ledger.times(visit) == []
    made = live.for_you(ShopAddress(visit))
    assert made.degradation == "none"
    assert [e.item.item_id for e in made.entries] != _ids(live, Visit.new())


def test_the_clock_of_an_archived_shop_stands_at_the_end_of_its_data(shop: Shop) -> None:
    visit = _hike(shop, Visit.new(), 2)
    assert shop.start is not None
    assert shop.ledger.times(visit) == [shop.start + STEP, shop.start + 2 * STEP]


def test_an_action_that_the_server_refuses_is_an_error(shop: Shop) -> None:
    with pytest.raises(ShopError, match="item_id 'nothing' is not in the catalogue"):
        shop.act(Visit.new(), Action.click, "nothing")


def test_shelf_search_and_similar_items(shop: Shop, artifacts: Path) -> None:
    shelf = shop.shelf("price < 25")
    assert shelf.items
    catalogue = load_bundle(artifacts).catalogue
    prices = dict(zip(catalogue.ids, catalogue.frame["price"].to_list(), strict=True))
    assert all(prices[item.item_id] < 25 for item in shelf.items)
    assert len({item.item_id for item in shelf.items}) == len(shelf.items)
    found = shop.search(ShopAddress(_hike(shop, Visit.new(), 1), query=catalogue.texts[7]))
    assert found.items[0].item_id == catalogue.ids[7]
    similar = shop.similar("i0")
    assert len(similar) == 8
    assert "i0" not in [item.item_id for item in similar]


def test_after_a_crash_the_log_is_shown_and_a_restart_keeps_what_was_recorded(
    server: ShopServer, shop: Shop, client: Client
) -> None:
    visit = _hike(shop, Visit.new())
    count = client.status().event_count
    assert server._process is not None
    [child] = children(server._process.pid)
    os.kill(child, signal.SIGKILL)
    until(lambda: server.state().phase is Phase.failed)
    state = server.state()
    assert state.message == "it ended with exit code 9"
    assert any("listening on" in line for line in state.log)
    assert server.start().phase is Phase.failed
    server.restart()
    state = server.wait(120)
    assert state.phase is Phase.running
    with Client(state.address, timeout=30) as again:
        assert again.status().event_count == count
        recovered = replace(shop, client=again)
        assert recovered.for_you(ShopAddress(visit)).degradation == "none"
        assert _ids(recovered, visit) == _ids(replace(recovered, ledger=Ledger()), visit)


def test_a_store_without_a_bundle_says_why_it_cannot_be_served(tmp_path: Path) -> None:
    server = ShopServer(tmp_path)
    assert server.state().phase is Phase.stopped
    server.start()
    state = server.wait(120)
    assert state.phase is Phase.failed
    assert "no model to serve" in " ".join(state.log)
    assert server.starts == 1
    server.close()
    assert server.state().phase is Phase.stopped


def test_closing_ends_the_server_and_removes_its_folder(artifacts: Path) -> None:
    server = ShopServer(artifacts)
    server.start()
    assert server._process is not None
    assert server._folder is not None
    folder, guard = server._folder, server._process.pid
    until(lambda: bool(children(guard)))
    [child] = children(guard)
    server.close()
    assert not runs(child)
    assert not runs(guard)
    assert not folder.exists()


def _item(name: str, place: int) -> RecommendedItem:
    return RecommendedItem(name, name, "", 0.0, None, None, "popular", (), place)


def test_changes_of_a_list() -> None:
    before = [_item(name, place) for place, name in enumerate("abcd", start=1)]
    after = [_item(name, place) for place, name in enumerate("daxc", start=1)]
    entries, left = compared(after, before)
    assert [(entry.item.item_id, entry.change, entry.before) for entry in entries] == [
        ("d", "up", 4), ("a", "down", 1), ("x", "new", None), ("c", "down", 3),
    ]  # fmt: skip
    assert [entry.by for entry in entries] == [3, 1, 0, 1]
    assert [item.item_id for item in left] == ["b"]
    assert compared(before, before)[0][0].change == "same"
    assert compared(after[:1], None) == ((Entry(after[0], None, ""),), ())
