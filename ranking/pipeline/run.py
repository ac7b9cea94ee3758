"""The pipeline: every step in order, each skipped if its inputs have not changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from conf.comparison import read_guards
from conf.schema import EvaluateConfig, PipelineConfig, Refit
from encoders.device import describe_device, resolve_device
from encoders.training.progress import progress
from encoders.training.train import (  # fmt: skip
    train_encoder,
    trainable,
    try_split,
    untouched_vectors,
)
from features.data.dataset import Dataset, load_dataset
from features.data.pipeline_step import write_atomically
from features.data.splits import exclude_seen
from features.prepare import DATASET_FOLDER
from ranking.baselines.items import FrozenText
from ranking.bundle.store import VERSIONS, current_version, verify
from ranking.comparison.judge import judge
from ranking.evaluation.evaluation import evaluate_lists
from ranking.evaluation.report import print_table, write_evaluation
from ranking.pipeline.lint_data import EVALUATION_FOLDER, warn_of_leaks
from ranking.pipeline.prepared import prepared
from ranking.pipeline.publish import ARTIFACTS, git_sha, publish
from ranking.pipeline.refit import refit
from ranking.pipeline.track import track_evaluation, tracking
from ranking.pipeline.window_systems import SystemsOfWindows
from ranking.training.ids_only import ids_only_towers
from ranking.training.train import RANKER, train_ranker

METRICS = "metrics.json"


def _code_version() -> str:
    """Return the package version and, in a repository, the commit."""
    sha = git_sha()
    return version("shelfwise") + (f"+{sha[:12]}" if sha else "")


def evaluate(config: PipelineConfig, console: Console, dataset: Dataset | None = None) -> float | None:
    """Measure the published bundle, its user tower alone and the baselines; write metrics and a report.

    Validation lists are made by the same models with statistics as of the start of validation; test lists by
    the bundle, loaded as a server loads it. With `evaluation.test=false` the test window is not read and no
    bundle is needed.

    Returns:
        Validation ndcg@10 (what a sweep maximises), or None where there is nothing to evaluate on.
    """
    work, device = Path(config.work_dir), resolve_device(config.device)
    dataset = dataset or load_dataset(work / DATASET_FOLDER)
    split = try_split(config, dataset)
    if split is None or not trainable(split, dataset):
        console.print(f"evaluate: {len(dataset.events):,} events are too few to divide; nothing was measured")
        return None
    published = None
    if config.evaluation.test:
        published = current_version(work / ARTIFACTS)
        verify(work / ARTIFACTS / VERSIONS / published)
    else:  # no bundle guarantees the settings that the models were trained with
        RANKER.step(config, dataset.facts).require()
    exclude = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    frozen = untouched_vectors(config, dataset, FrozenText.name in config.evaluation.baselines, console)
    with progress(console) as bar:
        windows = ["valid"] if published is None else ["valid", "test"]
        most = config.evaluation.max_users or len(dataset.events.offsets)
        asked = sum(min(len(getattr(split, window)), most) for window in windows)
        task = bar.add_task("ranking the catalogue", total=asked)
        systems = SystemsOfWindows(
            config, dataset, split, exclude, published, device, lambda n: bar.advance(task, n)
        )
        evaluation = evaluate_lists(
            {window: partial(systems.make, window) for window in windows},
            dataset,
            split,
            config.evaluation,
            exclude_seen=exclude,
            vectors=frozen,
            seed=config.seed,
            code_version=_code_version(),
            train_ids=lambda end: ids_only_towers(config, dataset, split, end, console),
            refit=config.refit.value,
            device=device,
        )
    folder = write_evaluation(work / EVALUATION_FOLDER, evaluation, dataset)
    print_table(evaluation.result, console)
    console.print(f"metrics, predictions and report in {folder}")
    track_evaluation(
        config, evaluation.result, folder, None if published is None else work / ARTIFACTS, console
    )
    score: float | None = evaluation.result["valid"]["shelfwise"]["ndcg@10"]
    return score


def evaluate_command(config: EvaluateConfig, console: Console) -> float | None:
    """Carry out `shelfwise evaluate`: measure the run, or the lists of a file.

    Returns:
        As `evaluate`; None for a file.
    """
    if config.predictions is None:
        return evaluate(config, console)
    judge(config, console)
    return None


def run(config: PipelineConfig, console: Console) -> float | None:
    """Prepare, train, refit, publish and evaluate.

    With `evaluation.test=false` nothing is refitted or published, unless `refit=everything`.

    Returns:
        Validation ndcg@10, or None where there was too little data to evaluate on.

    Raises:
        InputError: the configured GPU is not visible to torch; raised before the first step.
    """
    started = time.perf_counter()
    read_guards(config.publish.gate, "publish.gate")  # not only after training
    console.print(f"device: {describe_device(resolve_device(config.device))}", highlight=False)
    steps: dict[str, Callable[[PipelineConfig, Console, Dataset], object]] = {
        "train-encoder": train_encoder, "train-ranker": train_ranker,
    }  # fmt: skip
    if config.evaluation.test or config.refit is Refit.everything:
        if config.refit is not Refit.never:
            steps["refit"] = refit
        steps["publish"] = publish
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        console.rule(f"[bold]{len(seconds) + 1}/{len(steps) + 2} {name}")
        begin = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - begin, 1)

    with tracking(config):
        with timed("prepare"):
            dataset = prepared(config, console)
            warn_of_leaks(config, dataset, console)
        for name, step in steps.items():
            with timed(name):
                step(config, console, dataset)
        with timed("evaluate"):
            result = evaluate(config, console, dataset)
    metrics = Path(config.work_dir) / EVALUATION_FOLDER / METRICS
    if result is not None:
        written = json.loads(metrics.read_text())
        written["timing"]["run_seconds"] = seconds
        write_atomically(metrics, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    console.print(f"done in {time.perf_counter() - started:.0f} s: {seconds}", highlight=False)
    return result
