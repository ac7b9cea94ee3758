from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

import shelfwise
from tests.synthetic import World, read_json
from tests.test_command_line import call
from tuning.study import ATTEMPTS, MAX_ATTEMPTS, next_trial, only_one, open_study
from tuning.sweep import ready_space

ROOT = Path(__file__).parents[2]
SPACE = ["user_encoder.dropout=interval(0.1,0.6)", "ranker.hidden=choice([64,32],[16])"]
CHILD = """
import os, signal, sys
import ranking.pipeline.run, shelfwise

train_ranker = ranking.pipeline.run.train_ranker

def deadly(config, *rest):
    if config.work_dir.endswith("trials/1"):
        os.kill(os.getpid(), signal.SIGKILL)
    return train_ranker(config, *rest)

ranking.pipeline.run.train_ranker = deadly
shelfwise.main()
"""


def run_arguments(world: World, bert: Path, folder: Path, *more: str) -> list[str]:
    items, events = world.write(folder / "raw")
    return [
        "-m", "run", f"data.items={items}", f"data.events={events}", "data.text_fields=[title,brand]",
        "experiment=smoke", f"text_encoder.model={bert}", "text_encoder.frozen_layers=0", "threads=1",
        "text_encoder.precision=fp32",  # `auto` is measured, and may come out otherwise in another process
        f"work_dir={folder / 'work'}", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", *more,
    ]  # fmt: skip


def trials_of(folder: Path, name: str = "own") -> list[FrozenTrial]:
    file = folder.joinpath("work", "sweeps", name, "study.db")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{file}")
    return study.get_trials()


