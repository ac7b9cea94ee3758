"""Catalogue: the map of the items, single items, near duplicates, and what is wrong with the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from explorer.catalogue import gaps
from explorer.catalogue.colours import SALES, Colouring, choices, colour
from explorer.catalogue.item import item_facts, neighbours
from explorer.catalogue.overviews import LAYOUT_NEEDED, OVERVIEWS, library_missing
from explorer.catalogue.window import Window, packed, sample
from explorer.context import ExplorerContext
from explorer.model import LoadedModel
from explorer.problems import PageError, unknown_item
from explorer.rendering import render
from explorer.view import Page
from features.data.dataset import IntArray
from ranking.overview.overview import LEAST, NEARLY_EQUAL, Overview

LISTED: Final = 50
"""Items of a page of a list."""
FOUND: Final = 100
"""Items that a search marks."""
GROUPS: Final = 50
"""Groups of near duplicates on a page."""
GROUP_ITEMS: Final = 20
"""Items of a group that are listed."""
MAX_QUERY: Final = 500
TABS: Final = (
    ("", "Map"), ("/duplicates", "Near duplicates"), ("/no-text", "Without text"),
    ("/no-events", "Without events"), ("/rejected", "Rejected rows"),
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Items with nearly the same text."""

    items: tuple[object, ...]
    size: int
    equal: bool
    """Whether all texts are equal."""
    events: int


