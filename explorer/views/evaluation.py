"""The evaluation, alive: any part of the data, any two systems, and whom they serve worst."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl
from starlette.requests import Request
from starlette.responses import Response

from explorer.context import ExplorerContext
from explorer.evaluations import METRICS, Stored, compare, means_of, part_size, worst_cases
from explorer.problems import PageError
from explorer.rendering import render
from explorer.view import Page
from ranking.evaluation.page.material import Training, read_lint, trainings
from ranking.evaluation.page.shortcuts import shortcut_rows
from ranking.evaluation.page.summary import STAGES, best_baseline, distrust, headline, measured
from ranking.evaluation.query_table import slices_of, systems_of

_STORED: Final = Stored()


def evaluation(request: Request, context: ExplorerContext) -> Response:
    """Show the evaluation of a run in one state: part, two systems, metric, page of the worst."""
    result = context.metrics()
    if result is None or context.evaluation is None:
        where = "" if context.work is None else f" work_dir={context.work}"
        raise PageError(
            404,
            "Nothing has been measured here",
            f"shelfwise evaluate{where} with the settings of the run measures the bundle and baselines.",
        )
    queries = _STORED.queries(context.evaluation)
    system, rival = result["protocol"]["system"], best_baseline(result)
    systems = list(measured(result)) if queries is None else systems_of(queries)
    parts = [] if queries is None else [name for name in slices_of(queries) if part_size(queries, name)]
    part = _chosen(request, "slice", ["", *parts], "")
    first = _chosen(request, "a", systems, system)
    second = _chosen(request, "b", systems, rival or systems[-1])
    metric = _chosen(request, "metric", METRICS, METRICS[0])
    window = result["protocol"]["measured"]
    losses = (result.get("losses") or {}).get(window)
    calibration = (result.get("calibration") or {}).get(window)
    shortcuts = (result.get("shortcuts") or {}).get(window)
    waterfall = None if losses is None else losses["slices"].get(part) if part else losses["all"]
    curves = [] if context.work is None else trainings(context.work)
    alive: dict[str, Any] = {"difference": None, "means": [], "worst": [], "pages": 1, "page": 1}
    if queries is not None:
        alive = _alive(request, context, queries, (first, second, part, metric), system)
    return render(
        request,
        "evaluation.html.jinja",
        result=result,
        stored=queries is not None,
        headline=headline(result),
        cautions=distrust(result, read_lint(context.evaluation / "lint.json")),
        parts=parts,
        part=part,
        about=result["slices"].get(part, {}).get("about", ""),
        systems=systems,
        first=first,
        second=second,
        metrics=METRICS,
        metric=metric,
        waterfall=waterfall,
        stage_words=STAGES,
        calibration=calibration,
        probabilities=_tables(calibration),
        shortcut_rows=[] if shortcuts is None else shortcut_rows(shortcuts),
        curves=curves,
        charts=_charts(alive["means"], metric, waterfall, _tables(calibration), curves),
        views_by_name={view.name: view for view in request.app.state.views},
        **alive,
    )


def _alive(
    request: Request,
    context: ExplorerContext,
    queries: pl.DataFrame,
    state: tuple[str, str, str, str],
    system: str,
) -> dict[str, Any]:
    """Return what is computed for this state; `system` is the one whose stages of loss are stored."""
    first, second, part, metric = state
    page = _page_number(request)
    titles = _STORED.titles(context.work)
    cases, pages = worst_cases(queries, first, second, part, metric, page, titles, first == system)
    return {
        "difference": compare(queries, first, second, part, metric),
        "means": means_of(queries, systems_of(queries), part, metric),
        "worst": cases,
        "pages": pages,
        "page": min(page, pages),
    }


def _chosen(request: Request, name: str, known: Sequence[str], usual: str) -> str:
    """Return a value of the address that is one of a list.

    Raises:
        PageError: it is none of them.
    """
    value = request.query_params.get(name, usual)
    if value not in known:
        names = ", ".join(choice or "(all)" for choice in known)
        raise PageError(400, "This address has a wrong value", f"{name}: “{value[:80]}” is none of {names}.")
    return value


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    if text.isascii() and text.isdigit() and int(text[:9]) >= 1 and len(text) <= 9:
        return int(text)
    raise PageError(400, "This address has a wrong value", f"page: “{text[:80]}” is not a number from 1.")


def _tables(calibration: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the reliability table of each probability that was measured."""
    if not calibration:
        return {}
    return {kind: calibration[kind] for kind in ("click", "purchase") if calibration.get(kind)}


def _charts(
    means: Sequence[Any],
    metric: str,
    waterfall: Mapping[str, Any] | None,
    tables: Mapping[str, Any],
    curves: Sequence[Training],
) -> dict[str, Any]:
    """Return what `static/charts.js` draws, as JSON by name."""
    drawn: dict[str, Any] = {
        "means": {
            "type": "bar", "labels": [system.name for system in means], "x": metric,
            "series": [{"name": metric, "values": [system.mean for system in means]}],
        },
        "calibration": [(kind, json.dumps(_reliability(table))) for kind, table in tables.items()],
        "curves": [(training, json.dumps(_curve(training))) for training in curves],
    }  # fmt: skip
    if waterfall is not None and waterfall["lost"]:
        shares = [waterfall["per_100_lost"][stage] for stage in STAGES]
        stages = [stage.replace("_", " ") for stage in STAGES]
        drawn["waterfall"] = {
            "type": "bar", "labels": stages, "x": "of 100 lost choices",
            "series": [{"name": "lost", "values": shares}],
        }  # fmt: skip
    return {name: json.dumps(chart) if isinstance(chart, dict) else chart for name, chart in drawn.items()}


def _reliability(table: Mapping[str, Any]) -> dict[str, Any]:
    points = [{"x": 100 * b["predicted"], "y": 100 * b["observed"]} for b in table["bins"]]
    end = max(max(point["x"], point["y"]) for point in points)
    line = [{"x": 0, "y": 0}, {"x": end, "y": end}]
    return {
        "type": "line", "labels": [], "numeric": True, "x": "predicted, %", "y": "observed, %",
        "series": [
            {"name": "observed", "values": points},
            {"name": "agreement", "values": line, "dashed": True, "points": False, "colour": "--soft"},
        ],
    }  # fmt: skip


def _curve(training: Training) -> dict[str, Any]:
    curve = training.curve
    series: list[dict[str, Any]] = []
    if curve.validation:
        points = [{"x": step, "y": value} for step, value in curve.validation]
        series.append({"name": f"validation {curve.metric}", "values": points})
    chart: dict[str, Any] = {
        "type": "line",
        "labels": [],
        "numeric": True,
        "x": training.unit,
        "series": series,
    }
    if curve.loss:
        points = [{"x": step, "y": value} for step, value in curve.loss]
        loss = {"name": "loss", "values": points, "points": False, "colour": "--soft"}
        series.append(loss | ({"axis": "y2"} if curve.validation else {}))
        if curve.validation:
            chart["y2"] = "loss"
    return chart | {"y": f"validation {curve.metric}" if curve.validation else "loss"}


PAGES = (Page("", evaluation),)
