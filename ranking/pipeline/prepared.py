"""The first step of the pipeline: a prepared dataset, made anew only if its files or settings changed."""

from __future__ import annotations

from rich.console import Console

from conf.schema import PipelineConfig
from features.adapters import shuffled, source_files
from features.data import schema
from features.data.dataset import Dataset, load_dataset
from features.data.pipeline_step import StepSpec
from features.files.copies import urls_of
from features.prepare import DATASET_FOLDER, prepare

PREPARE = StepSpec("prepare", DATASET_FOLDER, ("data", "privacy"))


def prepared(config: PipelineConfig, console: Console) -> Dataset:
    """Run prepare unless the same files were prepared with the same settings; return the dataset.

    A table at a URL is read every time: later steps depend on the content hash, which finds its changes.
    """
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in source_files(config.data)]
    step = PREPARE.step(config, [files, config.seed] if shuffled(config.data) else files)
    stored = any(urls_of(source) for source in (config.data.items, config.data.events, config.data.recorded))
    if stored or not (step.finished(config.reuse, console) and (step.folder / schema.DATASET_FILE).is_file()):
        prepare(config, console)
        step.complete()
    return load_dataset(step.folder)
