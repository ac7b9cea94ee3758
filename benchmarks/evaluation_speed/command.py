"""Users per second and peak memory of an evaluation over the whole catalogue, beside two other libraries.

    python -m benchmarks.evaluation_speed --folder work/evaluation_speed
    python -m benchmarks.evaluation_speed --large --folder work/evaluation_speed

Generated vectors of users and items, histories to leave out, and a target per user; every library makes the
lists from the same vectors and computes recall, ndcg, hit rate and MRR at 10 and 20, in a process of its own,
alternating. The metrics must agree to 1e-6. `--large` evaluates 100,000 users on 1,000,000 items with
shelfwise alone, and fails above 4 GiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.outside import Outsider, environment
from conf.errors import InputError

HERE: Final = Path(__file__).parent
OUTSIDERS: Final = {
    "rectools": Outsider("RecTools", "rectools_sasrec"),
    "recbole": Outsider("RecBole", "recbole_models"),
}
"""Their environments are those of the other benchmarks."""
TOLERANCE: Final = 1e-6
HISTORY: Final = 9
MOST_MIB: Final = 4096


def generate(folder: Path, users: int, items: int, dim: int, seed: int) -> None:
    """Write vectors, histories and targets, half of which are near the user, as a model would have it."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((items, dim), dtype=np.float32)
    targets = rng.integers(items, size=users)
    noise = rng.standard_normal((users, dim), dtype=np.float32)
    people = (
        noise + np.where(rng.random(users) < 0.5, 0.6, 0.0)[:, None].astype(np.float32) * vectors[targets]
    )
    lengths = rng.integers(0, 2 * HISTORY, size=users)
    owner = np.repeat(np.arange(users, dtype=np.int64), lengths)
    pairs = np.unique(owner * items + rng.integers(items, size=len(owner)))
    pairs = pairs[~np.isin(pairs, np.arange(users, dtype=np.int64) * items + targets)]
    offsets = np.searchsorted(pairs, np.arange(users + 1, dtype=np.int64) * items)
    arrays: dict[str, np.ndarray] = {
        "users": people.astype(np.float32), "items": vectors, "seen": (pairs % items).astype(np.int32),
        "seen_offsets": offsets.astype(np.int64), "targets": targets.astype(np.int32),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def measure(name: str, python: str, folder: Path) -> dict[str, Any]:
    """Run one library's worker in a process of its own, and return what it wrote."""
    worker = HERE / f"{'own' if name == 'shelfwise' else name}_worker.py"
    command = (
        [python, "-m", f"benchmarks.evaluation_speed.{worker.stem}"]
        if name == "shelfwise"
        else [python, str(worker)]
    )
    subprocess.run([*command, str(folder.resolve())], check=True, cwd=None if name == "shelfwise" else folder)
    found: dict[str, Any] = json.loads((folder / f"{worker.stem.removesuffix('_worker')}.json").read_text())
    return found


def main() -> None:
    """Generate, measure, print and write evaluation_speed.json.

    Raises:
        InputError: two libraries measure the same vectors differently, or memory exceeds the limit.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation_speed")
    parser.add_argument("--users", type=int, default=22_363)
    parser.add_argument("--items", type=int, default=12_101)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of each library counts")
    parser.add_argument(
        "--large", action="store_true", help="100,000 users, 1,000,000 items, shelfwise alone"
    )
    parser.add_argument("--folder", type=Path, default=Path("work/evaluation_speed"))
    parser.add_argument(
        "--environments", type=Path, help="where those of RecTools and RecBole are or are made"
    )
    options = parser.parse_args()
    users, items = (100_000, 1_000_000) if options.large else (options.users, options.items)
    console, folder = Console(), options.folder
    folder.mkdir(parents=True, exist_ok=True)
    generate(folder, users, items, options.dim, 0)
    pythons = {"shelfwise": sys.executable}
    if not options.large:
        homes = options.environments or folder
        for name, outsider in OUTSIDERS.items():
            (homes / name).mkdir(parents=True, exist_ok=True)
            pythons[name] = str(Path(environment(outsider, homes / name, console)).absolute())
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for _ in range(1 if options.large else options.repeats):
        for name, python in pythons.items():
            runs[name].append(measure(name, python, folder))
    best = {name: min(found, key=lambda one: one["seconds"]) for name, found in runs.items()}
    own = best["shelfwise"]
    for name, found in best.items():
        gap = max(abs(found["metrics"][metric] - value) for metric, value in own["metrics"].items())
        if gap > TOLERANCE:
            raise InputError(f"{name} measures the same vectors differently, by {gap:.2g}")
    table = Table("library", "users/s", "seconds", "of it lists", "CPU s", "peak MiB", "ndcg@10", "ratio",
                  title=f"{users:,} users, {items:,} items, {options.dim} dimensions")  # fmt: skip
    for name, found in best.items():
        table.add_row(
            name, f"{users / found['seconds']:,.0f}", f"{found['seconds']:.2f}",
            f"{found['list_seconds']:.2f}", f"{found['cpu_seconds']:.2f}", f"{found['peak_mib']:,.0f}",
            f"{found['metrics']['ndcg@10']:.6f}", f"{found['seconds'] / own['seconds']:.2f}",
        )  # fmt: skip
    console.print(table)
    report = {"users": users, "items": items, "dim": options.dim, "best": best, "runs": runs}
    (folder / f"evaluation_speed{'_large' if options.large else ''}.json").write_text(
        json.dumps(report, indent=2) + "\n"
    )
    if options.large and own["peak_mib"] > MOST_MIB:
        raise InputError(f"peak memory {own['peak_mib']:,.0f} MiB, more than {MOST_MIB:,}")
