"""Output of a sweep: an experiment file of the best trial, its command, and the table of trials."""

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
from tuning.study import FAILURE, SECONDS, best_trial, started

MODEL = ("text_encoder", "user_encoder", "candidates", "index", "ranker", "rerank")
"""Sections that describe the model; the others describe the shop, the protocol and the machine."""
GROUPS = ("experiment", "sweep")
SCORE = "ndcg@10"


def shop_overrides(fixed: Sequence[str]) -> list[str]:
    """Return the overrides of the data and folders, which are needed beside `experiment=`."""
    others = (*MODEL, *GROUPS, "reuse", "work_dir")

    def of_the_shop(override: str) -> bool:
        key = override.lstrip("+~").partition("=")[0]
        return key.partition(".")[0] not in others and key != "evaluation.test"

    return [override for override in fixed if of_the_shop(override)]


def changed(config: PipelineConfig, reference: PipelineConfig) -> dict[str, Any]:
    """Return the settings in which a trial differs from a reference.

    Folders, and what a trial does not evaluate (test, baselines), are excluded.
    """
    ours, theirs = plain(config), plain(reference)
    for key in ("test", "baselines"):
        ours["evaluation"][key] = theirs["evaluation"][key]

    def differ(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: differ(value, theirs[key]) if value and theirs[key] and isinstance(value, dict) else value
            for key, value in ours.items()
            if value != theirs[key] and key not in ("work_dir", "reuse")
        }

    return differ(ours, theirs)


def write_experiment(
    folder: Path, name: str, settings: Mapping[str, Any], best: FrozenTrial, trials: Sequence[FrozenTrial]
) -> Path:
    """Write `experiment/NAME.yaml`, for `--config-dir FOLDER experiment=NAME`.

    Args:
        folder: of the sweep.
        name: of the experiment.
        settings: its settings.
        best: the winner.
        trials: all trials; the score of the first is added for comparison.
    """
    lines = [
        "# @package _global_",
        f"# Trial {best.number}, the best of {len(trials)}: validation {SCORE} {best.value:.4f}.",
    ]
    if trials[0].value is not None and best.number != trials[0].number:
        lines.append(f"# Trial 0: {trials[0].value:.4f}.")
    lines.append("# Searched: " + ", ".join(best.params) + ".")
    body = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    path = folder / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(lines) + "\n" + body)
    return path


def winner_command(folder: Path, name: str, overrides: Sequence[str], work_dir: str) -> str:
    """Return the command that publishes the winner and evaluates it on test, reusing its trained steps."""
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
    for column in ("trial", SCORE, "seconds"):
        table.add_column(column, justify="right")
    table.add_column("settings", overflow="fold")
    best = best_trial(study)
    for trial in started(study):
        values = " ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            score = f"{trial.value:.4f}"
        else:
            score = "failed" if trial.state is TrialState.FAIL else "interrupted"
            values += f"\n{trial.user_attrs[FAILURE]}" if FAILURE in trial.user_attrs else ""
        seconds = f"{trial.user_attrs[SECONDS]:.0f}" if SECONDS in trial.user_attrs else ""
        style = "bold" if best is not None and trial.number == best.number else ""
        table.add_row(str(trial.number), score, seconds, values, style=style)
    return table
