"""Metrics, as Prometheus scrapes them from a real server."""

from __future__ import annotations

import re
import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conf.errors import InputError
from conf.serving import MetricsConfig
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.live.updates import LiveItems
from serving.core.call_context import CallRecord
from serving.observability.metrics import Metrics
from shelfwise_client import Client, Event, Item, ItemUpdate, RecommendQuery, ServiceError
from tests.bundles import make_bundle
from tests.faults.changing_bundle import ChangingBundle
from tests.serving.conftest import Servers, until


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_changed_items_are_counted(servers: Servers) -> None:
    port, model = free_port(), ChangingBundle()
    server = servers.start(model, live=model, metrics=MetricsConfig(port=port))
    with Client(server.address) as client:
        client.upsert_items([Item("n1", {"title": "New"}), Item("", {}), Item("n2", {"title": "Newer"})])
        client.update_item(ItemUpdate("i1", {"price": 2.0}))
        client.update_items([ItemUpdate("i1", {"price": 3.0}), ItemUpdate("?", {"price": 3.0})])
        with pytest.raises(ServiceError):
            client.update_item(ItemUpdate("?", {"price": 2.0}))
        client.delete_items(["i2", "?"])
    outcomes = ("upserted_items", "updated_items", "deleted_items", "rejected_items")
    until(lambda: ("shelfwise_items_total", frozenset({("outcome", "deleted_items")})) in scrape(port))
    found = Scrape(port)
    assert [found("items_total", outcome=outcome) for outcome in outcomes] == [2, 2, 1, 3]


class Scrape:
    def __init__(self, port: int) -> None:
        self.samples = scrape(port)

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[f"shelfwise_{name}", frozenset(labels.items())]


def test_calls_stages_lists_and_queues_are_counted(servers: Servers) -> None:
    port = free_port()
    server = servers.start(metrics=MetricsConfig(port=port))
    with Client(server.address) as client:
        client.recommend(RecommendQuery(user_id="u", filter="price < 20"))
        client.record_events([Event("u", "i7", "click"), Event("u", "nope", "click")])
        client.recommend(RecommendQuery(user_id="u", filter="price < 20"))
        with pytest.raises(ServiceError):
            client.recommend(RecommendQuery(filter="price <"))
        client.recommend(RecommendQuery(filter="price < 21"))
        until(lambda: Scrape(port)("events_counted") == 1)
    found = Scrape(port)
    assert found("call_seconds_count", method="Recommend", code="OK") == 3
    assert found("call_seconds_count", method="Recommend", code="INVALID_ARGUMENT") == 1
    assert found("call_seconds_bucket", method="Recommend", code="OK", le="+Inf") == 3
    assert found("stage_seconds_count", method="Recommend", stage="history") == 4
    assert found("stage_seconds_count", method="Recommend", stage="queue") == 3
    assert found("stage_seconds_count", method="RecordEvents", stage="store") == 1
    assert found("filter_masks_total", result="hit") == 1
    assert found("filter_masks_total", result="miss") == 3
    assert found("lists_total", method="Recommend", degradation="popularity") == 2
    assert found("lists_total", method="Recommend", degradation="none") == 1
    assert found("events_total", outcome="new_events") == 1
    assert found("events_total", outcome="rejected_events") == 1
    assert found("event_stored_seconds_count") == 1
    assert found("queue_length", queue="model") == 0
    # three lists, two to warm up, and an event to count
    assert found("queue_wait_seconds_count", queue="model") == 6
    assert found("batch_size_sum", queue="model") == 6
    assert found("events_of_unknown_items") == 0
    assert 0 <= found("events_behind_seconds") < 10
    assert found("batch_seconds_count", queue="filters") == 3
    assert found("calls_in_flight") == 0
    assert found("index_items") == 30
    assert found("model_info", version="v1", device="cpu") == 1
    assert found("model_data_timestamp_seconds") == 1_700_000_000
    assert found("reload_failed") == 0


def test_item_changes_and_the_stages_of_a_real_model(
    servers: Servers, dataset: Dataset, encoder: TextEncoder
) -> None:
    port = free_port()
    live = LiveItems(make_bundle(dataset, encoder), room=10)
    server = servers.start(live=live, metrics=MetricsConfig(port=port))
    with Client(server.address) as client:
        before = Scrape(port)("index_items")
        client.upsert_items([Item("new", {"title": "Rubber boots"})])
        client.delete_items([dataset.catalogue.ids[0], dataset.catalogue.ids[1]])
        client.recommend(RecommendQuery(user_id="u"))
    found = Scrape(port)
    assert found("index_items") == before - 1
    assert found("item_changes_applied") == 3
    assert found("item_changes_pending") == 0
    assert found("item_applied_seconds_count") == 2
    for name in ("limits", "user_encoding", "candidates", "rerank", "explain"):
        assert found("stage_seconds_count", method="Recommend", stage=name) == 1


def test_labels_hold_no_users_and_no_words(servers: Servers) -> None:
    port = free_port()
    server = servers.start(metrics=MetricsConfig(port=port))
    with Client(server.address) as client:
        client.recommend(RecommendQuery(user_id="alice", intent="blue shoes", surface="cart"))
    assert not re.search("alice|blue|cart", repr(scrape(port)))


def test_a_taken_port_is_named(servers: Servers) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"metrics.port: cannot listen on 127.0.0.1:{port}"):
            servers.start(metrics=MetricsConfig(port=port))


def test_a_call_that_outlives_its_arm_brings_no_series_back() -> None:
    metrics = Metrics()
    metrics.keep_arms({("ranking", "new")})
    record = CallRecord("Recommend", "r", code="OK", arms=(("ranking", "new"),))
    metrics.call(record)
    metrics.arm_list("ranking", "new", fallback=True)

    def series() -> set[str]:
        families = [
            family for family in metrics.registry.collect() if family.name.startswith("shelfwise_arm_")
        ]
        return {family.name for family in families if family.samples}

    assert series() == {f"shelfwise_arm_{name}" for name in ("call_seconds", "lists", "fallbacks")}
    metrics.keep_arms(())
    metrics.call(record)
    metrics.arm_list("ranking", "new", fallback=True)
    assert series() == set()
