from __future__ import annotations

import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from conf.errors import InputError
from conf.schema import PipelineConfig, SplitConfig, SplitKind
from conf.warm import WarmConfig
from encoders.factors.affinity import Affinity
from encoders.towers.towers import Towers
from encoders.training.fit_towers import train_towers
from encoders.training.train import TEXT, text_contexts, train_encoder, train_text_encoder
from encoders.training.warm import (
    PIN,
    Beginning,
    WarmSource,
    beginning,
    learned_until,
    warm_identity,
    warm_source,
)
from features.data.dataset import Dataset, load_dataset
from features.data.pipeline_step import StepSpec
from features.data.splits import make_split

QUIET = Console(quiet=True)


def towers_of(items: int, kinds: int, dim: int = 4) -> Towers:
    return Towers(3, items, kinds, dim=dim, layers=1, heads=1, max_length=5)


def rows(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, dtype=np.int32)


def test_weights_follow_their_items_and_kinds_into_another_catalogue(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new = towers_of(3, 2), towers_of(4, 2)
    old.item_tower.mean.fill_(7.0)
    old.item_tower.seen.copy_(torch.tensor([False, True, True]))
    old.save(tmp_path)
    before = new.item_tower.residual.weight.clone()  # type: ignore[union-attr]
    Beginning(tmp_path, rows(2, -1, 0, -1), rows(1, 0)).copy_into(new)
    taken = new.item_tower.residual.weight  # type: ignore[union-attr]
    source = old.item_tower.residual.weight  # type: ignore[union-attr]
    assert torch.equal(taken[[0, 2]], source[[2, 0]])
    assert torch.equal(taken[[1, 3]], before[[1, 3]])
    assert torch.equal(new.user_encoder.kind.weight, old.user_encoder.kind.weight[[1, 0]])
    assert torch.equal(new.item_tower.project.weight, old.item_tower.project.weight)  # type: ignore[union-attr]
    assert new.item_tower.mean.tolist() == [7.0, 7.0, 7.0]
    assert new.item_tower.seen.tolist() == [True, False, False, False]


@pytest.fixture(scope="module")
def finished(trained: PipelineConfig) -> Path:
    return Path(trained.work_dir)


def warm(trained: PipelineConfig, folder: Path, source: Path, **settings: Any) -> PipelineConfig:
    return replace(trained, work_dir=str(folder), warm_start=str(source), warm=WarmConfig(**settings))


def test_a_run_and_its_bundle_are_sources_and_say_what_they_have_learned(
    trained: PipelineConfig, finished: Path, tmp_path: Path
) -> None:
    config = warm(trained, tmp_path, finished)
    run = warm_source(config, "facts")
    store = finished / "artifacts"
    version = (store / "CURRENT").read_text().strip()
    given = (store, store / "versions" / version)
    bundles = [
        warm_source(replace(config, warm_start=str(path), work_dir=str(tmp_path / str(n))), "facts")
        for n, path in enumerate(given)
    ]
    assert run is not None
    assert run.kinds == ["purchase", "click"]
    assert run.text_model == trained.text_encoder.model
    assert set(run.learned_until) == {"text_encoder", "towers", "ranker_towers", "ranker"}
    for bundle in bundles:
        assert bundle is not None
        assert bundle.identity == version
        assert bundle.ranker_towers is None
        shared = {part: run.learned_until[part] for part in ("text_encoder", "towers", "ranker")}
        assert bundle.learned_until == shared
        assert bundle.catalogue.equals(run.catalogue)


def test_what_is_no_source_is_refused_with_what_would_be(trained: PipelineConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a finished run .* nor a store .* warm_start=null"):
        warm_source(warm(trained, tmp_path / "work", tmp_path), "facts")
    with pytest.raises(InputError, match="would overwrite the weights .* warm_start=.*artifacts"):
        warm_source(warm(trained, tmp_path, tmp_path), "facts")
    with pytest.raises(InputError, match="set split=global_time, or warm_start=null"):
        replace(warm(trained, tmp_path, tmp_path), split=SplitConfig(kind=SplitKind.leave_one_out))


def test_kept_towers_know_an_item_by_its_text_until_its_residual_is_learned(
    trained: PipelineConfig, finished: Path, tmp_path: Path
) -> None:
    """An item may have been in the source's catalogue without an event, and have some now."""
    data = load_dataset(finished / "dataset")
    split = make_split(data, trained.split, [])
    old = Towers.load(finished / "encoder" / "towers")
    [first, *_] = np.flatnonzero(old.item_tower.seen.numpy()).tolist()
    old.item_tower.seen[first] = False
    old.save(tmp_path)
    vectors = np.load(finished / "encoder" / "text_vectors.npy")
    towers, _ = train_towers(
        trained, data, vectors, split.train_end, split, False, 0, tmp_path, QUIET,
        Beginning.of_same(tmp_path, data),
    )  # fmt: skip
    assert torch.equal(towers.item_tower.seen, old.item_tower.seen)
    assert np.array_equal(towers.item_vectors(vectors), old.item_vectors(vectors))


def test_the_affinity_map_is_fitted_for_the_steps_of_a_warm_start(
    trained: PipelineConfig, finished: Path, tmp_path: Path
) -> None:
    config = warm(trained, tmp_path / "work", finished, affinity_steps=3, tower_epochs=0)
    data = load_dataset(finished / "dataset")
    split = make_split(data, config.split, [])
    folder = train_text_encoder(config, data, split, True, QUIET).folder
    expected = Affinity.fit(
        np.load(folder / "text_vectors.npy"), text_contexts(config, data, split.tower_end),
        replace(config.text_encoder, affinity_steps=3), config.seed, torch.device("cpu"),
    )  # fmt: skip
    found = Affinity.load(folder / "affinity.safetensors")
    assert expected is not None
    assert found is not None
    assert np.array_equal(found.matrix, expected.matrix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cut", "text_vectors.npy is missing or cut off; publish again"),
        ("gone", "user_encoder.safetensors is missing or cut off; publish again"),
        ("older", "manifest.json was made by another release; publish again"),
    ],
)
def test_a_version_that_is_not_whole_or_of_another_release_is_one_line(
    trained: PipelineConfig, finished: Path, tmp_path: Path, change: str, message: str
) -> None:
    version = (finished / "artifacts" / "CURRENT").read_text().strip()
    copy = Path(shutil.copytree(finished / "artifacts" / "versions" / version, tmp_path / "version"))
    if change == "cut":
        os.truncate(copy / "text_vectors.npy", 1000)
    elif change == "gone":
        (copy / "user_encoder.safetensors").unlink()
    else:
        manifest = json.loads((copy / "manifest.json").read_text())
        del manifest["kinds"]
        (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        warm_source(warm(trained, tmp_path / "work", copy), "facts")


def source_that_learned(until: dict[str, int]) -> WarmSource:
    path = Path("earlier")
    return WarmSource(path, "1", until, None, "fp32", [], path, path, path, None, path)


def test_weights_that_know_the_windows_are_refused(dataset: Dataset) -> None:
    split = make_split(dataset, SplitConfig(kind=SplitKind.global_time), [])
    source_that_learned({"towers": split.train_time, "ranker": 0}).require_unseen(split)
    with pytest.raises(InputError, match=r"validation window begins at .* set split\.valid_start="):
        source_that_learned({"towers": split.train_time + 1}).require_unseen(split)


@pytest.mark.parametrize(("later", "window"), [(0, "validation"), (1, "test")])
def test_the_settings_that_an_error_names_make_earlier_weights_usable(
    dataset: Dataset, later: int, window: str
) -> None:
    split = make_split(dataset, SplitConfig(kind=SplitKind.global_time), [])
    source = source_that_learned({"towers": 0, "ranker": split.state_time + later})
    with pytest.raises(
        InputError, match=rf"{window} window begins at .* and split\.test_start after it"
    ) as caught:
        source.require_unseen(split)
    named = re.search(r"set split\.valid_start=(\S+) or later", str(caught.value))
    assert named is not None
    after = str(np.datetime64(int(np.sort(dataset.events.time)[-2]), "s"))
    source.require_unseen(make_split(dataset, SplitConfig(valid_start=named[1], test_start=after), []))


def test_what_ancestors_have_learned_is_passed_on() -> None:
    source = source_that_learned({"towers": 50, "ranker": 9})
    assert learned_until(source, {"towers": 40, "text_encoder": 7}) == {"towers": 50, "text_encoder": 7}
    assert learned_until(source, {"ranker": 10}) == {"ranker": 10}
    assert learned_until(None, {"ranker": 10}) == {"ranker": 10}


def test_towers_of_another_shape_are_trained_from_the_beginning(
    trained: PipelineConfig, finished: Path, tmp_path: Path, dataset: Dataset
) -> None:
    source = warm_source(warm(trained, tmp_path, finished), "facts")
    shape = json.loads((finished / "encoder" / "towers" / "user_encoder.json").read_text())
    console = Console(file=io.StringIO(), width=200)
    grown = {**shape, "items": 10**6}
    assert beginning(source, "towers", grown, dataset, console) is not None
    assert beginning(source, "towers", {**shape, "dim": 8}, dataset, console) is None
    assert isinstance(console.file, io.StringIO)
    assert "towers trained from the beginning: dim is 8, there 16" in console.file.getvalue()


def test_a_run_keeps_the_source_that_it_began_with(
    trained: PipelineConfig, finished: Path, tmp_path: Path
) -> None:
    """The store that a run publishes to has another current version afterwards."""
    store = tmp_path / "artifacts"
    published = finished / "artifacts"
    version = (published / "CURRENT").read_text().strip()
    (store / "versions").mkdir(parents=True)
    (store / "versions" / version).symlink_to(published / "versions" / version)
    (store / "CURRENT").write_text(version)
    config = warm(trained, tmp_path, store)
    before = TEXT.inputs(config, "facts")
    assert warm_source(config, "facts") is not None
    manifest = json.loads((published / "versions" / version / "manifest.json").read_text())
    shutil.copytree(published / "versions" / version, store / "versions" / "next")
    (store / "versions" / "next" / "manifest.json").write_text(json.dumps({**manifest, "version": "next"}))
    (store / "CURRENT").write_text("next")
    assert warm_identity(config, "facts") == version
    assert TEXT.inputs(config, "facts") == before
    assert warm_identity(config, "other data") == "next"
    assert TEXT.inputs(config, "other data") != TEXT.inputs(replace(config, warm_start=None), "other data")
    pin = json.loads((tmp_path / PIN).read_text())
    (tmp_path / PIN).write_text(json.dumps({**pin, "identity": "as it was"}))
    with pytest.raises(InputError, match="has changed since this run began with it; delete"):
        warm_source(config, "facts")


@pytest.mark.parametrize("setting", ["text_steps", "affinity_steps", "tower_epochs", "ranker_epochs"])
def test_settings_of_a_warm_start_rerun_what_depends_on_them(setting: str) -> None:
    from ranking.pipeline.publish import PUBLISH

    config = PipelineConfig(warm_start="nowhere")
    changed = replace(config, warm=WarmConfig(**{setting: 77}))
    chain: list[StepSpec] = []
    spec: StepSpec | None = PUBLISH
    while spec is not None:
        chain.insert(0, spec)
        spec = spec.after
    rerun = [s.folder for s in chain if s.inputs(config, "data") != s.inputs(changed, "data")]
    first = {"tower_epochs": "encoder", "ranker_epochs": "ranker"}.get(setting, "text")
    assert (
        rerun == ["text", "encoder", "ranker", "refit", "publish"][[s.folder for s in chain].index(first) :]
    )


def test_kept_parts_are_the_same_to_the_last_bit(
    trained: PipelineConfig, finished: Path, tmp_path: Path, dataset: Dataset
) -> None:
    config = warm(trained, tmp_path / "work", finished, tower_epochs=0)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "dataset").symlink_to(finished / "dataset")
    folder = train_encoder(config, QUIET)
    for name in ("text_vectors.npy", "affinity.safetensors", "towers/user_encoder.safetensors",
                 "ranker_towers/user_encoder.safetensors"):  # fmt: skip
        assert (folder / name).read_bytes() == (finished / "encoder" / name).read_bytes(), name
    report = json.loads((folder / "training.json").read_text())
    assert report["warm"] == ["text_encoder", "towers", "ranker_towers"]
    assert (
        report["learned_until"]
        == json.loads((finished / "encoder" / "training.json").read_text())["learned_until"]
    )
    assert not (folder / "frozen_vectors.npy").exists(), "these are not the vectors of an untrained encoder"


def test_no_epoch_that_makes_towers_worse_is_kept(
    trained: PipelineConfig, finished: Path, tmp_path: Path
) -> None:
    config = warm(trained, tmp_path / "work", finished, learning_rate=1e4)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "dataset").symlink_to(finished / "dataset")
    folder = train_encoder(config, QUIET)
    report = json.loads((folder / "training.json").read_text())
    kept, before = (Towers.load(at / "towers") for at in (folder, finished / "encoder"))
    assert report["stage_two"]["epochs"] == 0
    assert torch.equal(kept.user_encoder.position.weight, before.user_encoder.position.weight)