@pytest.fixture(scope="module")
def swept(world: World, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished sweep of three trials."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call(patch, *run_arguments(world, bert, folder, *SPACE)) == 0
    return folder


def test_a_sweep_keeps_every_trial_and_begins_with_the_settings_as_they_are(swept: Path) -> None:
    trials = trials_of(swept)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 3
    assert trials[0].params == {"user_encoder.dropout": 0.5, "ranker.hidden": "[64,32]"}
    assert len({t.params["user_encoder.dropout"] for t in trials}) == 3
    for trial in trials:
        folder = swept / "work" / "sweeps" / "own" / "trials" / str(trial.number)
        measured: Any = read_json(folder / "evaluation" / "metrics.json")
        assert measured["valid"]["shelfwise"]["ndcg@10"] == trial.value


def test_no_trial_publishes_or_looks_at_test(swept: Path) -> None:
    for trial in range(3):
        folder = swept / "work" / "sweeps" / "own" / "trials" / str(trial)
        assert not (folder / "artifacts").exists()
        measured: Any = read_json(folder / "evaluation" / "metrics.json")
        assert "test" not in measured
        assert measured["protocol"]["queries"].keys() == {"valid"}


def test_trials_share_the_steps_that_no_searched_setting_changes(swept: Path) -> None:
    trials = swept / "work" / "sweeps" / "own" / "trials"
    for shared in ("dataset/events.parquet", "text/text_vectors.npy", "encoder/text_vectors.npy"):
        assert len({(trials / str(n) / shared).stat().st_ino for n in range(3)}) == 1, shared
    for own in ("encoder/towers/user_encoder.safetensors", "ranker/ranker.safetensors"):
        assert len({(trials / str(n) / own).stat().st_ino for n in range(3)}) == 3, own


def test_the_winner_is_an_experiment_whose_run_repeats_nothing(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = swept / "work" / "sweeps" / "own"
    best = max(trials_of(swept), key=lambda t: t.value or 0.0)
    text = (folder / "experiment" / "own.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    assert f"Trial {best.number}, the best of 3: validation ndcg@10 {best.value:.4f}" in text
    assert "work_dir" not in text
    assert "data:" not in text
    assert "learning_rate" not in text
    items, events = swept / "raw" / "items.csv", swept / "raw" / "events.csv"
    monkeypatch.chdir(swept)
    arguments = [
        "run", f"data.items={items}", f"data.events={events}", "data.text_fields=[title,brand]", "threads=1",
        f"work_dir={swept / 'winner'}", "--config-dir", str(folder), "experiment=own",
        f"reuse=[{folder}/trials/*]",
    ]  # fmt: skip
    assert call(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.count("nothing new to do") == 3
    metrics: Any = read_json(swept / "winner" / "evaluation" / "metrics.json")
    assert metrics["valid"]["shelfwise"]["ndcg@10"] == best.value


def test_a_finished_sweep_called_again_runs_nothing(
    swept: Path, world: World, bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(swept)
    monkeypatch.setitem(shelfwise.COMMANDS, "run", lambda config: pytest.fail("a trial ran"))
    assert call(monkeypatch, *run_arguments(world, bert, swept, *SPACE)) == 0
    out = capsys.readouterr().out
    assert "going on after 3 of 3 trials" in out
    assert "experiment=own" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([*SPACE, "user_encoder.layers=1,2"], "was made with another search space"),
        ([*SPACE, "ranker.epochs=2"], "was made with other data or settings"),
        (
            [*SPACE, "hydra.sweeper.n_trial=3"],
            "unknown config key 'hydra.sweeper.n_trial'; did you mean 'n_trials'?",
        ),
        ([*SPACE, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be 1 or more"),
        ([*SPACE, "hydra.sweeper.study_name=a/b"], "may hold letters, digits, _ and - only"),
        ([*SPACE, "hydra.sweeper.storage=nonsense://x"], "hydra.sweeper.storage: cannot open"),
        (["usr_encoder.dim=8,16", "hydra.sweeper.study_name=wrong"], "unknown config key 'usr_encoder.dim'"),
    ],
)
def test_what_cannot_work_is_one_line(
    more: list[str], message: str, swept: Path, world: World, bert: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(swept)
    assert call(monkeypatch, *run_arguments(world, bert, swept, *more)) == 2
    err = capsys.readouterr().err
    assert err.startswith("shelfwise: ")
    assert err.count("\n") == 1
    assert message in err


def test_only_run_can_be_searched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "-m", "evaluate", "hydra/sweeper=optuna") == 2
    assert "shelfwise -m run" in capsys.readouterr().err


def test_a_killed_sweep_goes_on_with_the_same_trials(
    swept: Path, world: World, bert: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = run_arguments(world, bert, tmp_path, *SPACE)
    killed = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [t.state for t in trials_of(tmp_path)] == [TrialState.COMPLETE, TrialState.RUNNING]
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert "going on after 2 of 3 trials" in out
    assert "trial 0 of 3" not in out
    assert "train-encoder: nothing changed, keeping" in out, "trial 1 had trained its towers"
    resumed, whole = trials_of(tmp_path), trials_of(swept)
    assert [t.state for t in resumed] == [TrialState.COMPLETE] * 3
    assert [(t.params, t.value) for t in resumed] == [(t.params, t.value) for t in whole]


def test_a_failed_trial_is_recorded_and_the_sweep_goes_on(
    world: World,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = shelfwise.COMMANDS["run"]
    unlucky: list[int] = []

    def fragile(config: Any) -> float | None:
        number = int(Path(config.work_dir).name)
        if number and not unlucky:
            unlucky.append(number)
            raise RuntimeError("out of luck")
        return ran(config)

    monkeypatch.setitem(shelfwise.COMMANDS, "run", fragile)
    more = [
        "user_encoder.heads=choice(2,3)",
        "hydra.sweeper.storage=kept/here.db",
        "hydra.sweeper.study_name=odd",
    ]
    assert call(monkeypatch, *run_arguments(world, bert, tmp_path, *more, "hydra.sweeper.n_trials=6")) == 0
    study = optuna.load_study(study_name="odd", storage=f"sqlite:///{tmp_path}/kept/here.db")
    for trial in study.get_trials():
        bad = trial.number in unlucky or trial.params["user_encoder.heads"] == "3"
        assert trial.state is (TrialState.FAIL if bad else TrialState.COMPLETE)
    assert {t.params["user_encoder.heads"] for t in study.get_trials()} == {"2", "3"}
    out = capsys.readouterr().out
    assert "RuntimeError: out of luck" in out
    assert "user_encoder.dim must be a multiple of user_encoder.heads" in out.replace("\n", " ")


def test_a_ready_space_chooses_the_sweeper_and_names_the_study(
    world: World, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [a for a in run_arguments(world, bert, tmp_path) if a != "hydra/sweeper=optuna"]
    assert (
        call(monkeypatch, *arguments, "sweep=ranker", "hydra.sweeper.n_trials=2", "ranker.dropout=0.2") == 0
    )
    trials = trials_of(tmp_path, "ranker")
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    assert set(trials[0].params) == set(ready_space("ranker")) - {"ranker.dropout"}
    assert trials[0].params["ranker.hidden"] == "[64,32]", "the settings as they are come first"
    folder = tmp_path / "work" / "sweeps" / "ranker"
    assert "dropout: 0.2" in (folder / "experiment" / "ranker.yaml").read_text()
    assert not (tmp_path / "sweeps").exists()


def test_without_ranges_the_main_space_is_searched(
    world: World, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(shelfwise.COMMANDS, "run", lambda config: config.user_encoder.dropout)
    assert call(monkeypatch, *run_arguments(world, bert, tmp_path)) == 0
    trials = trials_of(tmp_path, "main")
    assert set(trials[0].params) == set(ready_space())
    assert [t.value for t in trials] == [t.params["user_encoder.dropout"] for t in trials]


def test_bad_input_stops_a_sweep_at_once_and_can_be_corrected(
    world: World,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = run_arguments(world, bert, tmp_path, *SPACE, "hydra.sweeper.n_trials=1")
    assert call(monkeypatch, *arguments, "data.items=none.csv") == 2
    assert "data.items: no such file: none.csv" in capsys.readouterr().err
    assert call(monkeypatch, *arguments) == 0
    assert [t.state for t in trials_of(tmp_path)] == [TrialState.COMPLETE]


def test_a_trial_that_keeps_killing_the_process_is_given_up(tmp_path: Path) -> None:
    space = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    study = open_study(f"sqlite:///{tmp_path}/s.db", "s", space, {})
    first = next_trial(study, space, 2, 0, 8)
    assert first is not None
    assert first.number == 0
    again = next_trial(study, space, 2, 0, 8)
    assert again is not None
    assert again.number == 0
    assert again.params == first.params
    again.set_user_attr(ATTEMPTS, MAX_ATTEMPTS)
    second = next_trial(study, space, 2, 0, 8)
    assert second is not None
    assert second.number == 1
    assert second.params != first.params
    assert study.get_trials()[0].state is TrialState.FAIL


def test_two_sweeps_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    from conf.errors import InputError

    with (
        only_one(tmp_path),
        pytest.raises(InputError, match="another sweep is running here"),
        only_one(tmp_path),
    ):
        pass
