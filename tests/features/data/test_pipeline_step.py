from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from conf.encoders import TextEncoderConfig
from conf.errors import InputError
from conf.schema import PipelineConfig, SplitConfig, SplitKind
from features.data.pipeline_step import Step, fingerprint, plain, write_atomically


def test_plain_turns_configs_into_json_types() -> None:
    config = plain(SplitConfig(kind=SplitKind.leave_one_out))
    assert config["kind"] == "leave_one_out"
    assert config["test_fraction"] == 0.1
    assert config["test_start"] is None
    assert plain({1: (SplitKind.global_time, [2])}) == {"1": ["global_time", [2]]}


def test_the_same_inputs_have_the_same_fingerprint_and_any_change_another() -> None:
    config = PipelineConfig()
    first = fingerprint("hash", config)
    assert first == fingerprint("hash", PipelineConfig())
    assert len(first) == 16
    changed = [
        fingerprint("other", config),
        fingerprint("hash", replace(config, seed=1)),
        fingerprint("hash", replace(config, text_encoder=TextEncoderConfig(max_steps=1))),
        fingerprint("hash", config, None),
    ]
    assert len({first, *changed}) == 5


def test_a_step_is_current_only_between_complete_and_the_next_reopen(tmp_path: Path) -> None:
    step = Step(tmp_path / "stage", "abc", "train-encoder")
    assert not step.is_current()
    step.reopen()
    assert not step.is_current()
    step.complete()
    assert step.is_current()
    assert not Step(tmp_path / "stage", "abd", "train-encoder").is_current(), "other inputs"
    step.reopen()
    assert not step.is_current()


def test_reopening_removes_what_other_inputs_left(tmp_path: Path) -> None:
    step = Step(tmp_path / "stage", "abc", "train-encoder")
    step.reopen()
    (step.folder / "towers").mkdir()
    (step.folder / "towers" / "weights").write_text("old")
    step.complete()
    Step(tmp_path / "stage", "abd", "train-encoder").reopen()
    assert list(step.folder.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '"abc"', "{}", '{"inputs": null}'])
def test_a_damaged_marker_means_not_current(tmp_path: Path, content: str) -> None:
    (tmp_path / "stage.json").write_text(content)
    assert not Step(tmp_path, "abc", "train-encoder").is_current()


def test_an_atomic_write_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "CURRENT"
    write_atomically(path, "old")

    def fail(_descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    monkeypatch.undo()
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["CURRENT"]


def test_a_step_refuses_to_build_on_outputs_of_other_settings(tmp_path: Path) -> None:
    step = Step(tmp_path / "encoder", "abc", "train-encoder")
    with pytest.raises(InputError, match=r"encoder: missing.*run `shelfwise train-encoder` with the same"):
        step.require()
    step.reopen()
    with pytest.raises(InputError, match="unfinished"):
        step.require()
    step.complete()
    step.require()
    with pytest.raises(InputError, match="made with other settings"):
        Step(tmp_path / "encoder", "abd", "train-encoder").require()


def finished_step(folder: Path, inputs: str = "abc") -> Step:
    step = Step(folder / "stage", inputs, "train-encoder")
    step.reopen()
    (step.folder / "inner").mkdir()
    (step.folder / "inner" / "out.txt").write_text("made")
    step.complete()
    return step


def test_a_step_takes_over_the_same_inputs_outputs_and_no_others(tmp_path: Path) -> None:
    donor = finished_step(tmp_path / "a")
    finished_step(tmp_path / "b", "other")
    unfinished = finished_step(tmp_path / "c")
    (unfinished.folder / "stage.json").unlink()
    step = Step(tmp_path / "new" / "stage", "abc", "train-encoder")
    assert step.adopt([str(tmp_path / "b"), str(tmp_path / "c"), str(tmp_path / "none")]) is None
    assert not step.folder.exists()
    assert step.adopt([str(tmp_path / "[bca]")]) == donor.folder
    assert step.is_current()
    ours = step.folder / "inner" / "out.txt"
    assert ours.read_text() == "made"
    assert ours.samefile(donor.folder / "inner" / "out.txt")
    step.reopen()
    assert donor.is_current()
    assert (donor.folder / "inner" / "out.txt").read_text() == "made"


def test_files_are_copied_where_they_cannot_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    donor = finished_step(tmp_path / "a")

    def refuse(source: str, target: str) -> None:
        raise OSError("cross-device")

    monkeypatch.setattr(os, "link", refuse)
    step = Step(tmp_path / "new" / "stage", "abc", "train-encoder")
    assert step.adopt([str(tmp_path / "a")]) == donor.folder
    assert not (step.folder / "inner" / "out.txt").samefile(donor.folder / "inner" / "out.txt")
