"""Shared by external comparisons: another project's model on this project's split, with its metrics.

The other project has an environment of its own beside the results, created once; they exchange files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import LIST_DEPTH, PipelineConfig, SplitKind
from encoders.training.train import try_split
from features.data.dataset import Dataset, IntArray, LongArray, load_dataset
from features.data.splits import Queries, exclude_seen, ragged_ranges
from ranking.baselines.lists import prefix_positions
from ranking.evaluation.evaluation import sample_queries
from ranking.evaluation.metrics import means, ranking_metrics

HERE = Path(__file__).parent
KS = (10, 20)
SHOWN = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Outsider:
    """Another project."""

    name: str
    """Name of the project."""
    benchmark: str
    """Name of its package here, and of the result's file."""

    @property
    def requirements(self) -> Path:
        """Exact versions of its environment."""
        return HERE / self.benchmark / "requirements.txt"

    @property
    def worker(self) -> Path:
        """The script that trains in its environment, in a folder with data.npz and settings.json."""
        return HERE / self.benchmark / "worker.py"


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every external comparison."""
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument(
        "--max-seconds", type=float, default=900.0, help="no epoch begins that would end later"
    )
    parser.add_argument(
        "--users", type=int, default=0, help="train and test on the first so many users; 0 is all"
    )
    parser.add_argument("--python", help="an interpreter that has the project, instead of a new environment")


def environment(outsider: Outsider, folder: Path, console: Console) -> str:
    """Return an interpreter with pinned versions of the project and torch, created on the first call."""
    home = folder / "environment"
    python, installed = home / "bin" / "python", home / "installed.txt"
    requirements = outsider.requirements.read_text()
    if not installed.is_file() or installed.read_text() != requirements:
        console.print(f"making {home} with {outsider.name} and torch (once)")
        venv.create(home, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-r", str(outsider.requirements)], check=True)
        installed.write_text(requirements)
    return str(python)


def first_users(queries: Queries, users: int) -> Queries:
    """Return the queries of users below a row; all for 0."""
    return queries.select(np.flatnonzero(queries.user < users)) if users else queries


def arrays_of(window: str, dataset: Dataset, queries: Queries) -> dict[str, IntArray]:
    """Return histories and targets of a window as flat columns of user and item rows."""
    begin = dataset.events.offsets[:-1][queries.user]
    history = ragged_ranges(begin, queries.end - begin)
    return {
        f"{window}_user": queries.user,
        f"{window}_history_user": dataset.events.user[history],
        f"{window}_history_item": dataset.events.item[history],
        f"{window}_target_user": np.repeat(queries.user, np.diff(queries.target_offsets)),
        f"{window}_target_item": queries.targets,
    }


def training(dataset: Dataset, end: LongArray, users: int) -> dict[str, IntArray]:
    """Return the training events as flat columns, oldest first within a user."""
    positions = prefix_positions(dataset.events, end)
    user, item = dataset.events.user[positions], dataset.events.item[positions]
    keep = user < users if users else np.ones(len(user), dtype=bool)
    return {"train_user": user[keep], "train_item": item[keep]}


def agree(ours: dict[str, float | None], theirs: dict[str, float]) -> float:
    """Return the largest difference between two measurements of the same lists.

    Raises:
        InputError: when they differ by more than rounding.

    """
    gap = max(abs((ours[name] or 0.0) - value) for name, value in theirs.items())
    if gap > TOLERANCE:
        raise InputError(f"the two projects measure the same lists differently, by {gap:.2g}")
    return gap


def published(work: Path, dataset: Dataset, queries: int) -> dict[str, float] | None:
    """Return shelfwise's test metrics if `shelfwise evaluate` used the same queries."""
    file = work / "evaluation" / "metrics.json"
    if not file.is_file():
        return None
    metrics = json.loads(file.read_text())
    protocol = metrics["protocol"]
    same = protocol["split"] == "leave_one_out" and protocol["queries"]["test"] == queries
    if not same or protocol["dataset_hash"] != dataset.info["content_hash"]:
        return None
    found: dict[str, float] = metrics["test"]["shelfwise"]
    return found


