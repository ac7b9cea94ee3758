"""A bundle's indexes on a second device: written for a CPU, and kept up with items that change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.schema import IndexConfig
from encoders.factors.affinity import Affinity, imputation_neighbours
from encoders.factors.co_purchase import IMPUTATION_NEIGHBOURS
from encoders.text.text_encoder import TextEncoder
from encoders.towers.item_tower import whitening
from features.data.dataset import Dataset
from ranking.assembly import nearest_lenders, pca_units, text_neighbours
from ranking.bundle.bundle import Bundle, load_bundle
from ranking.bundle.indexes import INDEX, LENDER_INDEX, NEW_INDEX, TEXT_INDEX, index_config
from ranking.bundle.store import VERSIONS
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.updates import LiveItems
from ranking.recommender import Recommender
from ranking.retrieval.device_index import DeviceIndex, DeviceState
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.index_choice import CatalogueIndex, build_index
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.source_indexes import SourceIndexes
from tests.bundles import make_bundle, publish_bundle, published_again
from tests.ranking.changes import change, item
from tests.second_device import second_device
from tests.synthetic import make_factors, random_units, read_json

ROOM = 10


@pytest.fixture
def device() -> Iterator[torch.device]:
    with second_device() as found:
        yield found


@pytest.fixture
def quiet(dataset: Dataset) -> Dataset:
    """The synthetic shop, of which some items have no event."""
    kept = dataset.events.item % 3 > 0
    user = dataset.events.user[kept]
    events = replace(
        dataset.events,
        **{name: getattr(dataset.events, name)[kept] for name in ("user", "item", "kind", "time")},
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user, minlength=dataset.events.users))]),
    )
    return replace(dataset, events=events)


def whole(dataset: Dataset, encoder: TextEncoder, device: torch.device | None = None) -> Bundle:
    """A bundle with every index there is; on a device as `build_recommender` makes it."""
    near = make_bundle(dataset, encoder).recommender.arrays.text_near
    made = make_bundle(dataset, encoder, factors=make_factors(dataset).impute(near))
    mean, matrix = whitening(made.text_vectors)
    affinity = Affinity(matrix, -mean @ matrix)
    known = made.recommender
    arrays = replace(known.arrays, affinity_units=affinity.units(made.text_vectors))
    where = device or torch.device("cpu")
    index = build_index(arrays.item_vectors, device=where)
    indexes = SourceIndexes.build(index, arrays, device=where)
    recommender = Recommender(
        arrays, index, made.text_vectors, known.config, known.click_kinds, known.towers, None, known.factors,
        affinity, build_index(made.text_vectors, device=where), indexes,
    )  # fmt: skip
    return replace(made, recommender=recommender)


def indexes(bundle: Bundle) -> list[VectorSearcher | None]:
    recommender, own = bundle.recommender, bundle.recommender.indexes
    return [recommender.index, recommender.text_index, own.factors, own.new_items]


def test_what_a_gpu_has_searched_is_published_for_any_cpu(
    quiet: Dataset,
    encoder: TextEncoder,
    bert: Path,
    tmp_path: Path,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the same files, byte for byte: large catalogues have approximate indexes."""
    monkeypatch.setattr("ranking.retrieval.faiss_index.FLAT_LIMIT", 450)
    folders = []
    for where in (None, device):
        bundle = whole(quiet, encoder, where)
        kinds = {type(index) for index in indexes(bundle)}
        assert (kinds & {DeviceIndex, DeviceState} == set()) == (where is None)
        store = tmp_path / str(where)
        folders.append(store / VERSIONS / publish_bundle(store, bundle, bert))
    cpu, gpu = (read_json(folder / "manifest.json")["files"] for folder in folders)
    assert isinstance(cpu, dict)
    assert {INDEX, TEXT_INDEX, NEW_INDEX, LENDER_INDEX} < cpu.keys()
    assert cpu == gpu, "sizes and hashes"


def test_loaded_onto_a_device_everything_is_searched_there_and_shared(
    quiet: Dataset, encoder: TextEncoder, bert: Path, tmp_path: Path, device: torch.device
) -> None:
    publish_bundle(tmp_path, whole(quiet, encoder), bert)
    bundle = load_bundle(tmp_path, device=device)
    item_index, text, factor, new = indexes(bundle)
    assert isinstance(item_index, DeviceIndex)
    assert isinstance(text, DeviceIndex)
    assert isinstance(factor, DeviceIndex)
    assert isinstance(new, DeviceState)
    assert bundle.lender_index is new.index, "the affinity vectors lie there once"
    here = load_bundle(tmp_path)
    assert here.lender_index is None
    assert isinstance(here.recommender.index, VectorIndex)


