"""The precision of the text encoder: `auto` takes what is fastest on this machine, measured once."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from conf.encoders import Precision
from encoders.text.compiled_text_encoder import CompiledTextEncoder, native_bf16
from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray
from features.data.pipeline_step import write_atomically

MEMORY = "precision.json"
"""File in the work directory: the machine, and seconds by use and precision."""
EMBEDDING = "embedding"
TRAINING = "training"
SECONDS = 0.2
"""Time spent on one use, in seconds; each precision is timed at least once."""
WORTH = 1.1
"""bf16 is less exact: it has to be faster by this factor."""
TEXTS, LENGTH = 16, 16
"""Size of the timed batch, which is small."""


@dataclass(frozen=True)
class Precisions:
    """The precision of each use of a text encoder, bf16 or fp32."""

    embedding: Precision
    training: Precision


def serving_precision(stored: str, device: torch.device) -> Precision:
    """Return the precision of a bundle's encoder on the machine that serves it.

    Args:
        stored: precision of the bundle's text vectors, from the manifest.
        device: the encoder's.

    Returns:
        The same, so that queries are rounded as the catalogue was; fp32 where bf16 would be emulated, which
        is slow and no nearer to the catalogue, and for bundles without a record (`auto`).

    """
    return Precision.bf16 if stored == Precision.bf16.value and native_bf16(device) else Precision.fp32


def choose_precision(
    setting: Precision, encoder: TextEncoder, work_dir: Path, console: Console, uses: tuple[str, ...]
) -> Precisions:
    """Return the precisions that a setting means here.

    `auto` is bf16 on GPUs that have it. On a CPU each use is timed for a fraction of a second and the timings
    are stored in the work directory, so a resumed run keeps its precision. Timings of another machine,
    another version of PyTorch or a model of another size are ignored. Weights and random state do not change.

    Args:
        setting: `text_encoder.precision`.
        encoder: the encoder, on its device.
        work_dir: folder of the stored timings.
        console: where the choice is printed, if it was measured.
        uses: `EMBEDDING`, `TRAINING` or both; fp32 is returned for the other.

    """
    device = next(encoder.parameters()).device
    if setting is not Precision.auto:
        return Precisions(setting, setting)
    if device.type != "cpu" or not native_bf16(device):
        chosen = Precision.bf16 if native_bf16(device) else Precision.fp32
        return Precisions(chosen, chosen)
    timings = {EMBEDDING: _embedding, TRAINING: _training}
    seconds = _stored_timings(work_dir / MEMORY, _machine(encoder))
    missing = [use for use in uses if use not in seconds]
    for use in missing:
        seconds[use] = _time(timings[use](encoder))
    if missing:
        work_dir.mkdir(parents=True, exist_ok=True)
        content = {"machine": _machine(encoder), "seconds": seconds}
        write_atomically(work_dir / MEMORY, json.dumps(content, indent=2) + "\n")
        console.print("text encoder: " + "; ".join(_line(use, seconds[use]) for use in uses))
    chosen_by_use = {use: faster(seconds[use]) for use in uses}
    return Precisions(*(chosen_by_use.get(use, Precision.fp32) for use in (EMBEDDING, TRAINING)))


def faster(seconds: Mapping[str, float]) -> Precision:
    """Return the faster precision, given the seconds of each by name."""
    bf16, fp32 = seconds[Precision.bf16.value], seconds[Precision.fp32.value]
    return Precision.bf16 if bf16 * WORTH < fp32 else Precision.fp32


def _line(use: str, seconds: Mapping[str, float]) -> str:
    rates = (f"{name} {TEXTS * LENGTH / taken:,.0f}" for name, taken in seconds.items())
    return f"{use} in {faster(seconds).value} ({' and '.join(rates)} tokens/s of a core)"


def _machine(encoder: TextEncoder) -> dict[str, object]:
    """Return the key of stored timings: processor, threads, PyTorch and the size of the model."""
    return {
        "cpu": _processor(),
        "torch": torch.__version__,
        "model": [type(encoder.backbone).__name__, sum(p.numel() for p in encoder.parameters())],
    }


def _processor() -> str:
    """Return the name of the CPU and the instruction set that PyTorch uses."""
    capability = torch.backends.cpu.get_cpu_capability()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return f"{platform.processor() or platform.machine()}, {capability}"
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.machine()}, {capability}"


def _stored_timings(path: Path, machine: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """Return seconds by use and precision; nothing if the file is damaged or of another machine."""
    try:
        content: Any = json.loads(path.read_text())
        if content["machine"] != machine:
            return {}
        return {
            use: {precision: float(taken[precision]) for precision in ("fp32", "bf16")}
            for use, taken in content["seconds"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _time(passes: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the least seconds of each call, run in turns, after a warm-up run of each.

    CPU seconds of one thread: other load on the machine matters little.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for call in passes.values():
            call()
        least = dict.fromkeys(passes, float("inf"))
        end = time.thread_time() + SECONDS
        while time.thread_time() < end:
            for name, call in passes.items():
                start = time.thread_time()
                call()
                least[name] = min(least[name], time.thread_time() - start)
        return least
    finally:
        torch.set_num_threads(threads)


def _ids(encoder: TextEncoder) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Return arbitrary token ids, [texts, tokens]."""
    rng = np.random.default_rng(0)
    return rng.integers(0, encoder.backbone.config.vocab_size, (TEXTS, LENGTH)).astype(np.int32)


def _embedding(encoder: TextEncoder) -> dict[str, Callable[[], object]]:
    """Return by precision a function that embeds a batch."""
    tokens = TokenArray.of(_ids(encoder).tolist())
    frozen = {p: CompiledTextEncoder(encoder, p) for p in (Precision.fp32, Precision.bf16)}
    return {p.value: lambda one=one: one.embed_tokens(tokens) for p, one in frozen.items()}  # type: ignore[misc]


def _training(encoder: TextEncoder) -> dict[str, Callable[[], object]]:
    """Return by precision a function that runs a batch forward and backward, without dropout."""
    ids = torch.from_numpy(_ids(encoder)).long()
    learn = [p for p in encoder.parameters() if p.requires_grad]

    def step(bf16: bool) -> None:
        mode = encoder.training
        encoder.eval()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            vectors = encoder(ids, torch.ones_like(ids))
        torch.autograd.grad(vectors.square().sum() + vectors.sum(), learn, allow_unused=True)
        encoder.train(mode)

    return {"fp32": lambda: step(False), "bf16": lambda: step(True)}