def map_page(request: Request, context: ExplorerContext) -> Response:
    """Show the map, the legend, and a list of what is in view or was found."""
    model = context.model()
    overview, waiting = _overview(context, model)
    window = Window.of(request.query_params)
    chosen = _colouring(request, model)
    query = request.query_params.get("q", "").strip()[:MAX_QUERY]
    counts = model.recommender.arrays.statistics.count
    inside = np.flatnonzero(window.inside(overview.positions)).astype(np.int32)
    found = _found(model, query)
    rows = inside[np.lexsort((inside, -counts[inside]))] if not query else found
    page = _whole(request, "page", 1, 100_000)
    moves = {
        "Closer": window.moved(zoom=0.5), "Wider": window.moved(zoom=2), "Left": window.moved(right=-0.25),
        "Right": window.moved(right=0.25), "Up": window.moved(down=-0.25), "Down": window.moved(down=0.25),
        "Whole map": Window(),
    }  # fmt: skip
    return render(
        request,
        "catalogue.html.jinja",
        tabs=TABS,
        tab="",
        model=model,
        window=window,
        moves=moves,
        colouring=chosen,
        choices=_choices(model),
        query=query,
        items=_neighbours(model, rows[(page - 1) * LISTED : page * LISTED]),
        listed=len(rows),
        first=(page - 1) * LISTED + 1,
        page=page,
        pages=max(-(-len(rows) // LISTED), 1),
        inside=len(inside),
        is_layout=overview.is_layout,
        waiting=waiting,
        missing=LAYOUT_NEEDED if library_missing() and not overview.is_layout else "",
        points="/catalogue/points?" + urlencode({"colour": chosen.name}),
        marked=[
            *found.tolist(),
            *model.bundle.catalogue.rows([request.query_params.get("mark", "")]).tolist(),
        ],
    )


def points(request: Request, context: ExplorerContext) -> Response:
    """Return the points of a window, as `packed` writes them."""
    model = context.model()
    overview, _ = _overview(context, model)
    window = Window.of(request.query_params)
    inside = np.flatnonzero(window.inside(overview.positions)).astype(np.int32)
    content = packed(sample(inside), overview.positions, _colouring(request, model).codes, len(inside))
    return Response(content, media_type="application/octet-stream")


def card(request: Request, context: ExplorerContext) -> Response:
    """Return title and address of the item of a row, for the label on the map."""
    model = context.model()
    row = _whole(request, "row", 0, len(model.bundle.catalogue) - 1, low=0)
    made = model.items.card(row)
    events = int(model.recommender.arrays.statistics.count[row])
    return JSONResponse(
        {
            "title": made.title,
            "address": f"/catalogue/item?item={quote(made.item_id, safe='')}",
            "line": f"{made.item_id} · {events:,} events" + (f" · {made.price}" if made.price else ""),
        }
    )


def item(request: Request, context: ExplorerContext) -> Response:
    """Show one item."""
    model = context.model()
    overview, _ = _overview(context, model)
    wanted = request.query_params.get("item", "").strip()
    row = model.bundle.catalogue.row(wanted)
    if row is None:
        raise unknown_item(wanted, model.bundle.catalogue.ids, "/catalogue/item?item={}")
    x, y = (float(v) for v in overview.positions[row])
    place = Window(x, y, 0.1).moved()
    return render(
        request,
        "catalogue_item.html.jinja",
        tabs=TABS,
        tab=None,
        card=model.items.card(row),
        facts=item_facts(model, overview, row),
        place=f"/catalogue?x={place.x:g}&y={place.y:g}&w={place.width:g}&mark={quote(wanted, safe='')}",
        least=NEARLY_EQUAL,
        views_by_name={view.name: view for view in request.app.state.views},
    )


def duplicates(request: Request, context: ExplorerContext) -> Response:
    """Show groups of items with nearly the same text."""
    model = context.model()
    overview, waiting = _overview(context, model)
    least = _cosine(request)
    groups = overview.groups(least)
    page = _whole(request, "page", 1, 100_000)
    texts, counts = model.bundle.catalogue.texts, model.recommender.arrays.statistics.count
    shown = [
        Group(
            _neighbours(model, rows[:GROUP_ITEMS]),
            len(rows),
            len({texts[row] for row in rows}) == 1,
            int(counts[rows].sum()),
        )
        for rows in groups[(page - 1) * GROUPS : page * GROUPS]
    ]
    return render(
        request,
        "catalogue_duplicates.html.jinja",
        tabs=TABS,
        tab="/duplicates",
        waiting=waiting,
        least=least,
        lowest=LEAST,
        groups=shown,
        total=len(groups),
        items=sum(map(len, groups)),
        catalogue=len(texts),
        page=page,
        pages=max(-(-len(groups) // GROUPS), 1),
    )


def no_text(request: Request, context: ExplorerContext) -> Response:
    """List the items whose text is empty."""
    model = context.model()
    return _listing(request, model, gaps.without_text(model.bundle.catalogue), "/no-text")


def no_events(request: Request, context: ExplorerContext) -> Response:
    """List the items that no event names."""
    model = context.model()
    rows = gaps.without_events(model.recommender.arrays.statistics.count)
    return _listing(request, model, rows, "/no-events")


def rejected(request: Request, context: ExplorerContext) -> Response:
    """Show which rows `prepare` left out, and why."""
    reason = request.query_params.get("reason", "")
    folder = None if context.work is None else context.work / "dataset"
    found = None if folder is None else gaps.rejected_rows(folder, reason)
    return render(
        request, "catalogue_rejected.html.jinja", tabs=TABS, tab="/rejected", found=found, reason=reason,
        folder=folder, most=gaps.SHOWN_ROWS,
    )  # fmt: skip


def _listing(request: Request, model: LoadedModel, rows: IntArray, tab: str) -> Response:
    page = _whole(request, "page", 1, 100_000)
    return render(
        request,
        "catalogue_list.html.jinja",
        tabs=TABS,
        tab=tab,
        items=_neighbours(model, rows[(page - 1) * LISTED : page * LISTED]),
        total=len(rows),
        catalogue=len(model.bundle.catalogue),
        page=page,
        pages=max(-(-len(rows) // LISTED), 1),
    )


def _overview(context: ExplorerContext, model: LoadedModel) -> tuple[Overview, bool]:
    assert context.store is not None, "the view needs a bundle"
    return OVERVIEWS.of(context.store, model)


def _choices(model: LoadedModel) -> list[tuple[str, str]]:
    catalogue = model.bundle.catalogue
    return choices(catalogue.frame, catalogue.attributes)


def _colouring(request: Request, model: LoadedModel) -> Colouring:
    name = request.query_params.get("colour", "").strip() or SALES
    known = dict(_choices(model))
    if name not in known:
        raise PageError(
            400, "This address has a wrong value", f"colour: “{name[:80]}” is none of {', '.join(known)}."
        )
    return colour(name, known[name], model.bundle.catalogue.frame, model.recommender.arrays.statistics)


def _found(model: LoadedModel, query: str) -> IntArray:
    """Return the rows that a search finds by words and meaning, best first."""
    if not query:
        return np.zeros(0, dtype=np.int32)
    texts = model.recommender.texts
    asked = texts.query(model.bundle.encode_queries([query])[0], query)
    rows, _ = texts.best(asked, FOUND, np.zeros(0, dtype=np.int32), None)
    return rows[texts.matches(asked, rows)]


def _neighbours(model: LoadedModel, rows: Iterable[int]) -> tuple[object, ...]:
    chosen = [int(row) for row in rows]
    return neighbours(model, chosen, [0.0] * len(chosen))


def _cosine(request: Request) -> float:
    text = request.query_params.get("least", "").strip() or str(NEARLY_EQUAL)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not LEAST <= value <= 1.0:
        raise PageError(
            400, "This address has a wrong value", f"least: “{text[:80]}” is not from {LEAST:g} to 1."
        )
    return value


def _whole(request: Request, name: str, usual: int, most: int, low: int = 1) -> int:
    text = request.query_params.get(name, "").strip() or str(usual)
    if text.isascii() and text.isdigit() and low <= int(text[:9]) <= most:
        return int(text)
    raise PageError(
        400,
        "This address has a wrong value",
        f"{name}: “{text[:80]}” is not a whole number from {low} to {most}.",
    )


PAGES = (
    Page("", map_page),
    Page("/points", points),
    Page("/card", card),
    Page("/item", item),
    Page("/duplicates", duplicates),
    Page("/no-text", no_text),
    Page("/no-events", no_events),
    Page("/rejected", rejected),
)
