"""The rules view on a finished run: form, lists, cost on validation, and the file for a server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from conf.composition.compose import read_config
from conf.errors import InputError
from conf.schema import PipelineConfig
from encoders.training.train import try_split
from explorer.app import create_app
from explorer.context import ExplorerContext
from explorer.loading import BundleLoader
from explorer.model import LoadedModel, load_model
from explorer.registry import VIEWS
from explorer.rules import validation as module
from explorer.rules.rule_set import bundle_rules, matches, read_rules
from explorer.rules.validation import Validation, ValidationLoader, load_validation
from explorer.views import rules as view
from features.data.dataset import load_dataset
from features.data.splits import exclude_seen
from ranking.bundle.bundle import CONFIG
from ranking.bundle.store import VERSIONS, current_version
from ranking.evaluation.offline import offline_system
from serving.api.surfaces import Surfaces, read_surfaces

LOADER = ValidationLoader()
BOOST = {"boost_filter": "brand:*", "boost_strength": "0.5"}


@pytest.fixture(scope="module")
def store(trained: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("rules") / "work"
    shutil.copytree(trained.work_dir, work)
    return work / "artifacts"


@pytest.fixture(scope="module")
def model(store: Path) -> LoadedModel:
    return load_model(store, current_version(store), torch.device("cpu"))


@pytest.fixture(scope="module")
def found(store: Path, model: LoadedModel) -> Validation:
    return load_validation(store, model, torch.device("cpu"))


@pytest.fixture
def client(store: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(view, "VALIDATION", LOADER)
    loader = BundleLoader(lambda: model.version, lambda version: model, patience=60)
    views = tuple(v for v in VIEWS if v.name in ("start", "rules"))
    app = create_app(ExplorerContext(store=store, loader=loader), views=views)
    with TestClient(app, base_url="http://127.0.0.1:8321") as made:
        get(made, "/rules")
        yield made


def get(client: TestClient, path: str, status: int = 200) -> str:
    for _ in range(600):
        answer = client.get(path)
        if answer.status_code != 202:
            assert answer.status_code == status, answer.text
            return str(answer.text)
    raise AssertionError(path)


def test_settings_of_a_bundle_are_read_back(trained: PipelineConfig, store: Path, model: LoadedModel) -> None:
    path = store / VERSIONS / model.version / CONFIG
    assert read_config(PipelineConfig, path, work_dir=trained.work_dir) == trained
    with pytest.raises(InputError, match="cannot be read"):
        read_config(PipelineConfig, path.with_name("none.yaml"))


def test_without_rules_the_lists_are_those_of_evaluation(
    trained: PipelineConfig, found: Validation, model: LoadedModel
) -> None:
    dataset = load_dataset(Path(trained.work_dir) / "dataset")
    split = try_split(trained, dataset)
    assert split is not None
    assert found.of == len(split.valid) == len(found.queries), "a small shop: all of them"
    exclude = exclude_seen(dataset, split, trained.evaluation.exclude_seen)
    system = offline_system(found.recommender, dataset.events, exclude)
    assert np.array_equal(found.lists(model, bundle_rules(model)), system(found.queries).items[:, :10])
    cut = split.train_end - dataset.events.offsets[:-1]
    assert found.counts.sum() == cut.sum(), "no event of the validation window is counted"


def test_a_pin_and_a_cap_hold_in_every_list(found: Validation, model: LoadedModel) -> None:
    values = {"pin_item": ["i7"], "pin_position": ["2"], "cap_attribute": ["brand"], "cap_max": ["1"]}
    items = found.lists(model, read_rules(values, model))
    assert (items[:, 1] == 7).all()
    brands = model.bundle.catalogue.frame["brand"].to_list()
    for rows in items:
        own = [brands[row] for row in rows if row >= 0]
        assert len(own) == len(set(own)) > 1
    costs = {c.name: c for c in found.price(model, bundle_rules(model), read_rules(values, model))}
    assert costs["coverage@10"].before > costs["coverage@10"].after
    assert costs["recall@10"].difference is not None
    assert costs["recall@10"].difference < 0


def test_the_form_sets_only_what_differs_from_the_bundle(model: LoadedModel) -> None:
    own = bundle_rules(model)
    assert own.empty
    assert read_rules(
        {"diversity": [f"{own.diversity:g}"], "novelty": [""], "exploration": ["0"]}, model
    ).empty
    rules = read_rules(
        {"diversity": ["0.25"], "boost_filter": ["", "price < 10"], "boost_strength": ["1", "-0.5"]}, model
    )
    assert rules.fields() == {
        "diversity": 0.25, "rules": {"boosts": [{"filter": "price < 10", "strength": -0.5}]}
    }  # fmt: skip
    cheap = int((model.bundle.catalogue.frame["price"] < 10).sum())
    assert matches(rules) == [("price < 10", cheap)]
    assert json.loads(rules.request_fields()) == rules.fields()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"boost_filter": "prise < 3", "boost_strength": "0.1"}, "boosts[0].filter: column 1: unknown"),
        ({"boost_filter": "price < 3", "boost_strength": "2"}, "boosts[0].strength: 2 is not between -1"),
        ({"boost_filter": "price < 3", "boost_strength": "x"}, "boosts[0].strength: “x” is not a number"),
        ({"cap_attribute": "smell", "cap_max": "1"}, "rules.caps[0].attribute: unknown attribute"),
        ({"cap_attribute": "brand", "cap_max": ""}, "rules.caps[0].max_items: “” is not a whole number"),
        ({"pin_item": "i1", "pin_position": "0"}, "rules.pins[0].position: 0 is not between 1 and 2,000"),
        ({"exploration": "1.5"}, "rules.exploration.share: 1.5 is not above 0 and at most 1"),
        ({"diversity": "nan"}, "diversity: "),
    ],
)  # fmt: skip
def test_an_error_has_the_words_of_a_server_and_the_form_keeps_what_was_typed(
    client: TestClient, values: dict[str, str], message: str
) -> None:
    text = get(client, f"/rules?{urlencode(values)}", 400)
    alert = re.search(r'role="alert">(.*?)</p>', text)
    assert alert is not None
    assert message in alert.group(1).replace("&#34;", '"').replace("&#39;", "'").replace("&lt;", "<")
    assert "Before" in text
    assert get(client, f"/rules/cost?{urlencode(values)}", 400)


def test_lists_before_and_after_for_some_shoppers(client: TestClient, model: LoadedModel) -> None:
    text = get(client, "/rules?user=u1&pin_item=i7&pin_position=1&pin_item=gone&pin_position=2")
    assert "Shopper u1" in text
    assert "A visitor without events" in text
    assert "so not pinned: gone" in text
    tables = text.split("<h4")
    assert len(tables) - 1 == 2 * len(re.findall('class="example"', text))
    for after in tables[2::2]:
        assert model.items.title(7) in after.partition("</li>")[0], "at the first place"
        assert '<span class="tag">pinned</span>' in after.partition("</li>")[0]
    assert get(client, "/rules?user=nobody", 404)


def test_the_cost_is_a_part_of_the_page_and_a_page(client: TestClient) -> None:
    query = urlencode({"diversity": "0.5", **BOOST})
    assert f'hx-get="/rules/cost?{query.replace("&", "&amp;")}"' in get(client, f"/rules?{query}")
    assert 'hx-trigger="load delay:2s"' in get(client, f"/rules/cost?{query}")
    LOADER.wait()
    page = get(client, f"/rules/cost?{query}")
    assert "<h1>What rules cost</h1>" in page
    part = client.get(f"/rules/cost?{query}", headers={"HX-Request": "true"}).text
    assert "<html" not in part
    for name in ("Recall@10", "ndcg@10", "Popularity lift", "New items", "Coverage"):
        assert name in part
    assert re.search(r"\d+ of \d+ validation queries", part)


def test_a_store_without_its_run_says_why_there_is_no_recall(
    store: Path, model: LoadedModel, tmp_path: Path
) -> None:
    alone = tmp_path / "artifacts"
    shutil.copytree(store, alone)
    loader = ValidationLoader()
    loader.of(alone, model)
    loader.wait()
    found, failed = loader.of(alone, model)
    assert found is None
    assert "no dataset.json here" in failed
    shutil.copytree(store.parent / "dataset", tmp_path / "dataset")
    facts = tmp_path / "dataset" / "dataset.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "content_hash": "other"}))
    with pytest.raises(InputError, match="is not the data that this bundle was made from"):
        module.load_validation(alone, model, torch.device("cpu"))


def test_a_server_reads_the_file(client: TestClient, model: LoadedModel, tmp_path: Path) -> None:
    query = urlencode(
        {
            "novelty": "0.05",
            "exploration": "0.1",
            "cap_attribute": "brand",
            "cap_max": "2",
            "surface": "cart",
            **BOOST,
        }
    )
    file = tmp_path / "surfaces.yaml"
    file.write_text(get(client, f"/rules/surfaces.yaml?{query}"))
    entry = read_surfaces(file)["cart"]
    assert entry.novelty == pytest.approx(0.05)
    assert entry.rules.exploration.share == pytest.approx(0.1)
    assert [(cap.attribute, cap.max_items) for cap in entry.rules.caps] == [("brand", 2)]
    columns: Any = SimpleNamespace(
        catalogue=SimpleNamespace(filtered=lambda _: model.bundle.catalogue.frame.schema)
    )
    checked = Surfaces.__new__(Surfaces)
    checked._path, checked.defaults = file, {"cart": entry}
    checked.check(cast(Any, columns))


def test_every_list_explores_by_a_seed_of_its_own_and_the_same_each_time(
    found: Validation, model: LoadedModel
) -> None:
    rules = read_rules({"exploration": ["0.2"]}, model)
    first = found.lists(model, rules)
    found.known.clear()
    assert np.array_equal(first, found.lists(model, rules))
    plain = found.lists(model, bundle_rules(model))
    changed = [np.flatnonzero(a != b).tolist() for a, b in zip(plain, first, strict=True)]
    assert len({tuple(places[:1]) for places in changed}) > 1, "not the same places in every list"
