"""`shelfwise compare A B`: two systems on the same queries, a table, a page, and guards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from conf.comparison import CompareConfig, read_guards
from conf.errors import GuardError, InputError
from encoders.device import resolve_device
from encoders.training.progress import progress
from features.data.pipeline_step import write_atomically
from ranking.comparison.compare import Settings, compare
from ranking.comparison.guards import broken_lines
from ranking.comparison.operand import find_operand
from ranking.comparison.page import render_page
from ranking.comparison.sides import lists_of, shared_window
from ranking.comparison.table import print_comparison

RESULT_FILE: Final = "compare.json"
PAGE_FILE: Final = "compare.html"


def write_comparison(folder: Path, result: dict[str, Any]) -> Path:
    """Write compare.html and compare.json, each atomically; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE_FILE, render_page(result))
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(folder / RESULT_FILE, text + "\n")
    return folder


def compare_systems(config: CompareConfig, console: Console) -> dict[str, Any]:
    """Carry out `shelfwise compare`.

    Returns:
        The comparison, as in compare.json.

    Raises:
        InputError: not two systems, nothing to compare on, or a system that has learned from the window.
        GuardError: a guard is broken; the files are written before.
    """
    if len(config.systems) != 2:
        raise InputError(
            f"compare: {len(config.systems)} systems; name two, the present one first, e.g. "
            "shelfwise compare work/shop/artifacts@VERSION work/shop/artifacts"
        )
    operands = [find_operand(text) for text in config.systems]
    window = shared_window(operands, config.work_dir, config.max_users, config.seed)
    device = resolve_device(config.device)
    sides, notes = [], []
    with progress(console) as bar:
        task = bar.add_task("making the lists", total=2 * len(window.queries))
        for operand in operands:
            side, found = lists_of(operand, window, device, config.leakage, lambda n: bar.advance(task, n))
            sides.append(side)
            notes += found
    guards = read_guards(config.guards, "guards")
    settings = Settings(config.metrics, guards, config.shoppers, config.bootstrap, config.seed)
    result = compare(window, sides[0], sides[1], settings, notes)
    folder = write_comparison(Path(config.output), result)
    print_comparison(result, console)
    console.print(f"table, slices and lists in {folder / PAGE_FILE}", soft_wrap=True, highlight=False)
    broken = broken_lines(result["guards"])
    if broken:
        raise GuardError("\n".join(broken))
    return result
