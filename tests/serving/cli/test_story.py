"""Parts of the demonstration: choice of users, counts, and statements about a run's metrics."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.serving import DemoConfig
from features.data.dataset import Dataset
from ranking.bundle.bundle import HISTORIES
from serving.cli.story.erasure import stored_rows
from serving.cli.story.measured import show_measured
from serving.cli.story.product import Found, add_product, buyers_of
from serving.cli.story.screens import Screen, column_rows, listed, marked, wide_enough
from serving.cli.story.server import copied_store, running_server
from serving.cli.story.shop import Shop
from serving.cli.story.shoppers import Shopper, choose, choose_shoppers, why
from serving.cli.story.without_text import IDS, KNN, _short_training, id_systems, known_until, one_query
from shelfwise_client import Client, Item, Reason, RecommendedItem
from tests.faults.changing_bundle import ChangingBundle
from tests.serving.conftest import Servers
from tests.synthetic import make_dataset

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def shop(bought: dict[str, list[str]], titles: dict[str, str] | None = None) -> Shop:
    return Shop(titles or {}, bought, NOW)


def item(item_id: str, source: str, reason: str | None) -> RecommendedItem:
    reasons = () if reason is None else (Reason(reason, "", f"because of {reason}"),)
    return RecommendedItem(item_id, item_id.upper(), "", 0.0, None, None, source, reasons, 1)


def screen() -> tuple[Screen, io.StringIO]:
    said = io.StringIO()
    return Screen(Console(file=said, width=200)), said


def test_middling_shoppers_lie_between_the_quartiles_of_different_items() -> None:
    made = shop({f"u{n}": [f"i{k}" for k in range(n)] * 2 for n in range(1, 6)})
    assert made.middling() == ["u2", "u3", "u4"]


def test_a_sample_is_the_same_every_time_and_takes_no_more_than_there_are() -> None:
    made, users = shop({}), [f"u{n:03}" for n in range(100)]
    drawn = made.sample(users, 10)
    assert drawn == made.sample(reversed(users), 10)
    assert len(set(drawn)) == 10
    assert set(drawn) <= set(users)
    assert made.sample(["b", "a"], 10) == ["a", "b"]


def test_words_of_a_query_are_counted_in_titles_as_search_compares_them() -> None:
    made = shop({}, {"1": "Boxes for tea", "2": "Tea box and tea towel", "3": "Lamp"})
    assert made.titles_with("the TEAS box, brew") == {"tea": 2, "box": 2, "brew": 0}


def test_an_item_without_title_is_called_by_its_id() -> None:
    assert shop({}, {"1": "Lamp"}).title("2") == "2"


def test_varied_lists_are_chosen_first_and_then_those_with_other_items() -> None:
    plain = Shopper("plain", (item("a", "repeat", "bought_before"), item("b", "repeat", "bought_before")))
    varied = Shopper("varied", (item("a", "repeat", "bought_before"), item("c", "popular", "popular")))
    other = Shopper("other", (item("d", "repeat", "bought_before"), item("e", "repeat", None)))
    bought = {"plain": ["a", "b"], "varied": ["a"], "other": ["d"]}
    assert [s.variety() for s in (plain, varied, other)] == [2, 4, 2]
    assert [s.new_items(shop(bought)) for s in (plain, varied, other)] == [0, 1, 1]
    chosen = choose([plain, other, varied], shop(bought), 3)
    assert [shopper.user for shopper in chosen] == ["varied", "other", "plain"]
    assert len(choose([plain], shop(bought), 3)) == 1


def test_an_item_without_reason_names_its_source() -> None:
    assert why(item("a", "popular", None)) == "(from popular)"
    assert why(item("a", "popular", "for_you")) == "because of for_you"


def test_buyers_are_counted_by_different_items() -> None:
    made = shop({"a": ["1", "1", "2"], "b": ["3"], "c": ["2", "9"]})
    assert buyers_of(made, ["1", "2"]) == {"a": 2, "c": 1}


def test_lists_with_an_item_are_counted_to_the_tenth_place_and_beyond() -> None:
    found = Found.of({"a": 11, "b": None, "c": 10, "d": 3})
    assert (found.lists, found.first_ten, found.anywhere) == (4, 2, 3)
    assert found.best == ((3, "d"), (10, "c"), (11, "a"))


def test_new_items_are_marked_and_columns_padded() -> None:
    assert [marked(i, i, {"a"}) for i in "ab"] == ["  a", "+ b"]
    assert column_rows((["a"], ["b", "c"])) == [["1", "a", "b"], ["2", "", "c"]]
    assert len(column_rows(([str(n) for n in range(50)],))) == 8
    assert listed([("bought_before", 3), ("popular", 1)]) == "bought before 3, popular 1"


def test_a_log_is_wide_enough_and_a_terminal_keeps_its_width() -> None:
    assert wide_enough(Console(file=io.StringIO(), width=80)).width == 110
    terminal = Console(file=io.StringIO(), width=80, force_terminal=True)
    assert wide_enough(terminal) is terminal


def dataset() -> Dataset:
    rows = [("a", "x", "purchase", 10), ("a", "y", "purchase", 20), ("b", "y", "purchase", 5)]
    return make_dataset([*rows, ("b", "z", "purchase", 30), ("c", "x", "purchase", 40)], ["x", "y", "z"])


def test_events_are_known_up_to_a_time() -> None:
    assert known_until(dataset(), 20).tolist() == [1, 3, 4]
    assert known_until(dataset(), 100).tolist() == [2, 4, 5]
    assert known_until(dataset(), 0).tolist() == [0, 2, 4]


def test_a_list_without_text_is_made_of_what_is_known_at_its_time(tmp_path: Path) -> None:
    data = dataset()
    end = known_until(data, 25)
    (system,) = id_systems(tmp_path, data, end, 25)  # nothing was trained on ids alone here
    assert system.name == KNN
    query = one_query(data, "a", end, 25)
    assert (query.user.tolist(), query.end.tolist(), len(query)) == ([0], [2], 1)
    rows, _ = system.recommend(data.events, query, 2, False)
    assert set(rows[0].tolist()) == {0, 1}  # x and y, which a has bought; z comes later


@pytest.mark.parametrize(("best", "cut_short"), [(3, True), (2, False)])
def test_a_training_on_ids_that_was_cut_short_is_said_to_be(
    tmp_path: Path, best: int, cut_short: bool
) -> None:
    version = "20240531T120000Z-3f2a9c41d07e"
    files = {
        "artifacts/CURRENT": f"{version}\n",
        f"artifacts/versions/{version}/config.yaml": "user_encoder: {epochs: 3}\n",
        f"artifacts/versions/{version}/manifest.json": "{}",
        f"{IDS}/epochs.json": str(best),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    said = _short_training(tmp_path)
    assert said.startswith("Ids alone were still improving when training ended after 3 epochs") is cut_short
    assert bool(said) is cut_short


def metrics() -> dict[str, Any]:
    names = {"shelfwise": 0.2, "user_tower": 0.1, KNN: 0.15, IDS: 0.05, "popularity": 0.02, "own": 0.12}
    values = {name: {"recall@10": v, "ndcg@10": v / 2} for name, v in names.items()}
    described = {name: f"about {name}" for name in names if name not in ("shelfwise", "user_tower")}
    protocol = {
        "measured": "test", "system": "shelfwise", "parts": ["user_tower"], "baselines": described,
        "queries": {"test": 1234}, "items": 5678,
    }  # fmt: skip
    tests = {name: {"recall@10": {"p_value": 0.0004 if name == KNN else 0.04}} for name in described}
    return {"protocol": protocol, "test": values, "significance": {"test": tests}}


def test_the_list_stands_beside_the_three_best_baselines() -> None:
    shown, said = screen()
    show_measured(metrics(), {"stage_one": {"before": 0.02, "validation_recall": [0.01, 0.03]}}, shown)
    text = " ".join(said.getvalue().split())
    places = [text.index(f"│ {name} ") for name in ("shelfwise", KNN, "own", IDS)]
    assert places == sorted(places)
    assert "popularity" not in text
    assert "user_tower" not in text
    assert "│ 0.1500 │ 0.0750 │ p < .001 │ about item_knn" in text
    assert "│ 0.1200 │ 0.0600 │ p = 0.040 │" in text
    assert "1,234 shoppers" in text
    assert "5,678 items" in text
    assert "best 3 of 4 baselines" in text
    assert "0.0200 of what is bought next" in text
    assert "0.0300 after (+50%" in text


@pytest.mark.parametrize(
    ("training", "says"),
    [
        ({}, "The text encoder was used as it comes."),
        (
            {"stage_one": {"before": 0.02, "validation_recall": [0.01]}},
            "gained nothing on validation (0.0200)",
        ),
        ({"stage_one": {"before": 0.02, "validation_recall": []}}, "gained nothing on validation (0.0200)"),
    ],
)
def test_fine_tuning_that_gained_nothing_is_said_so(training: dict[str, Any], says: str) -> None:
    shown, said = screen()
    show_measured(metrics(), training, shown)
    assert says in said.getvalue()


def test_rows_of_a_user_are_counted_in_the_file(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["a", "b", "a"]}).write_parquet(tmp_path / HISTORIES)
    assert (stored_rows(tmp_path, "a"), stored_rows(tmp_path, "c")) == (2, 0)


def test_what_servers_recorded_stays_out_of_the_copy_and_the_copy_goes(tmp_path: Path) -> None:
    store = tmp_path / "artifacts"
    store.mkdir()
    for name in ("CURRENT", "state.sqlite", "state.sqlite-wal"):
        (store / name).write_text("x")
    with copied_store(store) as copy:
        assert [path.name for path in copy.iterdir()] == ["CURRENT"]
        (copy / "CURRENT").write_text("y")
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]
    assert (store / "CURRENT").read_text() == "x"


def test_a_server_that_does_not_come_up_is_one_line(tmp_path: Path) -> None:
    said = io.StringIO()
    with (
        pytest.raises(InputError, match=r"the server did not start \(exit code 2\)"),
        running_server(tmp_path / "nowhere", Console(file=said)),
    ):
        raise AssertionError("it runs")


def test_queries_have_no_targets() -> None:
    query = one_query(dataset(), "b", np.array([2, 4, 5]), 7)
    assert query.targets.size == 0
    assert query.target_offsets.tolist() == [0, 0]
    assert query.time.tolist() == [7]


def test_named_shoppers_are_shown_in_their_order(servers: Servers) -> None:
    server = servers.start()
    bought = {f"u{n}": [f"i{n}"] for n in range(1, 9)}
    with Client(server.address, timeout=20) as client:
        chosen = choose_shoppers(client, shop(bought), DemoConfig(users=["u7", "u2"], k=3))
    assert chosen.users == ["u7", "u2"]
    assert chosen.among == ()
    assert [len(shopper.items) for shopper in chosen.shown] == [3, 3]


def test_a_product_is_added_once_and_only_where_the_server_takes_it(servers: Servers) -> None:
    model = ChangingBundle()
    server = servers.start(model, live=model)
    with Client(server.address, timeout=20) as client:
        product = Item("new", {"title": "Lamp"})
        assert add_product(client, product) > 0
        assert client.get_item("new").attributes == {"title": "Lamp"}
        with pytest.raises(InputError, match="product_id: the catalogue has 'new' already; name another"):
            add_product(client, product)
        for title in ({"en": "Lamp"}, ["Lamp", 1]):  # refused by the client, and by the server
            with pytest.raises(InputError, match="^product: .*title") as caught:
                add_product(client, Item("other", {"title": title}))
            assert "\n" not in str(caught.value)
