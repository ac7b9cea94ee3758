"""The pages of the catalogue on a bundle with a map, on one without, and on a wrong address."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from conf.schema import PipelineConfig
from explorer.app import create_app
from explorer.catalogue.item import alike, item_facts
from explorer.catalogue.overviews import Overviews, cache_folder
from explorer.context import ExplorerContext
from explorer.loading import BundleLoader
from explorer.model import LoadedModel, load_model
from explorer.registry import VIEWS
from explorer.views import catalogue as view
from ranking.bundle.store import VERSIONS, current_version
from ranking.overview.overview import OVERVIEW, Overview


@pytest.fixture(scope="module")
def store(trained: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("catalogue") / "work"
    shutil.copytree(Path(trained.work_dir) / "artifacts", work / "artifacts")
    shutil.copytree(Path(trained.work_dir) / "dataset", work / "dataset")
    return work / "artifacts"


@pytest.fixture(scope="module")
def model(store: Path) -> LoadedModel:
    return load_model(store, current_version(store), torch.device("cpu"))


@pytest.fixture(scope="module")
def overview(store: Path, model: LoadedModel) -> Overview:
    found = Overview.load(store / VERSIONS / model.version, 60)
    assert found is not None
    return found


@pytest.fixture
def client(store: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(view, "OVERVIEWS", Overviews())
    loader = BundleLoader(lambda: model.version, lambda version: model, patience=60)
    views = tuple(v for v in VIEWS if v.name in ("start", "catalogue"))
    app = create_app(ExplorerContext(store=store, loader=loader), views=views)
    with TestClient(app, base_url="http://127.0.0.1:8321") as made:
        assert "being loaded" not in patient(made, "/catalogue")
        yield made


def patient(client: TestClient, path: str) -> str:
    """Return a page's text, once its view is imported."""
    for _ in range(600):
        answer = client.get(path)
        if answer.status_code != 202:
            assert answer.status_code == 200, answer.text
            return str(answer.text)
    raise AssertionError(path)


def links(text: str) -> list[str]:
    """Return the ids of the items of the tables of a page, in order."""
    return re.findall(r'href="/catalogue/item\?item=([^"&]+)"', text)


def test_the_list_beside_the_map_has_what_lies_in_the_window(
    client: TestClient, model: LoadedModel, overview: Overview
) -> None:
    counts, ids = model.recommender.arrays.statistics.count, model.bundle.catalogue.ids
    order = np.lexsort((np.arange(60), -counts))
    assert links(patient(client, "/catalogue")) == [ids[row] for row in order[:50]]
    assert links(patient(client, "/catalogue?page=2")) == [ids[row] for row in order[50:]]
    x, y = overview.positions[7]
    text = patient(client, f"/catalogue?x={x:.5f}&y={y:.5f}&w=0.1")
    inside = (np.abs(overview.positions - np.array([round(float(x), 5), round(float(y), 5)])) <= 0.05).all(
        axis=1
    )
    assert set(links(text)) == {ids[row] for row in np.flatnonzero(inside)}
    assert ids[7] in links(text)
    assert 1 <= inside.sum() < 60


def test_points_are_those_of_the_window_in_the_chosen_colours(client: TestClient, overview: Overview) -> None:
    content = client.get("/catalogue/points?colour=sales").content
    assert struct.unpack_from("<II", content) == (60, 60)
    assert len(content) == 8 + 9 * 60
    x = np.frombuffer(content, "<u2", 60, 8 + 4 * 60)
    assert x == pytest.approx(overview.positions[:, 0] * 65_535, abs=0.51)


def test_a_search_lists_and_marks_what_fits(client: TestClient, model: LoadedModel) -> None:
    title = model.items.title(3)
    text = patient(client, f"/catalogue?q={title}")
    assert links(text)[0] == model.bundle.catalogue.ids[3]
    marked = re.search(r'data-found="([\d,]*)"', text)
    assert marked is not None
    assert marked.group(1).split(",")[0] == "3"
    assert len(marked.group(1).split(",")) == len(links(text))


def test_an_item_has_its_figures_and_its_neighbours(
    client: TestClient, model: LoadedModel, overview: Overview
) -> None:
    row = int(np.argmax(model.recommender.arrays.statistics.count))
    facts = item_facts(model, overview, row)
    assert facts.rank == 1
    cosines = model.bundle.text_vectors @ model.bundle.text_vectors[row]
    cosines[row] = -2
    assert facts.near[0].value == pytest.approx(float(cosines.max()), abs=1e-5)
    assert [n.value for n in facts.near] == sorted((n.value for n in facts.near), reverse=True)
    assert row not in {n.row for n in (*facts.near, *facts.together, *facts.duplicates)}
    together = model.recommender.arrays.statistics.together_ids[row]
    assert [n.row for n in facts.together] == together[together >= 0][:10].tolist()
    text = patient(client, f"/catalogue/item?item={model.bundle.catalogue.ids[row]}")
    assert f"<dd>{facts.events:,}<small>place 1 of the catalogue" in text
    assert links(text)[:10] == [n.item_id for n in facts.near]


def test_members_of_a_group_by_way_of_others_have_no_cosine() -> None:
    pairs = np.array([[0, 1], [1, 2]], dtype=np.int32)
    chain = Overview(np.zeros((4, 2), np.float32), pairs, np.array([0.99, 0.985], dtype=np.float32))
    rows, cosines = alike(chain, 0)
    assert rows.tolist() == [1, 2]
    assert cosines == pytest.approx([0.99, 0.0])
    assert len(alike(chain, 3)[0]) == 0


def test_unknown_and_wrong_values_have_readable_pages(client: TestClient, model: LoadedModel) -> None:
    known = model.bundle.catalogue.ids[0]
    answer = client.get(f"/catalogue/item?item={known}x")
    assert answer.status_code == 404
    assert f'href="/catalogue/item?item={known}"' in answer.text
    for query in ("w=7", "colour=smell", "page=0"):
        answer = client.get(f"/catalogue?{query}")
        assert answer.status_code == 400
        assert query.partition("=")[0] + ":" in answer.text
    assert client.get("/catalogue/duplicates?least=0.5").status_code == 400
    assert client.get("/catalogue/card?row=60").status_code == 400


def test_the_other_tabs(client: TestClient, model: LoadedModel, overview: Overview) -> None:
    groups = overview.groups(0.9)
    text = patient(client, "/catalogue/duplicates?least=0.9")
    assert f"{len(groups)} group" in text
    assert len(links(text)) == sum(min(len(group), 20) for group in groups[:50])
    cold = np.flatnonzero(model.recommender.arrays.statistics.count == 0)
    assert len(links(patient(client, "/catalogue/no-events"))) == len(cold)
    assert "There are none among 60 items" in patient(client, "/catalogue/no-text")
    assert "No row was rejected" in patient(client, "/catalogue/rejected")


def test_a_bundle_without_a_map_gets_one_that_is_kept_outside_of_it(
    store: Path, model: LoadedModel, overview: Overview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bare = tmp_path / "artifacts"
    (bare / VERSIONS / model.version).mkdir(parents=True)
    made = Overviews()
    first, _ = made.of(bare, model)
    assert not first.is_layout
    assert first.positions.shape == (60, 2)
    made.wait()
    later, waiting = made.of(bare, model)
    assert not waiting
    assert np.array_equal(later.positions, overview.positions)
    assert (cache_folder() / model.version / OVERVIEW).is_file()
    assert list((bare / VERSIONS / model.version).iterdir()) == []
    again, waiting = Overviews().of(bare, model)
    assert np.array_equal(again.positions, later.positions)
    assert not waiting, "read from the cache"
