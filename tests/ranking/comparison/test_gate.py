"""publish.gate: a worse bundle does not become current, an equal one does, whatever happens in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conf.comparison import PublishConfig
from conf.errors import GuardError, InputError
from conf.schema import CandidateConfig, PipelineConfig, RankerConfig, Refit
from encoders.training.train import train_encoder
from ranking.bundle import store as store_module
from ranking.bundle.bundle import load_bundle
from ranking.bundle.store import current_version, publish_version, roll_back, versions
from ranking.pipeline.publish import publish
from ranking.training.train import train_ranker

QUIET = Console(quiet=True)
GUARDS = [{"metric": "ndcg@10", "loss": "5%", "confidence": 0.9}]


@pytest.fixture
def gated(trained: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    """A copy of a finished run, whose publications have to hold a guard."""
    shutil.copytree(trained.work_dir, tmp_path / "work")
    return replace(trained, work_dir=str(tmp_path / "work"), publish=PublishConfig(gate=GUARDS, map=False))


def worse(config: PipelineConfig) -> PipelineConfig:
    """Train a model without a ranking head that lists new items only; return its configuration."""
    sources = CandidateConfig(
        user_vector=0, item_to_item=0, text_neighbours=0, repeat=0, popular=0, co_purchase=0, new_items=20
    )
    changed = replace(config, candidates=sources, ranker=RankerConfig(enabled=False))
    train_encoder(changed, QUIET)
    train_ranker(changed, QUIET)
    return changed


def store_of(config: PipelineConfig) -> Path:
    return Path(config.work_dir) / "artifacts"


def test_an_equal_bundle_is_published(gated: PipelineConfig) -> None:
    before = current_version(store_of(gated))
    shutil.rmtree(Path(gated.work_dir) / "publish")
    version = publish(gated, QUIET)
    assert current_version(store_of(gated)) == version != before
    report = json.loads((store_of(gated) / "comparisons" / version / "compare.json").read_text())
    assert (report["a"]["version"], report["b"]["version"]) == (before, version)
    assert report["guards"][0]["outcome"] == "held"
    assert report["likeness"]["overlap@10"]["mean"] == 1.0


def test_a_worse_bundle_is_refused_and_its_report_kept(gated: PipelineConfig) -> None:
    store, changed = store_of(gated), worse(gated)
    before, histories = current_version(store), (store / "histories.parquet").stat().st_mtime_ns
    for _ in range(2):  # a refusal is not remembered as a publication
        with pytest.raises(GuardError) as error:
            publish(changed, QUIET)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("broken: ndcg@10 loses at most 5%: ")
    assert lines[1].startswith(f"not published: {before} stays current; see {store / 'comparisons'}")
    assert current_version(store) == before
    assert versions(store) == [before], "nothing to roll back to by mistake"
    assert list((store / "versions").glob(".staging-*")) == []
    assert (store / "histories.parquet").stat().st_mtime_ns == histories
    (refused, *_) = sorted((store / "comparisons").iterdir())
    assert {path.name for path in refused.iterdir()} == {"compare.json", "compare.html"}
    load_bundle(store)
    assert (
        publish(replace(changed, publish=PublishConfig(map=False)), QUIET) == current_version(store) != before
    )


def test_the_first_bundle_passes_and_that_is_said(gated: PipelineConfig) -> None:
    shutil.rmtree(store_of(gated))
    shutil.rmtree(Path(gated.work_dir) / "publish")
    console = Console(record=True, width=200)
    version = publish(gated, console)
    assert current_version(store_of(gated)) == version
    assert "publish.gate: nothing is current yet; the first bundle passes" in console.export_text()


def test_a_current_bundle_that_cannot_be_compared_is_an_error_with_a_way_out(gated: PipelineConfig) -> None:
    store = store_of(gated)
    folder = store / "versions" / current_version(store)
    (folder / "text_vectors.npy").unlink()
    shutil.rmtree(Path(gated.work_dir) / "publish")
    with pytest.raises(InputError, match=r"publish.gate: .*missing.*publish.gate=null publishes without"):
        publish(gated, QUIET)
    assert versions(store) == [folder.name]


def test_a_current_bundle_that_knows_the_test_window_is_no_judge(gated: PipelineConfig) -> None:
    everything = replace(
        gated,
        refit=Refit.everything,
        publish=PublishConfig(map=False),
        evaluation=replace(gated.evaluation, test=False),
    )
    from ranking.pipeline.refit import refit

    refit(everything, QUIET)
    leaky = publish(everything, QUIET)
    with pytest.raises(InputError, match=f"publish.gate: {leaky} may have learned from the test window"):
        publish(gated, QUIET)
    assert current_version(store_of(gated)) == leaky


def test_a_gate_needs_a_window_that_nothing_learns_from(gated: PipelineConfig) -> None:
    with pytest.raises(InputError, match="set refit=before_test, or publish.gate=null"):
        replace(gated, refit=Refit.everything, evaluation=replace(gated.evaluation, test=False))


def test_a_misspelt_guard_is_found_before_anything_is_written(gated: PipelineConfig) -> None:
    with pytest.raises(
        InputError, match=r"publish.gate, guard 1: unknown key 'metrics'; did you mean 'metric'\?"
    ):
        PublishConfig(gate=[{"metrics": "ndcg@10", "loss": "1%"}])
    shutil.rmtree(Path(gated.work_dir) / "publish")
    before = current_version(store_of(gated))
    with pytest.raises(InputError, match="no metric 'ndgc@10'"):
        publish(replace(gated, publish=PublishConfig(gate=[{"metric": "ndgc@10", "loss": "1%"}])), QUIET)
    assert versions(store_of(gated)) == [before]


def write(folder: Path) -> None:
    (folder / "file").write_text("content")


def test_a_rollback_in_the_middle_is_compared_again(tmp_path: Path) -> None:
    """A rollback need not wait for a gate, and the version is compared with what is current by then."""
    first, second = (publish_version(tmp_path, write, {"number": n}) for n in (1, 2))
    seen: list[str | None] = []

    def gate(_: Path, __: dict[str, Any], current: str | None) -> None:
        seen.append(current)
        if len(seen) == 1:
            assert roll_back(tmp_path) == first

    third = publish_version(tmp_path, write, {"number": 3}, gate)
    assert seen == [second, first]
    assert current_version(tmp_path) == third


def test_a_kill_during_the_gate_leaves_the_current_version(tmp_path: Path) -> None:
    before = publish_version(tmp_path, write, {})
    program = (
        "import os, signal, sys; from pathlib import Path; from ranking.bundle.store import publish_version\n"
        "def write(folder): (folder / 'file').write_text('other')\n"
        "def gate(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "publish_version(Path(sys.argv[1]), write, {}, gate)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=False, env=os.environ, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    assert current_version(tmp_path) == before
    assert versions(tmp_path) == [before]
    assert len(list((tmp_path / "versions").glob(".staging-*"))) == 1
    after = publish_version(tmp_path, write, {"number": 2})
    assert list((tmp_path / "versions").glob(".staging-*")) == []
    assert (current_version(tmp_path), store_module.pointed_at(tmp_path)) == (after, after)
    assert np.array_equal(versions(tmp_path), sorted([before, after]))
