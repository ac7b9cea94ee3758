"""Runs of several seeds in one command: `shelfwise run -m seed=0,1,2`.

A seed decides all randomness of a run, so the spread of its metrics over seeds is the part that chance has in
them. Each seed has a work directory of its own; the end is a table of mean, sample standard deviation and
range of every system and metric.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from rich.console import Console
from rich.table import Table

from conf.schema import PipelineConfig
from features.data.pipeline_step import write_atomically
from tuning.spread import summarise

COMMAND: Final = "run"
FOLDER: Final = "seeds"
"""In the work directory: a work directory per seed, and the summary."""
SUMMARY: Final = "seeds.json"
METRICS: Final = Path("evaluation") / "metrics.json"
SHOWN: Final = ("recall@10", "ndcg@10", "mrr", "coverage@10")
"""Metrics of the printed table, which fits 80 columns; the file has all."""


@dataclass
class SeedRuns:
    """The runs of a sweep over seeds, with the work directories of those that have ended."""

    others: tuple[str, ...]
    """Other settings with several values; every combination of these has a summary of its own."""
    ended: dict[Path, dict[int, Path]] = field(default_factory=dict)
    """By folder of a combination: work directory of each seed."""

    @property
    def folders(self) -> list[str]:
        """Overrides that keep Hydra from making folders of its own for the jobs, which would stay empty."""
        return ["hydra.sweep.dir=${work_dir}/" + FOLDER, "hydra.sweep.subdir=."]

    @classmethod
    def of(cls, command: str, arguments: Sequence[str]) -> SeedRuns | None:
        """Return the runs of a command line; None where it does not sweep over seeds.

        A search for settings, which has seeds of its own, is none.
        """
        settings = [a for a in arguments if not a.startswith("-") and "=" in a]
        if command != COMMAND or any(a.startswith(("sweep=", "hydra/sweeper=")) for a in settings):
            return None
        try:
            parsed = OverridesParser.create().parse_overrides(settings)
        except HydraException:
            return None  # Hydra reports it itself
        varied = [o.key_or_group for o in parsed if o.is_sweep_override()]
        return cls(tuple(k for k in varied if k != "seed")) if "seed" in varied else None

    def placed(self, config: PipelineConfig, overrides: Sequence[str]) -> PipelineConfig:
        """Return a job's configuration in a work directory of its own, which shares finished steps.

        Args:
            config: of the job.
            overrides: of the job, its values of the varied settings among them.
        """
        root = Path(config.work_dir) / FOLDER
        chosen = [o for o in overrides if o.partition("=")[0] in self.others]
        folder = root / ",".join(chosen).replace("/", "_") if chosen else root
        work = folder / str(config.seed)
        self.ended.setdefault(folder, {})[config.seed] = work
        donors = [config.work_dir, *(f"{glob.escape(str(root))}/{deep}" for deep in ("*", "*/*"))]
        return replace(config, work_dir=str(work), reuse=[*config.reuse, *donors])

    def summarise(self, console: Console) -> None:
        """Print the table of each combination and write it beside its runs, for seeds that were measured."""
        for folder, runs in self.ended.items():
            read = {
                s: json.loads((w / METRICS).read_text()) for s, w in runs.items() if (w / METRICS).is_file()
            }
            if not read:
                console.print(f"{folder}: no seed was measured, see above", highlight=False)
                continue
            results = list(read.values())
            window = results[0]["protocol"]["measured"]
            summary = summarise(results, list(results[0][window][results[0]["protocol"]["system"]]))
            summary["seeds"] = list(read)
            summary["work_dirs"] = [str(runs[seed]) for seed in read]
            write_atomically(
                folder / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            )
            console.print(seeds_table(summary))
            for line in gain_lines(summary):
                console.print(line, highlight=False)
            console.print(f"every metric, slices and cold items: {folder / SUMMARY}", highlight=False)


def _short(value: float) -> str:
    """`.1234`: shares are below one."""
    return f"{value:.4f}".removeprefix("0")


def _cell(values: dict[str, Any] | None) -> str:
    """Return mean and sample standard deviation, and below the range; a dash for an unknown value."""
    if values is None:
        return "–"
    if values["deviation"] is None:
        return _short(values["mean"])
    spread = f"{_short(values['mean'])} ± {_short(values['deviation'])}"
    return f"{spread}\n{_short(values['min'])} – {_short(values['max'])}"


def seeds_table(summary: dict[str, Any]) -> Table:
    """Return a terminal table of a summary of `tuning.spread.summarise` with its `seeds`."""
    seeds = ", ".join(map(str, summary["seeds"]))
    table = Table(
        title=f"{summary['window']}, seeds {seeds}: mean ± sample standard deviation, smallest to largest"
    )
    table.add_column("system")
    for metric in SHOWN:
        table.add_column(metric, justify="right")
    for system, values in summary["systems"].items():
        style = "bold" if system == summary["system"] else ""
        table.add_row(system, *(_cell(values.get(metric)) for metric in SHOWN), style=style)
    return table


def gain_lines(summary: dict[str, Any]) -> list[str]:
    """Return how far the system is above the best baseline, with the largest p-value of any seed."""
    lines = []
    for metric in SHOWN:
        gain = summary["gains"].get(metric)
        if gain is None or gain["gain"] is None or gain["largest_p_value"] is None:
            continue
        p_value = gain["largest_p_value"]
        chance = "p < .001" if p_value < 0.001 else f"p = {p_value:.3f}"
        lines.append(f"{metric}: {gain['gain']:+.1%} over {gain['best_baseline']} (largest {chance})")
    return lines
