"""Two models: metrics with tests, likeness of lists, whose lists change most, and one shopper in both."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from explorer.comparisons.background import COMPARISONS, Choice, Made, choices
from explorer.context import ExplorerContext
from explorer.problems import Link, PageError, closest_ids
from explorer.rendering import address, render
from explorer.view import Page
from ranking.comparison.changed import Titles, shopper
from ranking.comparison.page import interval_places, summary
from ranking.comparison.table import SIGNIFICANT

QUERIES: Final = 2000
"""Users of a page that names no number."""
MOST: Final = 10_000_000
WIDTH: Final = 160
KINDS: Final = {"changed": "Lists that change most", "lost": "Who loses most", "gained": "Who gains most"}


def two_models(request: Request, context: ExplorerContext) -> Response:
    """Show the comparison of two systems."""
    known, a, b, queries = _asked(request, context)
    made = None if a is None or b is None else _made(context, a, b, queries)
    if made is None or made.result is None:
        return _page(request, known, a, b, queries, made)
    result = made.result
    slices = {name: part["metrics"]["recall@10"] for name, part in result["slices"].items()}
    return _page(
        request, known, a, b, queries, made,
        result=result,
        summary=summary(result),
        places=interval_places(result["metrics"]),
        slices=slices,
        slice_places=interval_places(slices),
        kinds=KINDS,
        most=max([*result["likeness"]["histogram"], 1]),
    )  # fmt: skip


def one_shopper(request: Request, context: ExplorerContext) -> Response:
    """Show one user's lists of both systems side by side."""
    known, a, b, queries = _asked(request, context)
    made = None if a is None or b is None else _made(context, a, b, queries)
    if made is None or made.window is None or made.a is None or made.b is None:
        return _page(request, known, a, b, queries, made)
    window, user = made.window, request.query_params.get("user", "").strip()
    names = [window.dataset.user_ids[row] for row in window.queries.user.tolist()]
    if user not in names:
        raise PageError(
            404,
            "This shopper was not measured",
            f"“{user[:80]}” has no query among the {len(names):,} of this comparison.",
            [Link(address(request, user=i), i) for i in closest_ids(user, names)],
        )
    one = shopper(window, made.a, made.b, names.index(user), Titles(window.dataset.catalogue))
    return _page(request, known, a, b, queries, made, one=one)


def _page(
    request: Request,
    known: list[Choice],
    a: Choice | None,
    b: Choice | None,
    queries: int,
    made: Made | None,
    **values: Any,  # noqa: ANN401
) -> Response:
    waiting = a is not None and b is not None and made is None
    failed = made is not None and made.result is None
    given = {"result": None, "one": None, **values}
    return render(
        request,
        "two_models.html.jinja",
        202 if waiting else 409 if failed else 200,
        known=known,
        a=a,
        b=b,
        queries=queries,
        usual=QUERIES,
        waiting=waiting,
        failed=made.failed if failed and made is not None else "",
        width=WIDTH,
        significant=SIGNIFICANT,
        views_by_name={view.name: view for view in request.app.state.views},
        **given,
    )


def _made(context: ExplorerContext, a: Choice, b: Choice, queries: int) -> Made | None:
    assert context.store is not None, "the view needs a bundle"
    return COMPARISONS.of(context.store, a, b, queries)


def _asked(
    request: Request, context: ExplorerContext
) -> tuple[list[Choice], Choice | None, Choice | None, int]:
    """Return what can be compared and what is asked for: by default the newest version and the one before."""
    assert context.store is not None, "the view needs a bundle"
    known = choices(context.store)
    by_value = {choice.value: choice for choice in known}
    text = request.query_params.get("queries", "").strip() or str(QUERIES)
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= MOST):
        raise PageError(
            400, "This address has a wrong value", f"queries: “{text[:80]}” is not a whole number from 0."
        )
    chosen: list[Choice | None] = []
    usual = [known[1] if len(known) > 1 else None, known[0] if len(known) > 1 else None]
    for name, default in zip(("a", "b"), usual, strict=True):
        value = request.query_params.get(name, "").strip()
        if value and value not in by_value:
            raise PageError(
                404,
                "There is no such system",
                f"{name}: “{value[:80]}” is neither a version of this store nor a list measured with it.",
                [Link(address(request, **{name: v}), v) for v in closest_ids(value, list(by_value))],
            )
        chosen.append(by_value[value] if value else default)
    return known, chosen[0], chosen[1], int(text)


PAGES = (Page("", two_models), Page("/shopper", one_shopper))