def compare(outsider: Outsider, options: argparse.Namespace, overrides: list[str]) -> None:
    """Train the other project's model, measure its lists, and write `<work_dir>/benchmarks/<benchmark>.json`.

    Args:
        outsider: the other project.
        options: of the command line; those specific to the worker are passed on to it.
        overrides: those of `shelfwise evaluate`.

    Raises:
        InputError: no leave-one-out split, or the two projects measure the same lists differently.

    """
    console = Console()
    config: PipelineConfig = compose_command("evaluate", overrides)
    work = Path(config.work_dir)
    dataset = load_dataset(work / "dataset")
    split = try_split(config, dataset)
    if split is None or split.kind is not SplitKind.leave_one_out:
        raise InputError(f"{work}: this needs split=leave_one_out and enough events to divide")
    exclude = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    most = config.evaluation.max_users
    windows = {
        "valid": first_users(sample_queries(split.valid, most, config.seed), options.users),
        "test": first_users(sample_queries(split.test, most, config.seed), options.users),
    }
    folder = work / "benchmarks" / outsider.name.lower()
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = dict(training(dataset, split.train_end, options.users))
    data["item_text"] = np.array(dataset.catalogue.texts)
    for window, queries in windows.items():
        data |= arrays_of(window, dataset, queries)
    np.savez(folder / "data.npz", **data)
    settings: dict[str, Any] = {k: v for k, v in vars(options).items() if k not in ("python", "users")}
    settings |= {"threads": config.threads, "seed": config.seed, "depth": LIST_DEPTH, "exclude_seen": exclude}
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    python = str(Path(options.python or environment(outsider, folder, console)).absolute())
    started = time.perf_counter()
    # In its own folder: some projects write logs into the current one.
    worker = [python, str(outsider.worker.resolve()), str(folder.resolve())]
    subprocess.run(worker, check=True, cwd=folder)
    seconds = time.perf_counter() - started
    found = json.loads((folder / "result.json").read_text())
    table = Table(
        "system", "window", "measured by", *SHOWN,
        title=f"{len(windows['test']):,} users, all {len(dataset.catalogue):,} items, "
        f"epoch {found['epoch']} of {len(found['epoch_seconds'])}, {seconds:.0f} s",
    )  # fmt: skip
    report: dict[str, Any] = {
        "settings": settings,
        "users": options.users,
        "seconds": round(seconds, 1),
        **found,
    }
    report["protocol"] = {
        "split": split.kind.value, "exclude_seen": exclude, "items": len(dataset.catalogue),
        "queries": {w: len(q) for w, q in windows.items()}, "dataset_hash": dataset.info["content_hash"],
    }  # fmt: skip
    system = f"{outsider.name} {found['model']}"
    for window, queries in windows.items():
        lists = np.load(folder / f"{window}_lists.npy")
        measured = {"shelfwise": means(ranking_metrics(lists, queries, KS))}
        if window in found:
            measured[outsider.name] = found[window]
            report["largest_difference"] = max(
                report.get("largest_difference", 0.0), agree(measured["shelfwise"], found[window])
            )
        for who, values in measured.items():
            table.add_row(system, window, who, *(f"{values[name]:.4f}" for name in SHOWN))
        report[window] = {who.lower(): values for who, values in measured.items()}
    own = published(work, dataset, len(windows["test"]))
    if own is not None:
        table.add_row("shelfwise", "test", "shelfwise", *(f"{own[name]:.4f}" for name in SHOWN))
        report["shelfwise_test"] = own
    console.print(table)
    (work / "benchmarks" / f"{outsider.benchmark}.json").write_text(json.dumps(report, indent=2) + "\n")
