"""The rows of benchmarks/results.md: each runs `shelfwise run` for several seeds and reports mean and spread.

    python -m benchmarks.results beauty data.items=items.parquet data.events=events.parquet experiment=best

runs seeds 0, 1 and 2 one after another under work/results/beauty/, prints the tables and writes them as JSON
and Markdown beside the runs; `--page benchmarks/results.md` puts the Markdown into the page. Called again,
finished seeds are reused and an interrupted one is resumed. Overrides after the row's name are those of
`shelfwise run`; they win over the row's own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from benchmarks.runs import Run, merge_overrides, put_section, run_once, shown_command
from conf.errors import InputError, closest
from features.data.pipeline_step import write_atomically
from tuning.spread import summarise

BASELINES = (
    "evaluation.baselines=[popularity,recent_popularity,own_repeats,item_knn,graph_text,ease,als,frozen_text,"
    "sasrec_ids]"
)
TEN = ("recall@10", "ndcg@10")
SLICE_NAMES = {
    "same_day_as_previous": "same day",
    "later_day": "later day",
    "head_items": "head items",
    "tail_items": "tail items",
    "cold_items": "cold items, in all",
}


@dataclass(frozen=True)
class Row:
    """A data set under a protocol."""

    title: str
    overrides: tuple[str, ...]
    """Data set and protocol; paths come from the command line."""
    metrics: tuple[str, ...] = TEN


AMAZON = (
    "data=amazon_reviews",
    "data.text_fields=[title]",
    "split=leave_one_out",
    "evaluation.exclude_seen=true",
)
"""The 5-core data sets of 2014 in the preprocessing of S3-Rec: prepared tables, or the raw files."""
ROWS = {
    "beauty": Row("Amazon Beauty, leave-one-out", AMAZON),
    "sports": Row("Amazon Sports and Outdoors, leave-one-out", AMAZON),
    "online_retail_unisrec": Row(
        "Online Retail in UniSRec's preprocessing, leave-one-out",
        ("data=online_retail_unisrec", "split=leave_one_out", "evaluation.exclude_seen=true"),
    ),
    "online_retail": Row(
        "Online Retail by customer, global time",
        ("data=online_retail", "split=global_time"),
        ("recall@20", "ndcg@20"),
    ),
    "completejourney": Row(
        "The Complete Journey, global time", ("data=completejourney", "split=global_time")
    ),
    "movielens_100k": Row(
        "MovieLens 100K, leave-one-out",
        ("data=recbole", "split=leave_one_out", "evaluation.exclude_seen=true"),
    ),
    "beauty_time": Row(
        "Amazon Beauty, global time (cold items)",
        ("data=amazon_reviews", "data.text_fields=[title]", "split=global_time"),
    ),
}
"""Rows by name."""


def _short(value: float) -> str:
    """`.1234`: shares are below one."""
    return f"{value:.4f}".removeprefix("0")


def _cell(values: dict[str, Any] | None) -> str:
    """`.1234 ± .0012`, or a dash."""
    if values is None:
        return "–"
    mean, deviation = _short(values["mean"]), values["deviation"]
    return mean if deviation is None else f"{mean} ± {_short(deviation)}"


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table and an empty line."""
    return [
        f"| {' | '.join(header)} |",
        f"| {' | '.join('---' for _ in header)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def _names(summary: dict[str, Any]) -> dict[str, str]:
    """Return the displayed names of systems: the measured one bold, its parts marked."""
    own = {summary["system"]: f"**{summary['system']}**"}
    return own | {part: f"{part} (part of it)" for part in summary["parts"]}


def _gain_line(gains: dict[str, Any]) -> str:
    """Return the gain of the system over the best baseline, per metric."""
    gains_text = []
    for metric, gain in gains.items():
        if gain["gain"] is None:
            continue
        p_value = gain.get("largest_p_value")
        chance = "" if p_value is None else f", p {'< .001' if p_value < 0.001 else f'= {p_value:.3f}'}"
        gains_text.append(f"{metric} {gain['gain']:+.1%} over {gain['best_baseline']}{chance}")
    return "; ".join(gains_text)


def _about(summary: dict[str, Any]) -> str:
    """Return two sentences on the queries, the data and the seeds."""
    protocol, window = summary["protocol"], summary["window"]
    seeds = [str(run["seed"]) for run in summary["runs"]]
    seen = "seen items excluded" if protocol["exclude_seen"][0] else "seen items kept"
    repeats = f"seeds {', '.join(seeds)}: mean ± sample standard deviation"
    return (
        f"{protocol['queries'][0][window]:,} {window} queries, all {protocol['items'][0]:,} items, "
        f"{protocol['events'][0]:,} events of {protocol['users'][0]:,} users, {seen}; "
        f"{repeats if len(seeds) > 1 else f'seed {seeds[0]}'}. "
        f"Code {', '.join(dict.fromkeys(protocol['code_version']))}."
    )


def _main_table(summary: dict[str, Any], names: dict[str, str]) -> list[str]:
    metrics, valid = summary["metrics"], summary["valid"]
    rows = [
        [
            names.get(s, s),
            *(_cell(values.get(m)) for m in metrics),
            *(_cell(valid[s].get(m)) for m in metrics),
        ]
        for s, values in summary["systems"].items()
    ]
    lines = _lines(["system", *metrics, *(f"validation {m}" for m in metrics)], rows)
    if summary["gains"]:
        lines += [f"Against the best baseline: {_gain_line(summary['gains'])}.", ""]
    return lines


def _slice_table(summary: dict[str, Any], names: dict[str, str]) -> list[str]:
    slices = summary["slices"]
    if not slices:
        return []
    rows = [
        [names.get(s, s), *(_cell(part["systems"][s].get("recall@10")) for part in slices.values())]
        for s in summary["systems"]
    ]
    gains = [_share(part["gains"].get("recall@10")) for part in slices.values()]
    header = ["system", *(SLICE_NAMES.get(name, name) for name in slices)]
    return ["recall@10 by part of the targets:", "", *_lines(header, [*rows, ["gain", *gains]])]


def _cold_table(part: dict[str, Any], names: dict[str, str]) -> list[str]:
    frozen = part["systems"].get("frozen_text", {}).get("within recall@10")
    columns = ("within recall@10", "within ndcg@10", "full recall@10", "full ndcg@10")
    rows = [
        [
            names.get(s, s),
            *(_cell(values.get(c)) for c in columns),
            _times(values.get("within recall@10"), frozen),
        ]
        for s, values in part["systems"].items()
    ]
    header = ["system", "R@10 among them", "N@10 among them", "R@10 in all", "N@10 in all", "× frozen_text"]
    about = f"Cold: {_range(part['items'])} {part['about']}, {_range(part['targets'])} targets among them:"
    return [about, "", *_lines(header, rows)]


def to_markdown(title: str, command: str, summary: dict[str, Any]) -> str:
    """Return a row's tables in Markdown.

    Args:
        title: heading.
        command: the command line.
        summary: of `summarise`.
    """
    names = _names(summary)
    lines = [f"### {title}", "", _about(summary), "", "```", command, "```", ""]
    lines += _main_table(summary, names) + _slice_table(summary, names)
    for part in summary["cold"].values():
        lines += _cold_table(part, names)
    rows = [
        [
            str(run["seed"]),
            f"{run['seconds']:,.0f}" + ("" if run["complete"] else " (some steps kept)"),
            f"{run['peak_mib']:,.0f}",
            ", ".join(f"{step} {s:,.0f}" for step, s in (run["step_seconds"] or {}).items()),
        ]
        for run in summary["runs"]
    ]
    lines += _lines(["seed", "seconds", "peak MiB", "seconds by step"], rows)
    return "\n".join(lines)


def _share(gain: dict[str, Any] | None) -> str:
    if gain is None or gain["gain"] is None:
        return "–"
    return f"{gain['gain']:+.1%} ({gain['best_baseline']})"


def _times(values: dict[str, Any] | None, of: dict[str, Any] | None) -> str:
    return f"{values['mean'] / of['mean']:.2f}" if values and of and of["mean"] > 0 else "–"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def with_costs(summary: dict[str, Any], runs: Sequence[Run], seeds: Sequence[int]) -> dict[str, Any]:
    """Return a summary with the time and memory of each run."""
    costs = [
        {
            "seed": seed,
            "seconds": run.seconds,
            "complete": run.complete,
            "peak_mib": run.peak_mib,
            "step_seconds": run.metrics["timing"].get("run_seconds"),
        }
        for seed, run in zip(seeds, runs, strict=True)
    ]
    return {**summary, "runs": costs}


def measure(
    name: str, row: Row, overrides: Sequence[str], seeds: Sequence[int], folder: Path, console: Console
) -> str:
    """Run a row's seeds one after another and write `results.json` and `results.md` beside them.

    Returns:
        The Markdown.
    """
    settings = merge_overrides(row.overrides, (BASELINES,), overrides)
    runs: list[Run] = []
    for seed in seeds:
        runs.append(run_once([*settings, f"seed={seed}"], folder / name / f"seed-{seed}", console))
    summary = with_costs(summarise([run.metrics for run in runs], row.metrics), runs, seeds)
    shown = shown_command("results", name, "--seeds", ",".join(map(str, seeds)), *overrides)
    markdown = to_markdown(row.title, shown, summary)
    summary["command"] = shown
    write_atomically(folder / name / "results.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    write_atomically(folder / name / "results.md", markdown)
    return markdown


def main() -> None:
    """Measure a row and print it."""
    console = Console()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("row", help=f"one of {', '.join(ROWS)}")
    parser.add_argument("overrides", nargs="*", help="settings of shelfwise run, key=value")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--folder", type=Path, default=Path("work/results"))
    parser.add_argument("--page", type=Path, help="Markdown page that gets the tables")
    options = parser.parse_intermixed_args()
    try:
        if options.row not in ROWS:
            raise InputError(
                f"no row '{options.row}'{closest(options.row, ROWS)}; there are {', '.join(ROWS)}"
            )
        seeds = [int(seed) for seed in options.seeds.split(",")]
        markdown = measure(options.row, ROWS[options.row], options.overrides, seeds, options.folder, console)
    except InputError as error:
        console.print(f"[bold red]benchmarks.results:[/bold red] {error}", soft_wrap=True)
        sys.exit(2)
    if options.page is not None:
        put_section(options.page, options.row, markdown)
    console.print(Markdown(markdown))


if __name__ == "__main__":
    main()
