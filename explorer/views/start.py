"""The first page: what the bundle is, how good it was measured to be, and the views."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from explorer.context import ExplorerContext
from explorer.problems import PageError
from explorer.rendering import render
from explorer.server import server_of
from explorer.view import Page
from ranking.bundle.store import MANIFEST, VERSIONS, current_version
from shelfwise_client import Status

_HEADLINES: Final = ("recall@10", "ndcg@10", "mrr@10", "coverage@10")
"""Figures that are shown where the evaluation has them."""


@dataclass(frozen=True)
class Figure:
    """A headline figure of the evaluation."""

    name: str
    value: float
    interval: tuple[float, float] | None
    """Confidence interval of the mean; None where none was computed."""
    best: tuple[str, float] | None
    """The best other system and its figure."""


def start(request: Request, context: ExplorerContext) -> Response:
    """Show the start page; it needs no loaded bundle, so it opens at once."""
    manifest: dict[str, Any] | None = None
    if context.store is not None:
        manifest = read_manifest(context.store)
    status, problem = _server_status(context)
    try:
        metrics = context.metrics()
    except PageError as error:
        metrics, problem = None, problem or error
    return render(
        request,
        "start.html.jinja",
        manifest=manifest,
        figures=[] if metrics is None else headline_figures(metrics),
        protocol=None if metrics is None else metrics.get("protocol"),
        status=status,
        problem=problem,
    )


def read_manifest(store: Path) -> dict[str, Any]:
    """Return the manifest of the current version, without verifying its files.

    Raises:
        InputError: there is no current version.
        PageError: its manifest is damaged.

    """
    file = store / VERSIONS / current_version(store) / MANIFEST
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise PageError(
            500, "The bundle cannot be read", f"{file}: {error}; roll back or publish again"
        ) from error
    return found


def _server_status(context: ExplorerContext) -> tuple[Status | None, PageError | None]:
    """Return the state of the server, or why it did not say it."""
    if context.server is None:
        return None, None
    try:
        with server_of(context) as client:
            return client.status(), None
    except PageError as error:
        return None, error


def headline_figures(metrics: dict[str, Any]) -> list[Figure]:
    """Return the headline figures of an evaluation: the system's own, each beside the best other one.

    Args:
        metrics: content of `metrics.json`.

    """
    protocol = metrics["protocol"]
    system, part = protocol["system"], metrics[protocol["measured"]]
    own = part.get(system, {})
    intervals = metrics.get("confidence", {}).get(protocol["measured"], {}).get(system, {})
    rivals = [name for name in part if name != system and name not in protocol.get("parts", ())]
    figures = []
    for name in _HEADLINES:
        value = own.get(name)
        if value is None:
            continue
        others = [(rival, found) for rival in rivals if (found := part[rival].get(name)) is not None]
        interval = intervals.get(name)
        best = max(others, key=lambda pair: pair[1]) if others else None
        figures.append(Figure(name, value, tuple(interval) if interval else None, best))
    return figures


PAGES = (Page("", start),)
