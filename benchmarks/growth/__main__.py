"""Time, memory and growth exponents of every step under a memory limit.

    python -m benchmarks.growth --events 1000000 10000000 --folder /var/tmp/growth
    python -m benchmarks.growth --items 1000000 --events 1000000 --set text_encoder.export=openvino

A finished step of a size is not run again; `--again STEP` repeats it and the steps after it. The folder gets
`growth.json`, `growth.md` and `growth.svg`, and keeps each step's log.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.growth.runner import as_json, measured
from benchmarks.growth.shop import Shop, generate
from benchmarks.growth.steps import SETTINGS, command_line, pipeline_steps
from benchmarks.growth.table import markdown, plot
from features.data.pipeline_step import write_atomically

_GIB = 1 << 30
_CONSOLE = Console(highlight=False, soft_wrap=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--limit-gib", type=float, default=6.0)
    parser.add_argument("--folder", type=Path, default=Path("work/growth"))
    parser.add_argument("--steps", nargs="+", help="only these steps")
    parser.add_argument("--again", help="repeat from this step on")
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING", help="of every step but serve")
    parser.add_argument("--port", type=int, default=50951)
    parser.add_argument("--threads", type=int, default=0, help="of every step; 0 takes every core")
    return parser.parse_args()


def _environment(threads: int) -> dict[str, str]:
    """Return variables that limit the threads of polars, BLAS and OpenMP."""
    names = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS") if threads else ()
    return dict.fromkeys(names, str(threads))


def _remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(options: argparse.Namespace, events: int, results: dict[str, Any], save: Any) -> None:  # noqa: ANN401
    """Run the steps of one size, storing each result as it comes."""
    shop, work = (
        options.folder / f"shop-{options.items}-{events}",
        options.folder / f"run-{options.items}-{events}",
    )
    generate(Shop(options.items, events), shop)
    work.mkdir(parents=True, exist_ok=True)
    costs = results.setdefault(str(events), {})
    repeat = False
    for step in pipeline_steps(shop, work, options.port, options.set):
        repeat |= step.name == options.again
        if options.steps and step.name not in options.steps:
            continue
        if not repeat and costs.get(step.name, {}).get("exit_code") == 0:
            continue
        _CONSOLE.print(f"{events:,} events: {step.name}")
        for name in step.outputs:
            _remove(work / name)
        most = int(options.limit_gib * _GIB)
        cost, kind = measured(
            command_line(step), work / f"{step.name}.log", most, _environment(options.threads), step.serves
        )
        costs[step.name] = as_json(cost, kind)
        save()
        if cost.exit_code:
            _CONSOLE.print(f"  ended with {cost.exit_code}; see {work / f'{step.name}.log'}")
            return
    shutil.rmtree(work / "staging", ignore_errors=True)


def main() -> None:
    """Measure, and write the tables."""
    options = _arguments()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"growth-{options.items}.json"
    stored = json.loads(path.read_text()) if path.is_file() else {}
    results: dict[str, Any] = stored.get("results", {})

    def save() -> None:
        about = {
            "items": options.items,
            "limit_gib": options.limit_gib,
            "settings": [*SETTINGS, *options.set],
            "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
            "results": results,
        }
        write_atomically(path, json.dumps(about, indent=2) + "\n")
        by_size = {int(size): costs for size, costs in results.items() if costs}
        if by_size:
            path.with_suffix(".md").write_text(markdown(by_size))
            plot(by_size, path.with_suffix(".svg"))

    for events in options.events:
        _size(options, events, results, save)
    save()
    _CONSOLE.print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
