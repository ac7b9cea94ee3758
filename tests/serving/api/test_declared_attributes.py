"""DeclareAttributes: filters and caps on attributes that the model lacks, durably and on every server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Catalogue, Dataset
from ranking.live.updates import LiveItems
from shelfwise_client import Boost, Client, Item, ItemUpdate, ListRules, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.bundles import make_bundle
from tests.serving.backends import Backend
from tests.serving.conftest import Harness, Servers
from tests.serving.state.test_replicas import Replicas, replicas  # noqa: F401 - a fixture

BOOTS = "trail boots summit ridge"
SHOP = {"in_stock": "bool", "launch": "time", "margin": "number", "shelf": "string", "labels": "list"}


@pytest.fixture
def live(dataset: Dataset, encoder: TextEncoder) -> LiveItems:
    return LiveItems(make_bundle(dataset, encoder), 100)


@pytest.fixture
def shop(servers: Servers, live: LiveItems, backend: Backend) -> Harness:
    return servers.start(live=live, state=backend.state)


def names(client: Client, filter_: str, **query: Any) -> list[str]:
    asked = RecommendQuery(page_size=500, filter=filter_, **query)
    return [item.item_id for item in client.recommend(asked).items]


def refused(call: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call()
    return caught.value


def stock(client: Client) -> None:
    """Set attributes of five items that the model does not have."""
    result = client.update_items(
        [
            ItemUpdate("i1", {"in_stock": True, "launch": "2024-05-31", "margin": 3, "shelf": "A"}),
            ItemUpdate("i2", {"in_stock": True, "launch": "2024-06-02T10:00:00+02:00", "shelf": "A"}),
            ItemUpdate("i3", {"in_stock": False, "labels": ["sale", "new"]}),
            ItemUpdate("n1", {"title": BOOTS, "in_stock": True, "shelf": "B"}, allow_missing=True),
            ItemUpdate("i4", {"in_stock": True, "shelf": "A"}),
        ]
    )
    assert (result.updated_count, result.rejects) == (5, ())


def expect_stock(client: Client) -> None:
    assert set(names(client, "in_stock")) == {"i1", "i2", "i4", "n1"}
    assert set(names(client, "NOT in_stock")) == {"i3"}  # the others have no value
    assert names(client, 'in_stock AND launch < "2024-06-01"') == ["i1"]
    assert names(client, 'launch = "2024-06-02T08:00:00"') == ["i2"]
    assert names(client, "margin > 2.5") == ["i1"]
    assert names(client, 'labels:"sale" AND NOT in_stock') == ["i3"]
    assert set(names(client, 'shelf = "A" OR price < 0')) == {"i1", "i2", "i4"}
    capped = names(client, "in_stock", rules=ListRules({"shelf": 1}, boosts=(Boost('shelf = "B"', 1.0),)))
    assert capped[0] == "n1"
    assert len(capped) == 2
    assert capped[1] in {"i1", "i2", "i4"}
    assert client.get_item("i2").attributes["launch"] == "2024-06-02T08:00:00Z"
    assert client.get_item("i3").attributes["labels"] == ["sale", "new"]
    assert {i.item_id for i in client.list_items(500, filter='shelf = "B"').items} == {"n1"}


def test_declared_attributes_are_filtered_and_capped_by_without_a_new_model(shop: Harness) -> None:
    with Client(shop.address) as client:
        unknown = client.update_items([ItemUpdate("i1", {"in_stock": True})]).rejects[0]
        assert unknown.reason == "ITEM_ATTRIBUTES"
        assert "unknown attribute 'in_stock'" in unknown.message
        assert refused(lambda: names(client, "in_stock")).reason == "FILTER_INVALID"
        model_only = client.status()
        assert client.declare_attributes(SHOP).declared_count == 5
        assert client.declare_attributes(SHOP).declared_count == 0
        status = client.status()
        assert status.attributes == {**model_only.attributes, **SHOP}
        assert set(status.declared_attributes) == set(SHOP)
        assert model_only.declared_attributes == ()
        assert names(client, "in_stock") == []
        stock(client)
        expect_stock(client)
        client.upsert_items([Item("i1", {"title": BOOTS})])  # as a whole, without them
        assert names(client, "margin > 0") == []


def test_values_changed_before_and_after_a_declaration_stand_side_by_side(shop: Harness) -> None:
    with Client(shop.address) as client:
        client.update_item(ItemUpdate("i1", {"price": 4000.0}))
        client.declare_attributes({"in_stock": "bool"})
        client.update_item(ItemUpdate("i2", {"in_stock": True}))
        client.declare_attributes({"shelf": "string"})
        client.update_item(ItemUpdate("i1", {"in_stock": True, "shelf": "A"}))
        assert set(names(client, "in_stock")) == {"i1", "i2"}
        assert names(client, 'in_stock AND shelf = "A" AND price = 4000') == ["i1"]
        assert client.get_item("i5").attributes.keys() <= {"title", "brand", "price"}


def test_they_outlive_a_restart(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder
) -> None:
    first = servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), state=backend.state)
    with Client(first.address) as client:
        client.declare_attributes(SHOP)
        stock(client)
    servers.stop(first)
    second = servers.start(
        live=LiveItems(make_bundle(dataset, encoder, version="v2"), 100), state=backend.state
    )
    with Client(second.address) as client:
        assert set(client.status().declared_attributes) == set(SHOP)
        expect_stock(client)


def test_another_server_knows_them_in_its_next_answer(replicas: Replicas) -> None:  # noqa: F811
    replicas.a.declare_attributes(SHOP)
    stock(replicas.b)
    expect_stock(replicas.a)
    assert set(replicas.b.status().declared_attributes) == set(SHOP)
    error = refused(lambda: replicas.b.declare_attributes({"margin": "string"}))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ATTRIBUTE_TYPE")
    assert [v.field for v in error.violations] == ["attributes[0].type"]
    assert "'margin' is NUMBER already" in error.message


def test_a_type_of_the_model_cannot_be_declared_otherwise(shop: Harness) -> None:
    with Client(shop.address) as client:
        error = refused(lambda: client.declare_attributes({"in_stock": "bool", "price": "string"}))
        assert (error.reason, [v.field for v in error.violations]) == (
            "ATTRIBUTE_TYPE", ["attributes[1].type"],
        )  # fmt: skip
        assert "in_stock" not in client.status().attributes  # all or nothing
        assert client.declare_attributes({"price": "number"}).declared_count == 1
        assert client.status().declared_attributes == ()  # the model has it


def test_the_type_of_a_model_that_knows_an_attribute_wins(
    servers: Servers,
    backend: Backend,
    dataset: Dataset,
    encoder: TextEncoder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    without = make_dataset_without_price(dataset)
    first = servers.start(live=LiveItems(make_bundle(without, encoder), 100), state=backend.state)
    with Client(first.address) as client:
        client.declare_attributes({"price": "string"})
        client.update_item(ItemUpdate("i1", {"price": "on request"}))
        assert names(client, 'price:"request"') == ["i1"]
    servers.stop(first)
    assert "declared" not in caplog.text
    second = servers.start(
        live=LiveItems(make_bundle(dataset, encoder, version="v2"), 100), state=backend.state
    )
    line = "attribute 'price' was declared as string; model v2 has it as number, which counts"
    assert caplog.text.count(line) == 1
    with Client(second.address) as client:
        status = client.status()
        assert (status.attributes["price"], status.declared_attributes) == ("number", ())
        price = dataset.catalogue.frame["price"][dataset.catalogue.ids.index("i1")]
        assert client.get_item("i1").attributes["price"] == price  # what does not fit changes nothing
        assert client.update_item(ItemUpdate("i1", {"price": 4000})).attributes["price"] == 4000.0


def make_dataset_without_price(dataset: Dataset) -> Dataset:
    return Dataset(**{**vars(dataset), "catalogue": Catalogue(dataset.catalogue.frame.drop("price"))})


@pytest.mark.parametrize(
    ("name", "kind", "field"),
    [
        ("", pb.Attribute.BOOL, "attributes[0].name"),
        ("x" * 65, pb.Attribute.BOOL, "attributes[0].name"),
        ("a`b", pb.Attribute.BOOL, "attributes[0].name"),
        ("a\nb", pb.Attribute.BOOL, "attributes[0].name"),
        (" a", pb.Attribute.BOOL, "attributes[0].name"),
        ("*", pb.Attribute.BOOL, "attributes[0].name"),
        ("^.*$", pb.Attribute.BOOL, "attributes[0].name"),
        ("item_id", pb.Attribute.STRING, "attributes[0].name"),
        ("item_text", pb.Attribute.STRING, "attributes[0].name"),
        ("a", pb.Attribute.TYPE_UNSPECIFIED, "attributes[0].type"),
        ("a", 17, "attributes[0].type"),
    ],
)
def test_what_cannot_be_declared_is_named(server: Harness, name: str, kind: Any, field: str) -> None:
    row = pb.AttributeDeclaration(name=name, type=kind)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.DeclareAttributes(pb.DeclareAttributesRequest(attributes=[row]), timeout=10)
    error = ServiceError.of(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == [field]


def test_there_are_not_too_many_and_one_at_least(shop: Harness) -> None:
    with Client(shop.address) as client:
        assert [v.field for v in refused(lambda: client.declare_attributes({})).violations] == ["attributes"]
        assert client.declare_attributes({"x": "bool"}, validate_only=True).declared_count == 1
        many = {f"a{n}": "bool" for n in range(200)}
        assert client.declare_attributes(many).declared_count == 200
        assert "at most 200" in refused(lambda: client.declare_attributes({"x": "bool"})).message
        assert client.declare_attributes({"a7": "bool"}).declared_count == 0


def test_names_that_are_no_words_go_between_backticks(shop: Harness) -> None:
    with Client(shop.address) as client:
        client.declare_attributes({"Lager Köln": "number"})
        client.update_item(ItemUpdate("i1", {"Lager Köln": 3}))
        assert names(client, "`Lager Köln` >= 3") == ["i1"]


def test_defaults_of_a_surface_may_name_them(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder, tmp_path: Path
) -> None:
    first = servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), state=backend.state)
    with Client(first.address) as client:
        client.declare_attributes(SHOP)
        stock(client)
    servers.stop(first)
    file = tmp_path / "surfaces.yaml"
    file.write_text(
        "home: {rules: {caps: [{attribute: shelf, max_items: 1}], "
        "boosts: [{filter: 'in_stock', strength: 1}]}}"
    )
    second = servers.start(
        live=LiveItems(make_bundle(dataset, encoder), 100), state=backend.state, surfaces=str(file)
    )
    with Client(second.address) as client:
        assert len(names(client, "in_stock", surface="home")) == 2
