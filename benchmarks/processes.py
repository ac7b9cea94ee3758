"""What it costs to train the towers in several processes of one machine: CPU time, time, memory of each.

    python -m benchmarks.processes --items 100000 --users 40000

On cores that one process uses already there is nothing to gain: the difference is the overhead of reductions,
and of look-ups where the item table is divided. An epoch of generated events. Memory is that of a process at
the end of its training: private, which only it has, and shared, of which the processes of a machine have one
copy.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from conf.encoders import UserEncoderConfig
from encoders.towers.towers import Towers
from encoders.training.fitting import fit
from encoders.training.processes import rank_and_size
from encoders.training.sharded_stage_two import ShardedStageTwo
from encoders.training.stage_two import StageTwo
from features.data.dataset import Events

EVENTS = 25
"""Events of each user."""


def generated(items: int, users: int, seed: int = 0) -> Events:
    """Return events whose items follow Zipf's law."""
    rng = np.random.default_rng(seed)
    count = users * EVENTS
    share = 1.0 / (np.arange(items) + 10.0)
    drawn = np.searchsorted(np.cumsum(share / share.sum()), rng.random(count)).astype(np.int32)
    offsets = np.arange(users + 1, dtype=np.int64) * EVENTS
    owner = np.repeat(np.arange(users, dtype=np.int32), EVENTS)
    moment = np.tile(np.arange(EVENTS, dtype=np.int64) * 3600, users)
    return Events(owner, np.minimum(drawn, items - 1), np.zeros(count, np.int8), moment, offsets)


def memory() -> dict[str, float]:
    """Return this process's private and shared memory, MiB."""
    found = re.findall(
        r"^(Private|Shared)_\w+:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M
    )
    return {
        kind: sum(int(kib) for name, kib in found if name == kind) / 1024 for kind in ("Private", "Shared")
    }


class _Measured:
    """Writes the memory of each process at the end of its training."""

    folder: Path

    def on_train_end(self) -> None:
        """Write it."""
        (self.folder / f"memory-{rank_and_size()[0]}.json").write_text(json.dumps(memory()))


class Whole(_Measured, StageTwo):
    """Every process has the whole tables."""


class Divided(_Measured, ShardedStageTwo):
    """Every process has a block of them."""


def main() -> None:
    """Train in one process, in several, and in several that divide the tables, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=40_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--text-dim", type=int, default=384)
    options = parser.parse_args()
    events = generated(options.items, options.users)
    texts = np.random.default_rng(1).standard_normal((options.items, options.text_dim), dtype=np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    config = UserEncoderConfig(dim=options.dim, dropout=0.0, epochs=1)
    shown = Table("processes", "item tables", "s", "CPU s", "private MiB each", "shared MiB", "loss")
    for kind, processes in ((Whole, 1), (Whole, options.processes), (Divided, options.processes)):
        torch.manual_seed(0)
        towers = Towers.from_config(config, options.text_dim, options.items, 1)
        towers.item_tower.fit_text(texts, np.ones(options.items, np.bool_))
        module = kind(
            towers, config, events, events.offsets[1:], texts, np.ones(1, np.float32), None, False, 0
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            module.folder = Path(folder)
            began, before = time.perf_counter(), sum(map(cpu_seconds, KINDS))
            fitted = fit(
                module, Path(folder) / "checkpoints", max_epochs=1, patience=1, monitor=None,
                device=torch.device("cpu"), clip_norm=config.clip_norm, devices=processes,
            )  # fmt: skip
            took, used = time.perf_counter() - began, sum(map(cpu_seconds, KINDS)) - before
            each = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("memory-*.json"))]
        shown.add_row(
            str(processes), "divided" if kind is Divided else "whole", f"{took:.1f}", f"{used:.1f}",
            " ".join(f"{m['Private']:.0f}" for m in each), f"{max(m['Shared'] for m in each):.0f}",
            f"{fitted.curve.loss[-1][1]:.5f}",
        )  # fmt: skip
    Console().print(shown)


KINDS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def cpu_seconds(kind: int) -> float:
    """Return the CPU time of this process or of those that it has started and that have ended."""
    used = resource.getrusage(kind)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
