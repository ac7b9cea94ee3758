"""The parts of `benchmarks.gpu`, each measured on one device in a process of its own.

    python -m benchmarks.gpu.parts embed cuda settings.json result.json

Times exclude imports, the loading of data, and a warm-up, which compiles kernels and allocates memory.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from benchmarks.runs import run_once
from benchmarks.search import search_figures
from benchmarks.serving.bundles import USERS, generated_store
from benchmarks.serving.load import Load
from benchmarks.serving.processes import run_load, running
from conf.composition.compose import compose_command
from conf.schema import PipelineConfig
from encoders.contexts import ContextBatch
from encoders.device import resolve_device
from encoders.text.embedding import embed_texts
from encoders.text.item_texts import ItemTexts
from encoders.text.precision import EMBEDDING, TRAINING, Precisions, choose_precision
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.text.tokens import TokenArray
from encoders.text.trainable import choose_trainable
from encoders.training.fit_towers import train_towers
from encoders.training.fitting import MONITORED, fit
from encoders.training.stage_one import StageOne
from encoders.training.train import text_contexts, try_split
from features.candidates.features import FeatureLayout
from features.data.dataset import Dataset, FloatArray, load_dataset
from features.data.splits import Split
from features.text.item_text import TextTemplate, render_parts
from ranking.sources import SOURCES
from ranking.training.examples import Examples
from ranking.training.train import fit_ranker

CONSOLE: Final = Console(file=sys.stderr)
VECTORS: Final = "gpu_vectors.npy"
"""File in the work directory: the catalogue's text vectors, read by later parts."""
_WARM_TEXTS: Final = 2_000


@dataclass(frozen=True)
class Sizes:
    """The workload of each part on a device."""

    texts: int = 0
    """Titles to embed; 0 takes all."""
    steps: int = 300
    """Steps of stage one."""
    epochs: int = 4
    """Epochs of the towers, and of the ranking head."""
    items: tuple[int, ...] = (100_000, 1_000_000)
    """Catalogue sizes of the searches."""
    seconds: float = 5.0
    """Seconds of load at each number of callers."""
    store_items: int = 10_000
    """Catalogue size of the served bundle."""


@dataclass(frozen=True)
class Settings:
    """The input of a part."""

    overrides: list[str]
    """Overrides of the pipeline's configuration."""
    work: str
    """Work directory with the prepared dataset."""
    sizes: Sizes

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read a file written by `write`."""
        raw = json.loads(path.read_text())
        return cls(
            raw["overrides"], raw["work"], Sizes(**{**raw["sizes"], "items": tuple(raw["sizes"]["items"])})
        )

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)))

    def config(self, device: str, *more: str) -> PipelineConfig:
        """Return the pipeline's configuration on a device."""
        overrides = [*self.overrides, f"work_dir={self.work}", f"device={device}", *more]
        composed: PipelineConfig = compose_command("run", overrides)
        return composed


def synchronize(device: torch.device) -> None:
    """Wait for a device's queued work: GPU kernels run asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device, work: Callable[[], object]) -> float:
    """Return the seconds of some work, including its work on the device."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def prepared(settings: Settings, config: PipelineConfig) -> tuple[Dataset, Split]:
    """Return the prepared dataset and its split."""
    dataset = load_dataset(Path(settings.work) / "dataset")
    split = try_split(config, dataset)
    if split is None:
        raise SystemExit("the data has too few events to divide")
    return dataset, split


def precisions(settings: Settings, config: PipelineConfig, encoder: TextEncoder) -> Precisions:
    """Return the precisions that a run would choose on the encoder's device."""
    work, uses = Path(settings.work), (EMBEDDING, TRAINING)
    return choose_precision(config.text_encoder.precision, encoder, work, CONSOLE, uses)


def vectors_of(settings: Settings, config: PipelineConfig, dataset: Dataset) -> FloatArray:
    """Return the catalogue's text vectors: those of the part `embed`, else encoded now, untimed."""
    path = Path(settings.work) / VECTORS
    if not path.is_file():
        encoder = load_text_encoder(config.text_encoder).to(resolve_device(config.device)).eval()
        precision = precisions(settings, config, encoder).embedding
        np.save(path, embed_texts(encoder, dataset.catalogue.texts, precision=precision))
    vectors: FloatArray = np.load(path)
    return vectors


