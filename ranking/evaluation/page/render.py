"""The report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ranking.evaluation.page import charts, more_charts
from ranking.evaluation.page.material import Material
from ranking.evaluation.page.shortcuts import number, shortcut_rows
from ranking.evaluation.page.summary import (
    METRIC,
    STAGES,
    best_baseline,
    corrected_p,
    distrust,
    headline,
    measured,
    stars,
    summary,
)

MAIN_METRICS: Final = ("recall@10", "ndcg@10", "hit@10", "mrr", "coverage@10")
BEYOND: Final = (
    "coverage@10", "gini@10", "popularity_lift@10", "novelty@10", "diversity@10", "serendipity@10",
    "new_items@10", "young_items@10",
)  # fmt: skip
EXPLANATIONS: Final = {
    "recall": "share of what the user chose next that is in the first k",
    "ndcg": "the same, counting more when it stands higher",
    "hit": "share of users with at least one right item in the first k",
    "mrr": "1 / rank of the first right item",
    "map": "precision averaged over the right items' ranks",
    "coverage": "share of the catalogue that appears in any list",
    "novelty": "bits of surprise per item; popular items bring few",
    "diversity": "1 - mean text likeness within a list",
    "popularity_lift": "popularity of the list / of the user's own past choices",
    "gini": "concentration of what is shown: 0 all items equally often, 1 a single item",
    "serendipity": "share of places with a right item that is neither popular nor in the user's history",
    "new_items": "share of places with items without any event before",
    "young_items": "share of places with items first bought within the four weeks before",
}


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _probability(value: float | None) -> str:
    return "–" if value is None else "< .0001" if value < 0.0001 else f"{value:.4f}"


def best_of(metrics: Mapping[str, Mapping[str, float | None]], metric: str) -> float | None:
    """Return the highest value of a metric among systems; None where no system has it."""
    known = [value for values in metrics.values() if (value := values.get(metric)) is not None]
    return max(known, default=None)


def _slice_rows(result: Mapping[str, Any], systems: list[str]) -> list[dict[str, Any]]:
    """Return the report's slice rows, empty slices left out."""
    rows = []
    for name, part in result["slices"].items():
        if not part["queries"]:
            continue
        values = {system: part["systems"][system][METRIC] for system in systems}
        best = max((v for v in values.values() if v is not None), default=None)
        shown = {"name": name.replace("_", " "), "name_key": name, "values": values, "best": best}
        rows.append({**part, **shown})
    return rows


def _of_window(result: Mapping[str, Any], block: str) -> dict[str, Any] | None:
    """Return a block of the main window; None in results of earlier versions."""
    found = (result.get(block) or {}).get(result["protocol"]["measured"])
    return found if isinstance(found, dict) else None


def _drawn(
    result: Mapping[str, Any],
    material: Material,
    losses: Mapping[str, Any] | None,
    tables: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the plots by name, as markup."""
    protocol, metrics = result["protocol"], measured(result)
    window, system, rival = protocol["measured"], protocol["system"], best_baseline(result)
    drawn: dict[str, Any] = {
        "systems": charts.interval_bars(metrics, result["confidence"][window], METRIC, system),
        "curve": charts.recall_curve(metrics, protocol["ks"], system),
        "stages": charts.stage_funnel(result["stages"][window], metrics[system], protocol["ks"]),
        "slices": charts.slice_bars(result["slices"], METRIC, system, rival),
        "waterfall": "" if losses is None else more_charts.waterfall(losses["all"]),
    }
    drawn = {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704 - SVG of our own plots
    drawn["reliability"] = [
        Markup(more_charts.reliability(table, kind))  # noqa: S704
        for kind, table in tables.items()
    ]
    drawn["trainings"] = [
        Markup(more_charts.learning_curve(training))  # noqa: S704
        for training in material.trainings
    ]
    return drawn


def render_report(result: Mapping[str, Any], material: Material | None = None) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        result: of `evaluate_lists`, or read back from metrics.json, of this version or an earlier one.
        material: what is shown beside it; None leaves curves, examples and findings out.
    """
    material = material or Material()
    protocol, metrics = result["protocol"], measured(result)
    window, system = protocol["measured"], protocol["system"]
    losses, calibration = _of_window(result, "losses"), _of_window(result, "calibration")
    shortcuts = _of_window(result, "shortcuts")
    tables = {
        kind: calibration[kind] for kind in ("click", "purchase") if calibration and calibration.get(kind)
    }
    significance = result["significance"][window]
    tests = [test for by_metric in significance.values() for test in by_metric.values()]
    environment = Environment(
        loader=PackageLoader("ranking.evaluation.page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        number=number, signed=_signed, probability=_probability, stars=stars, corrected=corrected_p
    )
    return environment.get_template("report.html.jinja").render(
        protocol=protocol,
        metrics=metrics,
        systems=list(metrics),
        system=system,
        rival=best_baseline(result),
        confidence=result["confidence"][window],
        significance=significance,
        corrected=bool(tests) and all("p_holm" in test for test in tests),
        mde=bool(tests) and all("minimum_detectable" in test for test in tests),
        main_metrics=[name for name in MAIN_METRICS if name in metrics[system]],
        beyond=[name for name in BEYOND if name in metrics[system]],
        explanations=EXPLANATIONS,
        headline=headline(result),
        summary=summary(result, material.differences, material.lint),
        cautions=distrust(result, material.lint),
        best={name: best_of(metrics, name) for name in metrics[system]},
        slices=_slice_rows(result, list(metrics)),
        differences=material.differences,
        stages=result["stages"][window],
        stage_words=STAGES,
        losses=losses,
        waterfalls={} if losses is None else {"all": losses["all"], **_filled(losses["slices"])},
        stability=_of_window(result, "stability"),
        calibration=calibration if tables else None,
        calibration_tables=tables,
        shortcuts=shortcuts,
        shortcut_rows=[] if shortcuts is None else shortcut_rows(shortcuts),
        cold=[part for part in result["cold_catalogue"][window].values() if part["queries"]],
        text=material.text,
        lint=material.lint,
        trainings=material.trainings,
        shoppers=material.shoppers,
        worst=material.worst,
        plots=_drawn(result, material, losses, tables),
    )


def _filled(slices: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in slices.items() if part["targets"]}
