"""Rules: caps, pins, boosts, exploration, novelty and diversity, their effect on lists, and their cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from explorer.context import ExplorerContext
from explorer.model import LoadedModel
from explorer.problems import PageError, unknown_shopper
from explorer.rendering import render
from explorer.rules.changes import Change, changes
from explorer.rules.rule_set import bundle_rules, matches, read_rules
from explorer.rules.validation import VALIDATION
from explorer.shoppers import Like
from explorer.view import Page
from explorer.views.shopper import stored_id
from ranking.catalogue.filter_language import AttributeKind, attribute_kinds
from serving.api import validation
from serving.core.errors import ApiError

_DRAWN: Final = (Like.loyal, Like.random, Like.new, Like.cold)
_PAIRS: Final = (
    ("cap_attribute", "cap_max"), ("pin_item", "pin_position"), ("boost_filter", "boost_strength"),
)  # fmt: skip
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "recall@10": ("Recall@10", "share of what was chosen next that is among the first ten"),
    "ndcg@10": ("ndcg@10", "the same, higher places counting more"),
    "popularity_lift@10": ("Popularity lift", "popularity of the lists relative to that of the histories"),
    "new_items@10": ("New items", "share of the places with items without events until then"),
    "coverage@10": ("Coverage", "share of the catalogue in at least one of these lists"),
}


@dataclass(frozen=True)
class Example:
    """A shopper's list before and after."""

    user: str
    """Empty for a visitor without events."""
    events: int
    change: Change


def rules_page(request: Request, context: ExplorerContext) -> Response:
    """Show the form, and lists of some shoppers before and after."""
    model = context.model()
    values = _values(request)
    k = _whole(request, "k", 10, 50)
    problem: PageError | None = None
    try:
        after = read_rules(values, model)
    except PageError as error:  # shown beside the form, which keeps what was typed
        problem, after = error, bundle_rules(model)
    before = bundle_rules(model)
    users = _users(request, context, model)
    histories = [model.shoppers.history(user) for user in users]
    made = changes(model, histories, k, before, after)
    kinds = attribute_kinds(model.bundle.catalogue.frame.schema)
    return render(
        request,
        "rules.html.jinja",
        200 if problem is None else 400,
        model=model,
        problem=problem,
        before=before,
        after=after,
        rows={pair: _rows(values, *pair) for pair in _PAIRS},
        share=_first(values, "exploration") or "0",
        diversity=_first(values, "diversity") or f"{before.diversity:g}",
        novelty=_first(values, "novelty") or f"{before.novelty:g}",
        attributes=[name for name, kind in kinds.items() if kind is not AttributeKind.list],
        k=k,
        seed=_whole(request, "seed", 1, 999_999),
        user=_first(values, "user"),
        matched=matches(after),
        examples=[
            Example(user, len(model.shoppers.events(user)), change)
            for user, change in zip(users, made, strict=True)
        ],
        surface=_surface(values),
        query=request.url.query,
    )


def cost(request: Request, context: ExplorerContext) -> Response:
    """Show what the rules cost on validation queries: as a part of the page for htmx, else as a page."""
    model = context.model()
    after = read_rules(_values(request), model)
    assert context.store is not None, "the view needs a bundle"
    found, failed = VALIDATION.of(context.store, model)
    priced = None if found is None else found.price(model, bundle_rules(model), after)
    template = "rules_cost.html.jinja" if "hx-request" in request.headers else "rules_cost_page.html.jinja"
    return render(
        request, template, found=found, failed=failed, costs=priced, words=_WORDS, query=request.url.query,
        after=after,
    )  # fmt: skip


def surface(request: Request, context: ExplorerContext) -> Response:
    """Return the rules as a file for `serve surfaces=FILE`."""
    values = _values(request)
    entry = read_rules(values, context.model()).surface_entry(_surface(values))
    headers = {"Content-Disposition": 'attachment; filename="surfaces.yaml"'}
    return Response(entry, media_type="application/yaml", headers=headers)


def _values(request: Request) -> dict[str, list[str]]:
    query = request.query_params
    return {name: query.getlist(name) for name in query}


def _first(values: Mapping[str, list[str]], name: str) -> str:
    return next((text.strip() for text in values.get(name, ())), "")


def _rows(values: Mapping[str, list[str]], name: str, other: str) -> list[tuple[str, str]]:
    """Return the rows of a part of the form as they were typed, and an empty one."""
    firsts, seconds = values.get(name, []), values.get(other, [])
    seconds = seconds + [""] * (len(firsts) - len(seconds))
    return [(a.strip(), b.strip()) for a, b in zip(firsts, seconds, strict=False) if a.strip()] + [("", "")]


def _surface(values: Mapping[str, list[str]]) -> str:
    name = _first(values, "surface") or "home"
    try:
        return validation.surface(name)
    except ApiError as error:
        raise PageError(400, "This address has a wrong value", error.message) from error


def _users(request: Request, context: ExplorerContext, model: LoadedModel) -> list[str]:
    """Return the shoppers to show: the one of the address, then some that are drawn."""
    wanted = request.query_params.get("user", "").strip()
    seed = _whole(request, "seed", 1, 999_999)
    users = []
    if wanted:
        users.append(stored_id(context, model, wanted))
        if model.shoppers.position(users[0]) is None:
            raise unknown_shopper(wanted, model.shoppers.ids, "/rules?user={}")
    users += [model.shoppers.draw(like, seed + place) or "" for place, like in enumerate(_DRAWN)]
    return list(dict.fromkeys(users))


def _whole(request: Request, name: str, usual: int, most: int) -> int:
    text = request.query_params.get(name, "").strip() or str(usual)
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most:
        return int(text)
    raise PageError(
        400,
        "This address has a wrong value",
        f"{name}: “{text[:80]}” is not a whole number from 1 to {most}.",
    )


PAGES = (Page("", rules_page), Page("/cost", cost), Page("/surfaces.yaml", surface))
