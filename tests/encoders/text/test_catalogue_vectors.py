"""A catalogue's vectors are made as far as they are needed, and once."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress

import encoders.text.catalogue_vectors as catalogue_vectors
import encoders.training.stage_one as stage_one
import encoders.training.train as train
from conf.encoders import Export, Precision
from conf.schema import PipelineConfig, SplitKind
from encoders.text.catalogue_vectors import CatalogueVectors, read_vectors
from encoders.text.compiled_text_encoder import Advance, CompiledTextEncoder
from encoders.text.embedding import embed_texts
from encoders.text.int8_text_encoder import FOLDER, INT8, MODEL, frozen_text_encoder
from encoders.text.text_encoder import Prompts, TextEncoder, load_text_encoder
from encoders.text.tokens import TokenArray
from encoders.training.train import (
    EMBEDDING_PRECISION,
    ENCODER_FOLDER,
    FROZEN_VECTORS,
    REPORT,
    TEXT_ENCODER,
    TEXT_FOLDER,
    TEXT_VECTORS,
    train_text_encoder,
    try_split,
    untouched_vectors,
)
from features.data.dataset import Dataset, FloatArray, load_dataset
from features.data.pipeline_step import link_tree
from features.prepare import prepare
from tests.synthetic import World, pipeline_config

TEXTS = ["trail boots", "pan", "rose soil", "pan", "guitar", "trail boots"]
QUIET = Console(quiet=True)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call has embedded."""
    counts: list[int] = []
    original = CompiledTextEncoder.embed_tokens

    def spy(self: CompiledTextEncoder, tokens: TokenArray, advance: Advance | None = None) -> FloatArray:
        counts.append(len(tokens))
        return original(self, tokens, advance)

    monkeypatch.setattr(CompiledTextEncoder, "embed_tokens", spy)
    return counts


def test_vectors_of_known_texts_are_taken_over_and_only_the_others_are_made(
    encoder: TextEncoder, read: list[int]
) -> None:
    vectors = CatalogueVectors(encoder, Precision.fp32, TEXTS, Progress)
    earlier = np.arange(2 * encoder.dim, dtype=np.float32).reshape(2, -1)
    # "pan" is the second row there, "guitar" the first; the other texts are new.
    rows = np.array([-1, 1, -1, 1, 0, -1], dtype=np.int32)
    assert vectors.take_over(earlier, rows) == 3
    found = vectors.of()
    assert read == [2], "trail boots and rose soil"
    assert np.array_equal(found[[1, 3, 4]], earlier[[1, 1, 0]])
    assert np.allclose(found[[0, 2]], embed_texts(encoder, ["trail boots", "rose soil"]), atol=1e-5)
    vectors.invalidate()
    assert not np.array_equal(vectors.of()[1], earlier[1]), "another encoder's vectors are not kept"


def test_what_is_missing_is_made_once_and_equal_texts_together(encoder: TextEncoder, read: list[int]) -> None:
    encoder.prompts = Prompts("", "soil ")
    bars: list[Progress] = []

    def bar() -> Progress:
        bars.append(Progress(console=Console(file=io.StringIO())))
        return bars[-1]

    vectors = CatalogueVectors(encoder, Precision.fp32, TEXTS, bar)
    expected = embed_texts(encoder, TEXTS, "soil ")
    read.clear()
    np.testing.assert_allclose(vectors.of(np.array([3, 0, 1])), expected[[3, 0, 1]], atol=1e-6)
    assert read == [2]
    np.testing.assert_allclose(vectors.of(), expected, atol=1e-6)
    assert read == [2, 2], "the two that were not asked for before"
    assert vectors.of(np.array([5])).shape == (1, 32)
    assert read == [2, 2]
    assert [(b.tasks[0].completed, b.tasks[0].total) for b in bars] == [(2, 2), (2, 2)]
    with torch.no_grad():
        next(encoder.parameters()).mul_(-1)
    vectors.invalidate()
    np.testing.assert_allclose(vectors.of(), embed_texts(encoder, TEXTS, "soil "), atol=1e-6)
    assert read[2] == 4


def test_saved_vectors_are_those_of_every_item_and_can_be_changed_in_memory_alone(
    encoder: TextEncoder, read: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_vectors, "_ROWS", 4)
    vectors = CatalogueVectors(encoder, Precision.fp32, TEXTS, Progress)
    vectors.save(tmp_path / "vectors.npy")
    assert read == [4], "equal texts once"
    plain = np.load(tmp_path / "vectors.npy")
    assert plain.dtype == np.float32
    assert np.array_equal(plain, vectors.of())
    mapped = read_vectors(tmp_path / "vectors.npy")
    mapped[0] = 7.0
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), plain), "the file stays as it is"


@pytest.fixture
def config(world: World, bert: Path, tmp_path: Path) -> PipelineConfig:
    settings = pipeline_config(world, bert, tmp_path, SplitKind.global_time)
    prepare(settings, QUIET)
    return settings


