"""The best trial made usable: an experiment file, the command that takes it, and the table of trials."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from conf.schema import PipelineConfig
from features.data.pipeline_step import plain, write_atomically
from tuning.study import best_trial, record_of, started

MODEL = ("text_encoder", "user_encoder", "candidates", "index", "ranker", "rerank")
"""Sections that describe the model; the others describe the shop, the protocol and the machine."""
GROUPS = ("experiment", "sweep")
SCORE = "ndcg@10"


def shop_overrides(fixed: Sequence[str]) -> list[str]:
    """Keep the overrides that say whose data it is and where: those that go beside `experiment=`."""
    kept = []
    for override in fixed:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in (*MODEL, *GROUPS, "reuse") and key not in (
            "work_dir",
            "evaluation.test",
        ):
            kept.append(override)
    return kept


def changed(config: PipelineConfig, reference: PipelineConfig) -> dict[str, Any]:
    """Return the settings in which a trial differs from a reference, leaving out where it ran."""

    def differ(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in ours.items():
            if isinstance(value, dict) and isinstance(theirs[key], dict) and value and theirs[key]:
                inner = differ(value, theirs[key])
                if inner:
                    found[key] = inner
            elif value != theirs[key]:
                found[key] = value
        return found

    found = differ(plain(config), plain(reference))
    for key in ("work_dir", "reuse"):
        found.pop(key, None)
    for key in ("test", "baselines"):  # a trial measures less; that is nothing to keep
        found.get("evaluation", {}).pop(key, None)
    return {key: value for key, value in found.items() if value != {}}


def write_experiment(
    folder: Path, name: str, settings: Mapping[str, Any], trial: FrozenTrial, first: FrozenTrial, trials: int
) -> Path:
    """Write `experiment/NAME.yaml`, which `--config-dir FOLDER experiment=NAME` takes.

    Args:
        folder: of the sweep.
        name: of the experiment.
        settings: what it changes.
        trial: the winner.
        first: trial 0, shown for comparison when it has a score.
        trials: how many there were.
    """
    lines = [
        "# @package _global_",
        f"# Trial {trial.number}, the best of {trials}: validation {SCORE} {trial.value:.4f}.",
    ]
    if first.value is not None and trial.number != first.number:
        lines.append(f"# Trial 0: {first.value:.4f}.")
    lines.append("# Searched: " + ", ".join(trial.params) + ".")
    body = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    path = folder / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(lines) + "\n" + body)
    return path


def winner_command(folder: Path, name: str, overrides: Sequence[str], work_dir: str) -> str:
    """Return the command that publishes the winner and measures it on test, taking over what was trained."""
    words = [
        "shelfwise", "run", *overrides, f"work_dir={work_dir}", "--config-dir", str(folder),
        f"experiment={name}", f"reuse=[{folder}/trials/*]",
    ]  # fmt: skip
    return " ".join(shlex.quote(word) for word in words)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def trials_table(study: Study, title: str) -> Table:
    """Return a row per trial: score, seconds, and its values."""
    table = Table(title=title)
    table.add_column("trial", justify="right")
    table.add_column(SCORE, justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("settings", overflow="fold")
    best = best_trial(study)
    for trial in started(study):
        record = record_of(study, trial.number)
        values = " ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            score = f"{trial.value:.4f}"
        else:
            score = "failed" if trial.state is TrialState.FAIL else "cut off"
            values += f"\n{record.failure}" if record.failure else ""
        table.add_row(
            str(trial.number),
            score,
            "" if record.seconds is None else f"{record.seconds:.0f}",
            values,
            style="bold" if best is not None and trial.number == best.number else "",
        )
    return table
