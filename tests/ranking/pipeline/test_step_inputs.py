"""What reruns a step: by its declaration, and by what its code reads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import encoders.training.train
import features.data.pipeline_step
import ranking.pipeline.prepared
import ranking.pipeline.publish
from conf.schema import Adapter, DataConfig, PipelineConfig, Refit, SplitKind
from encoders.training.train import ENCODER, TEXT, train_encoder
from features.data.dataset import Dataset
from features.data.pipeline_step import StepSpec, plain
from ranking.pipeline.prepared import PREPARE, prepared
from ranking.pipeline.publish import PUBLISH, publish
from ranking.pipeline.refit import REFIT, refit
from ranking.training.ids_only import CHOSEN, REFITTED
from ranking.training.train import RANKER, train_ranker
from tests.synthetic import World, pipeline_config

QUIET = Console(quiet=True)
MACHINE = (
    *("work_dir", "threads", "device", "devices", "shard_items", "reuse", "tracker", "publish.gate"),
    *("engine", "spark", "retrieval"),
)
"""Where and on what a run takes place, which tracker gets its results, whether a bundle becomes current,
which engines prepare and search: no result depends on it."""
FROM_TEXT = (TEXT, ENCODER, RANKER, REFIT, PUBLISH)
ALL = (PREPARE, *FROM_TEXT, CHOSEN, REFITTED)
RERUNS: dict[str, tuple[StepSpec, ...]] = {
    **dict.fromkeys(MACHINE, ()),
    "seed": ALL[1:],  # the dataset too, where its reader shuffles: see below
    "data": (PREPARE,),  # the others read the dataset
    "privacy.key_env": (PREPARE,),
    "privacy.hash_users": (PREPARE, PUBLISH),
    "split": (*FROM_TEXT, CHOSEN, REFITTED),
    "text_encoder": FROM_TEXT,
    "warm_start": FROM_TEXT,
    "warm": (),  # without effect on a cold start
    "user_encoder": (*FROM_TEXT[1:], CHOSEN, REFITTED),
    "evaluation.exclude_seen": (*FROM_TEXT[1:], CHOSEN, REFITTED),
    "evaluation.target_events": (*FROM_TEXT, CHOSEN, REFITTED),
    **dict.fromkeys(
        (f"evaluation.{key}" for key in ("ks", "baselines", "test", "bootstrap", "max_users")), ()
    ),
    **dict.fromkeys(("ranker", "candidates", "factors", "index"), FROM_TEXT[2:]),
    "refit": (REFIT, PUBLISH, REFITTED),
    **dict.fromkeys(("rerank", "publish.map"), (PUBLISH,)),
}
"""Setting, or section -> the steps that a change of it reruns."""


def settings_of(config: object, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every setting."""
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from settings_of(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def within(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def declared(spec: StepSpec | None) -> tuple[str, ...]:
    return () if spec is None else (*spec.settings, *declared(spec.after))


def recording(config: Any, reads: set[str], prefix: str = "") -> Any:
    """Return a copy of a configuration that adds the dotted key of every setting that is read to `reads`."""
    names = {field.name for field in fields(config)}

    class Recorded(type(config)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            value = object.__getattribute__(self, name)
            if name not in names:
                return value
            if is_dataclass(value):
                return recording(value, reads, f"{prefix}{name}.")
            reads.add(f"{prefix}{name}")
            return value

    made = object.__new__(Recorded)
    made.__dict__.update(config.__dict__)
    return made


@pytest.mark.parametrize("key", list(settings_of(PipelineConfig())))
def test_a_setting_reruns_the_steps_that_depend_on_it_and_no_other(key: str) -> None:
    config = PipelineConfig()
    changed = copy.deepcopy(config)
    section, _, name = key.rpartition(".")
    object.__setattr__(attrgetter(section)(changed) if section else changed, name, "another value")
    [expected] = [specs for named, specs in RERUNS.items() if within(key, (named,))]
    rerun = [spec for spec in ALL if spec.inputs(changed, "data") != spec.inputs(config, "data")]
    assert rerun == [spec for spec in ALL if spec in expected]


def test_the_data_and_the_codes_version_rerun_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    config = PipelineConfig()
    before = [spec.inputs(config, "data") for spec in ALL]
    assert len(set(before)) == len(ALL)
    assert not {spec.inputs(config, "other data") for spec in ALL} & set(before)
    monkeypatch.setattr(features.data.pipeline_step, "version", lambda name: f"{name} 99")
    assert not {spec.inputs(config, "data") for spec in ALL} & set(before)


def test_seeds_share_a_dataset_unless_its_reader_shuffles(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def prepare(config: PipelineConfig, console: Console) -> None:
        made.append(config.seed)
        (Path(config.work_dir) / "dataset" / "dataset.json").write_text("{}")

    monkeypatch.setattr(ranking.pipeline.prepared, "prepare", prepare)
    monkeypatch.setattr(ranking.pipeline.prepared, "load_dataset", lambda folder: folder)
    items, events = world.write(tmp_path / "raw")

    def of_seed(seed: int, adapter: Adapter) -> None:
        data = DataConfig(items=items, events=events, adapter=adapter)
        work, earlier = str(tmp_path / adapter.value / str(seed)), str(tmp_path / adapter.value / "*")
        Path(work, "dataset").mkdir(parents=True)
        prepared(PipelineConfig(seed=seed, data=data, work_dir=work, reuse=[earlier]), QUIET)

    for seed in (0, 1):
        of_seed(seed, Adapter.files)
    assert made == [0]
    for seed in (0, 1):
        of_seed(seed, Adapter.online_retail)
    assert made == [0, 0, 1]


def test_what_a_dataset_says_of_itself_is_an_input(dataset: Dataset) -> None:
    facts = {
        "content_hash",
        "event_weights",
        "text_fields",
        "text_fallback_fields",
        "max_text_chars",
        "has_order",
    }
    assert dataset.facts.keys() == facts
    for fact in facts:
        other = replace(dataset, info={**dataset.info, fact: "another value"})
        assert TEXT.inputs(PipelineConfig(), other.facts) != TEXT.inputs(PipelineConfig(), dataset.facts)


@pytest.fixture(scope="module")
def reads(world: World, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[StepSpec, set[str]]:
    """Which settings the code of each step reads in a tiny run, its declaration left out."""
    folder = tmp_path_factory.mktemp("recorded")
    config = replace(pipeline_config(world, bert, folder, SplitKind.global_time), refit=Refit.before_test)
    found: dict[StepSpec, set[str]] = {spec: set() for spec in (PREPARE, *FROM_TEXT)}
    inputs, train_text = StepSpec.inputs, encoders.training.train.train_text_encoder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepSpec, "inputs", lambda spec, _, source: inputs(spec, config, source))
        patch.setattr(
            encoders.training.train,
            "train_text_encoder",
            lambda _, *rest: train_text(recording(config, found[TEXT]), *rest),
        )
        # The whole configuration is written into the bundle, as a record that nothing reads.
        patch.setattr(
            ranking.pipeline.publish, "plain", lambda v: plain(config if isinstance(v, PipelineConfig) else v)
        )
        dataset = prepared(recording(config, found[PREPARE]), QUIET)
        for spec, step in (
            (ENCODER, train_encoder),
            (RANKER, train_ranker),
            (REFIT, refit),
            (PUBLISH, publish),
        ):
            step(recording(config, found[spec]), QUIET, dataset)
    found[ENCODER] |= found[TEXT]
    return found


@pytest.mark.parametrize("spec", [PREPARE, *FROM_TEXT], ids=lambda spec: spec.name)
def test_a_step_reads_what_it_declares_and_nothing_else(
    spec: StepSpec, reads: dict[StepSpec, set[str]]
) -> None:
    known = (*declared(spec), *MACHINE)
    assert {key for key in reads[spec] if not within(key, known)} == set()
    read = reads[ENCODER] if spec is TEXT else reads[spec]  # the split of the texts is made there
    assert [key for key in spec.settings if not any(within(found, (key,)) for found in read)] == []


def test_the_recording_sees_what_is_read_deep_inside(reads: dict[StepSpec, set[str]]) -> None:
    assert "text_encoder.max_tokens" in reads[TEXT]
    assert "user_encoder.dropout" in reads[ENCODER] - reads[TEXT]
    assert {"ranker.hidden", "candidates.neighbours", "factors.dim", "index.factory"} <= reads[RANKER]
    assert not any(key.startswith("rerank") for key in reads[RANKER])