def trained(config: PipelineConfig) -> tuple[Dataset, Path]:
    dataset = load_dataset(Path(config.work_dir) / "dataset")
    stage = train_text_encoder(config, dataset, try_split(config, dataset), True, QUIET)
    link_tree(stage.folder, Path(config.work_dir) / ENCODER_FOLDER)
    return dataset, stage.folder


@pytest.mark.parametrize("improved", [True, False])
def test_before_fine_tuning_only_what_validation_looks_at_is_read(
    config: PipelineConfig, read: list[int], monkeypatch: pytest.MonkeyPatch, improved: bool
) -> None:
    for module in (train, stage_one):
        monkeypatch.setattr(module, "VALIDATION_ITEMS", 10)
    pools: list[int] = []
    original = stage_one.StageOne.begin

    def begin(self: stage_one.StageOne, vectors: FloatArray) -> float:
        pools.append(len(np.unique(vectors.round(5), axis=0)))
        before = original(self, vectors)
        return -1.0 if improved else before + 2.0

    monkeypatch.setattr(stage_one.StageOne, "begin", begin)
    dataset, folder = trained(config)
    everything = len(set(dataset.catalogue.texts))
    assert 10 <= pools[0] < everything
    assert read[0] == pools[0]
    validations = len(json.loads((folder / REPORT).read_text())["stage_one"]["validation_recall"])
    assert validations >= 1
    assert read[1 : 1 + validations] == [pools[0]] * validations
    # Weights that stayed as they were need only the rest.
    assert read[1 + validations :] == [everything if improved else everything - pools[0]]
    vectors = np.load(folder / TEXT_VECTORS)
    final = load_text_encoder(replace(config.text_encoder, model=str(folder / train.TEXT_ENCODER))).eval()
    np.testing.assert_allclose(vectors, embed_texts(final, dataset.catalogue.texts), atol=1e-5)
    assert not (folder / FROZEN_VECTORS).exists()


def test_vectors_of_the_untouched_encoder_are_made_when_a_baseline_asks_for_them(
    config: PipelineConfig, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (train, stage_one):
        monkeypatch.setattr(module, "VALIDATION_ITEMS", 10)
    dataset, _ = trained(config)
    assert untouched_vectors(config, dataset, False, QUIET) is None
    read.clear()
    other = Path(config.work_dir, ENCODER_FOLDER, f".{FROZEN_VECTORS}")
    other.write_bytes(b"half of another evaluation's")
    made = untouched_vectors(config, dataset, True, QUIET)
    assert made is not None
    assert read == [len(set(dataset.catalogue.texts))]
    untouched = load_text_encoder(config.text_encoder).eval()
    np.testing.assert_allclose(made, embed_texts(untouched, dataset.catalogue.texts), atol=1e-5)
    again = untouched_vectors(config, dataset, False, QUIET)
    assert again is not None, "kept"
    assert np.array_equal(again, made), "kept"
    assert len(read) == 2, "kept"
    assert other.read_bytes() == b"half of another evaluation's"
    assert sorted(other.parent.glob(".frozen*")) == [other]


def test_a_small_catalogue_is_read_before_and_after(config: PipelineConfig, read: list[int]) -> None:
    dataset, folder = trained(config)
    everything = len(set(dataset.catalogue.texts))
    assert read[0] == everything
    before, after = np.load(folder / FROZEN_VECTORS), np.load(folder / TEXT_VECTORS)
    assert before.shape == after.shape == (len(dataset.catalogue), 32)
    assert json.loads((folder / REPORT).read_text())[EMBEDDING_PRECISION] == "fp32"
    assert Path(config.work_dir, TEXT_FOLDER) == folder


def test_an_export_makes_the_vectors_and_is_saved_beside_the_weights(config: PipelineConfig) -> None:
    dataset, folder = trained(
        replace(config, text_encoder=replace(config.text_encoder, export=Export.openvino))
    )
    assert json.loads((folder / REPORT).read_text())[EMBEDDING_PRECISION] == INT8
    assert (folder / TEXT_ENCODER / FOLDER / MODEL).is_file()
    weights = replace(config.text_encoder, model=str(folder / TEXT_ENCODER))
    loaded = load_text_encoder(weights).eval()
    exact = embed_texts(loaded, dataset.catalogue.texts)
    vectors = np.load(folder / TEXT_VECTORS)
    served = frozen_text_encoder(loaded, folder / TEXT_ENCODER, INT8, torch.device("cpu"))
    np.testing.assert_allclose(vectors, served.embed(dataset.catalogue.texts), atol=1e-5)
    assert not np.allclose(vectors, exact, atol=1e-4), "in eight bits"
    assert (vectors * exact).sum(1).mean() > 0.95
    # A baseline that asks for the untouched encoder's vectors gets those of PyTorch.
    assert untouched_vectors(config, dataset, True, QUIET) is not None