def test_a_bundle_that_said_where_to_search_is_read(
    quiet: Dataset, encoder: TextEncoder, bert: Path, tmp_path: Path
) -> None:
    publish_bundle(tmp_path, whole(quiet, encoder), bert)
    assert index_config({"factory": "IVF8,Flat", "nprobe": 3, "gpu": True}) == IndexConfig("IVF8,Flat", 3)
    folder = tmp_path / VERSIONS / published_again(tmp_path, lambda _: None)
    manifest = read_json(folder / "manifest.json")
    manifest["index"] = {"factory": None, "nprobe": 5, "gpu": True}
    index = load_bundle(tmp_path, folder.name, manifest=manifest).recommender.index
    assert isinstance(index, VectorIndex)
    assert index.nprobe == 5


def test_items_that_change_are_found_as_on_the_cpu(
    quiet: Dataset, encoder: TextEncoder, bert: Path, tmp_path: Path, device: torch.device
) -> None:
    publish_bundle(tmp_path, whole(quiet, encoder), bert)
    here = LiveItems(load_bundle(tmp_path, room=ROOM), ROOM)
    there = LiveItems(load_bundle(tmp_path, room=ROOM, device=device), ROOM)
    rng = np.random.default_rng(0)

    def compare() -> None:
        size = here.current.catalogue.size
        masks = [None, np.arange(size) % 2 == 0, rng.random(size) < 0.2, np.zeros(size, dtype=np.bool_)]
        for name in ("items", "texts", "factors", "new", "added"):
            ours, theirs = (getattr(live._indexes, name)(live.current.catalogue) for live in (here, there))
            assert (ours is None) == (theirs is None) == (name == "added" and size == 60)
            if ours is None:
                continue
            width = {"items": 16, "factors": 8}.get(name, 32)
            queries = random_units(6, width, seed=size)
            for k in (5, 100):
                for mask in masks:
                    rows, scores = ours.search(queries, k, None if mask is None else mask.copy())
                    found, products = theirs.search(queries, k, None if mask is None else mask.copy())
                    assert np.array_equal(rows, found), (name, k)
                    np.testing.assert_allclose(scores, products, atol=1e-5)

    compare()
    steps: list[list[ItemChange]] = [
        [item("new", "trail boots summit"), item("other", "guitar drum melody", "Borealis")],
        [item("i0", "paper pen desk"), item("i7", "whisk pan"), item("new", "river kayak")],
        [ItemChange("i3", None), ItemChange("other", None), ItemChange("i12", None)],
        [item("third", "trail boots summit"), item("other", "guitar strings"), item("i0", "pen")],
    ]
    for changes in steps:
        for live in (here, there):
            change(live, *changes)
        compare()
    ours, theirs = (live.current.recommender.recommender.arrays for live in (here, there))
    np.testing.assert_array_equal(ours.text_near.ids, theirs.text_near.ids)
    np.testing.assert_allclose(ours.factor_vectors, theirs.factor_vectors, atol=1e-5)


def test_a_batch_of_changes_is_written_to_each_index_once(
    quiet: Dataset, encoder: TextEncoder, bert: Path, tmp_path: Path, device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    publish_bundle(tmp_path, whole(quiet, encoder), bert)
    live = LiveItems(load_bundle(tmp_path, room=ROOM, device=device), ROOM)
    written: list[tuple[int, int]] = []
    original = DeviceIndex.put

    def put(self: DeviceIndex, rows: np.ndarray, vectors: np.ndarray) -> None:
        written.append((id(self), len(rows)))
        original(self, rows, vectors)

    monkeypatch.setattr(DeviceIndex, "put", put)
    change(live, *(item(f"n{n}", f"trail boots {n}") for n in range(4)))
    assert len({index for index, _ in written}) == len(written) == 4, "items, texts, affinity, factors"
    assert {rows for _, rows in written} == {4}
    written.clear()
    change(live, item("n0", "trail boots 0", price=3.0), ItemChange("i4", None))
    assert written == [], "no vector changes"


def test_neighbours_of_a_catalogue_are_found_there(device: torch.device) -> None:
    units = pca_units(random_units(300, 24, seed=4))
    ours, theirs = text_neighbours(units, 20), text_neighbours(units, 20, device)
    assert np.array_equal(ours.ids, theirs.ids)
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-6)
    assert not (theirs.ids == np.arange(300)[:, None]).any()


def test_lenders_are_found_there(device: torch.device) -> None:
    units = random_units(200, 12, seed=5)
    for share in (0.0, 0.02, 0.7):
        known = np.random.default_rng(1).random(200) < share
        index: CatalogueIndex = build_index(units, device=device)
        found = nearest_lenders(index, units[:30], known)
        wanted = imputation_neighbours(units[:30], units, known, IMPUTATION_NEIGHBOURS)
        assert np.array_equal(found.ids, wanted.ids)
        np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-6)