def embed(settings: Settings, name: str) -> dict[str, Any]:
    """Embed the catalogue's titles with the pre-trained encoder."""
    config = settings.config(name)
    device = resolve_device(config.device)
    dataset = load_dataset(Path(settings.work) / "dataset")
    texts = dataset.catalogue.texts
    texts = texts[: settings.sizes.texts or len(texts)]
    encoder = load_text_encoder(config.text_encoder).to(device).eval()
    precision = precisions(settings, config, encoder).embedding
    embed_texts(encoder, texts[:_WARM_TEXTS], precision=precision)
    vectors: list[FloatArray] = []
    seconds = clock(device, lambda: vectors.append(embed_texts(encoder, texts, precision=precision)))
    if len(texts) == len(dataset.catalogue):
        np.save(Path(settings.work) / VECTORS, vectors[0])
    return {
        "texts": len(texts), "seconds": seconds, "per_second": len(texts) / seconds,
        "precision": precision.value,
    }  # fmt: skip


class _TimedStageOne(StageOne):
    """Stage one that times its steps after a warm-up."""

    warm = 20
    steps = 0
    started = 0.0
    seconds = 0.0

    def on_train_batch_start(self, batch: ContextBatch, batch_idx: int) -> None:
        """Start the clock after the first steps."""
        super().on_train_batch_start(batch, batch_idx)
        if batch_idx == self.warm:
            synchronize(self.device)
            self.started = time.perf_counter()

    def on_train_batch_end(self, outputs: object, batch: ContextBatch, batch_idx: int) -> None:
        """Stop the clock after the last step."""
        if batch_idx == self.warm + self.steps - 1:
            synchronize(self.device)
            self.seconds = time.perf_counter() - self.started


def stage_one(settings: Settings, name: str) -> dict[str, Any]:
    """Fine-tune the text encoder for some steps with the settings of `experiment=best`."""
    steps = settings.sizes.steps
    warm = min(_TimedStageOne.warm, steps)
    config = settings.config(
        name,
        "experiment=best",
        f"text_encoder.max_steps={warm + steps}",
        f"text_encoder.validate_every={warm + steps}",
    )
    dataset, split = prepared(settings, config)
    tuned = config.text_encoder
    encoder = load_text_encoder(tuned).to(resolve_device(config.device))
    template = TextTemplate.from_info(dataset.info)
    prompted = [encoder.prompts.passage + text for text in dataset.catalogue.texts]
    whole = TokenArray.tokenized(encoder.tokenizer, prompted, encoder.max_tokens)
    parts = render_parts(dataset.catalogue.frame, template)
    module = _TimedStageOne(
        encoder, tuned, precisions(settings, config, encoder),
        text_contexts(config, dataset, split.tower_end),
        ItemTexts(encoder, whole, parts, template.max_chars), dataset.events, split.valid, config.seed,
    )  # fmt: skip
    module.begin(vectors_of(settings, config, dataset)[module.pool])
    module.warm, module.steps = warm, steps
    choose_trainable(encoder, tuned)
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(
            module, Path(folder), max_epochs=1, patience=1, monitor=MONITORED,
            device=resolve_device(config.device), console=CONSOLE,
        )  # fmt: skip
    return {
        "steps": steps, "seconds": module.seconds, "seconds_of_300": module.seconds / steps * 300,
        "validation_recall@10": fitted.history,
    }  # fmt: skip


