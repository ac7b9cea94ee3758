"""Mean, spread and gain over the best baseline, from the metrics of several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SLICES = ("same_day_as_previous", "later_day", "head_items", "tail_items", "cold_items")
SLICE_METRICS = ("recall@10", "ndcg@10")


@dataclass(frozen=True)
class Spread:
    """A number over seeds."""

    values: list[float]

    @property
    def mean(self) -> float:
        """The average."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; None with a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "mean": self.mean,
            "deviation": self.deviation,
            "min": min(self.values),
            "max": max(self.values),
            "values": self.values,
        }


def spread(results: Sequence[dict[str, Any]], path: Sequence[str]) -> Spread | None:
    """Collect the number at a path of every seed's metrics; None where any seed lacks it (an empty slice)."""
    values: list[float] = []
    for found in results:
        value: Any = found
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            return None
        values.append(float(value))
    return Spread(values)


def _table(
    results: Sequence[dict[str, Any]], systems: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Return `{system: {column: spread}}` of values of all seeds; `*` in a column's path is the system."""
    table: dict[str, dict[str, Any]] = {}
    for system in systems:
        cells = {c: spread(results, [system if k == "*" else k for k in path]) for c, path in columns.items()}
        table[system] = {c: cell.plain() for c, cell in cells.items() if cell is not None}
    return table


def _gains(
    table: dict[str, dict[str, Any]], system: str, baselines: Sequence[str], columns: Sequence[str]
) -> dict[str, Any]:
    """Return per column the best baseline by mean and how far the system's mean is above it, as a share."""
    gains: dict[str, Any] = {}
    for column in columns:
        rivals = {b: table[b][column]["mean"] for b in baselines if column in table.get(b, {})}
        if not rivals or column not in table[system]:
            continue
        best = max(rivals, key=lambda b: rivals[b])
        gains[column] = {
            "best_baseline": best,
            "gain": table[system][column]["mean"] / rivals[best] - 1 if rivals[best] > 0 else None,
        }
    return gains


def summarise(results: Sequence[dict[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    """Return the summary of the results of several seeds.

    Args:
        results: the metrics.json of each seed.
        metrics: those to summarise, for example recall@10 and ndcg@10.

    Returns:
        Plain JSON values: means, spreads, gains over the best baseline, slices, cold items.
    """
    protocol = results[0]["protocol"]
    window, system, parts = protocol["measured"], protocol["system"], protocol["parts"]
    systems = list(results[0][window])
    baselines = [name for name in systems if name not in (system, *parts)]
    main = _table(results, systems, {m: (window, "*", m) for m in metrics})
    gains = _gains(main, system, baselines, metrics)
    for metric, gain in gains.items():
        tested = spread(results, ("significance", window, gain["best_baseline"], metric, "p_value"))
        gain["largest_p_value"] = max(tested.values) if tested else None
    slices: dict[str, Any] = {}
    for name in SLICES:
        table = _table(results, systems, {m: ("slices", name, "systems", "*", m) for m in SLICE_METRICS})
        if table[system]:
            slices[name] = {
                "targets": [m["slices"][name]["targets"] for m in results],
                "systems": table,
                "gains": _gains(table, system, baselines, SLICE_METRICS),
            }
    cold: dict[str, Any] = {}
    for name, part in results[0]["cold_catalogue"][window].items():
        root = ("cold_catalogue", window, name, "systems", "*")
        columns = {f"{w} {m}": (*root, w, m) for w in ("within", "full") for m in SLICE_METRICS}
        table = _table(results, list(part["systems"]), columns)
        if table[system]:
            cold[name] = {
                "about": part["about"],
                "items": [m["cold_catalogue"][window][name]["items"] for m in results],
                "targets": [m["cold_catalogue"][window][name]["targets"] for m in results],
                "systems": table,
                "gains": _gains(table, system, baselines, list(columns)),
            }
    return {
        "window": window,
        "system": system,
        "parts": parts,
        "baselines": baselines,
        "metrics": list(metrics),
        "systems": main,
        "valid": _table(results, systems, {m: ("valid", "*", m) for m in metrics}),
        "gains": gains,
        "slices": slices,
        "cold": cold,
        "protocol": {
            key: [m["protocol"][key] for m in results]
            for key in ("dataset_hash", "code_version", "queries", "items", "users", "events", "exclude_seen")
        },
    }