def towers(settings: Settings, name: str) -> dict[str, Any]:
    """Train both towers for some epochs and measure them on validation after each."""
    config = settings.config(name)
    device = resolve_device(config.device)
    dataset, split = prepared(settings, config)
    vectors = vectors_of(settings, config, dataset)
    recalls: list[float] = []

    def train(epochs: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            _, fitted = train_towers(
                config, dataset, vectors, split.train_end, split, True, epochs, Path(folder), CONSOLE
            )
        recalls[:] = fitted.history

    warm = clock(device, lambda: train(1))
    seconds = clock(device, lambda: train(settings.sizes.epochs))
    return {
        "epochs": settings.sizes.epochs, "seconds": seconds, "first_epoch_seconds": warm,
        "validation_recall@10": recalls,
    }  # fmt: skip


def search(settings: Settings, name: str) -> dict[str, Any]:
    """Search generated catalogues for candidates, with and without filters."""
    device = resolve_device(settings.config(name).device)
    return {str(items): search_figures(items, device) for items in settings.sizes.items}


def serve(settings: Settings, name: str) -> dict[str, Any]:
    """Run closed-loop load on a server, with 8 and with 32 callers."""
    sizes = settings.sizes
    work = Path(settings.work)
    store = generated_store(work / "stores", sizes.store_items)
    command = [
        sys.executable, "-m", "shelfwise", "serve", f"artifacts={store.path}", "port=0", "admin=true",
        f"device={name}",
    ]  # fmt: skip
    result: dict[str, Any] = {"items": sizes.store_items}
    with running(command, work / f"server-{name.replace(':', '-')}.log") as server:
        load = Load(server.address, "closed", sizes.seconds, sizes.store_items, USERS)
        run_load(replace(load, callers=4, seconds=2.0))
        for callers in (8, 32):
            result[f"callers_{callers}"] = run_load(replace(load, callers=callers))
    return result


def head(settings: Settings, name: str) -> dict[str, Any]:
    """Train the ranking head on generated lists of the size that Beauty's have."""
    config = settings.config(name)
    device = resolve_device(config.device)
    queries, width, features = 20_000, 48, FeatureLayout(SOURCES.names, 4).names
    rng = np.random.default_rng(0)
    values = rng.standard_normal((queries, width, len(features)), dtype=np.float32)
    # Labels depend on the features, so that there is something to learn.
    score = values[..., :8].sum(-1) + 2 * rng.standard_normal((queries, width), dtype=np.float32)
    chosen = score >= np.partition(score, width - 2, axis=1)[:, width - 2 : width - 1]
    examples = Examples(
        values, np.ones((queries, width), dtype=np.bool_), chosen, chosen & (rng.random(chosen.shape) < 0.3),
        values[..., 0], np.ones(queries, dtype=np.float32), chosen.sum(1).astype(np.int32),
    )  # fmt: skip
    held_out = np.arange(queries) >= 0.9 * queries
    train, valid = examples.select(~held_out), examples.select(held_out)
    found: list[float] = []

    def fitted(epochs: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            _, fit = fit_ranker(config, train, valid, valid, epochs, Path(folder), CONSOLE)
        found[:] = fit.history

    fitted(1)
    seconds = clock(device, lambda: fitted(settings.sizes.epochs))
    return {
        "epochs": settings.sizes.epochs,
        "lists": len(train),
        "seconds": seconds,
        "validation_ndcg@10": found,
    }


def whole(settings: Settings, name: str) -> dict[str, Any]:
    """Run the whole pipeline as `shelfwise run experiment=best`, in an empty work directory."""
    with tempfile.TemporaryDirectory(dir=settings.work) as folder:
        run = run_once([*settings.overrides, "experiment=best", f"device={name}"], Path(folder), CONSOLE)
    test = run.metrics["test"]["shelfwise"]
    return {
        "seconds": run.seconds, "steps": run.metrics["timing"]["run_seconds"], "peak_mib": run.peak_mib,
        "recall@10": test["recall@10"], "ndcg@10": test["ndcg@10"],
    }  # fmt: skip


PARTS: Final[dict[str, Callable[[Settings, str], dict[str, Any]]]] = {
    "embed": embed, "stage_one": stage_one, "towers": towers, "head": head, "search": search,
    "serve": serve, "whole": whole,
}  # fmt: skip


def main() -> None:
    """Measure one part on one device and write the result."""
    part, device, settings, output = sys.argv[1:]
    Path(output).write_text(json.dumps(PARTS[part](Settings.read(Path(settings)), device), indent=2) + "\n")


if __name__ == "__main__":
    main()
