"""A product that does not exist: what it is near to, who would get it, what its words contribute."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import polars as pl
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from conf.errors import InputError
from explorer.context import ExplorerContext
from explorer.model import LoadedModel
from explorer.problems import PageError
from explorer.rendering import render
from explorer.studies import DEPTH, Desk, Study
from explorer.view import Page
from features.data import schema
from ranking.catalogue.filter_language import AttributeKind, attribute_kinds
from ranking.insight.new_product import Near
from ranking.insight.product_words import Move, WordEffects, moves

PATH: Final = "/new-product"
SIZES: Final = (100, 500, 2000)
"""Shoppers whose lists are made."""
PATIENCE: Final = 1.2
"""Seconds that a page works before it is shown with what there is."""
SLICE: Final = 0.8
"""Seconds of work between two reports of progress."""
MOST_VALUES: Final = 60
"""Values of an attribute up to which they are proposed."""
MOST_FIELDS: Final = 12
"""Attributes besides the text that a product can be given here."""
SHOWN: Final = 20
"""Shoppers that are named."""
LEVELS: Final = 3
"""Strengths in which a word is coloured, in either direction."""
TEXTS: Final = ("a", "b")
"""The product, and another text of it."""


@dataclass(frozen=True)
class Field:
    """An attribute in the form."""

    name: str
    kind: AttributeKind
    text: bool
    """Whether the text encoder reads it."""
    values: tuple[str, ...]
    """Values that the catalogue has; empty where there are many."""


@dataclass(frozen=True)
class ShownWord:
    """A word of the text, coloured by its effect."""

    text: str
    level: int
    """-3 to 3: how strong its effect on the score is, beside that of the strongest word."""
    score: float
    lists: int
    likeness: float
    without: str
    """Address of the comparison with the product without it."""


@dataclass(frozen=True)
class Side:
    """One text and what becomes of it."""

    name: str
    study: Study | None
    fault: str
    """Why there is none; empty where there is one, or where nothing was typed."""
    words: list[ShownWord]


def new_product(request: Request, context: ExplorerContext) -> Response:
    """Show the form, and with a text in the address what becomes of the product."""
    desk, model, size = _desk(request, context), context.model(), _size(request)
    typed = {name: typed_in(request.query_params, name) for name in TEXTS}
    sides = {name: _side(desk, name, written, size, typed) for name, written in typed.items()}
    studies = [side.study for side in sides.values() if side.study is not None]
    waiting = [study for study in studies if not study.finished]
    a, b = (sides[name].study for name in TEXTS)
    fields = form_fields(model)
    plain = {field.name for field in fields if not field.text and field.name != schema.PRICE}
    moved: list[Move] = []
    if a is not None and b is not None and a.audience is not None and b.audience is not None:
        moved = moves(a.audience, b.audience)
    return render(
        request,
        "new_product.html.jinja",
        model=model,
        fields=fields,
        more={name: not plain.isdisjoint(written) for name, written in typed.items()},
        typed=typed,
        sides=sides,
        waiting=_progress(studies) if waiting else None,
        moved=moved,
        compared=compared(moved),
        depth=DEPTH,
        size=size,
        sizes=SIZES,
        shoppers=len(model.shoppers),
        shown=SHOWN,
        near=lambda items: near_items(model, items),
        title=model.items.title,
        reason=lambda because: "" if because is None else model.items.title(because),
        query=urlencode(list(request.query_params.multi_items())),
        copied=address({"a": typed["a"], "b": typed["b"] or typed["a"]}, size),
    )


def progress(request: Request, context: ExplorerContext) -> Response:
    """Work for a moment and say how far it is; the page loads itself again once all is worked out."""
    desk, size = _desk(request, context), _size(request)
    studies = []
    for name in TEXTS:
        written = typed_in(request.query_params, name)
        try:
            if written:
                studies.append(desk.study(written, size))
        except InputError:
            continue
    unfinished = [study for study in studies if not study.finished]
    if unfinished:
        unfinished[0].work(SLICE)
    if all(study.finished for study in studies):
        return HTMLResponse("", headers={"HX-Refresh": "true"})
    query = urlencode(list(request.query_params.multi_items()))
    return render(request, "new_product_progress.html.jinja", waiting=_progress(studies), query=query)


def _side(
    desk: Desk, name: str, written: Mapping[str, str], size: int, typed: Mapping[str, Mapping[str, str]]
) -> Side:
    """Return the study of a text, worked on for a while."""
    if not written:
        return Side(name, None, "", [])
    try:
        study = desk.study(written, size)
    except InputError as error:
        return Side(name, None, str(error), [])
    if not study.finished:
        study.work(PATIENCE)
    words = [] if study.words is None else shown_words(study.words, name, typed, size)
    return Side(name, study, "", words)


def _progress(studies: Sequence[Study]) -> tuple[int, int]:
    """Return how many lists are made, and how many there will be."""
    return sum(study.done for study in studies), sum(study.lists for study in studies)


def typed_in(params: Mapping[str, str], name: str) -> dict[str, str]:
    """Return what an address has for the attributes of one text, without blank ones."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value.strip()
        for key, value in params.items()
        if key.startswith(prefix) and value.strip()
    }


def address(typed: Mapping[str, Mapping[str, str]], size: int) -> str:
    """Return the address of the page about one or two texts."""
    pairs = [(f"{name}.{key}", value) for name, values in typed.items() for key, value in values.items()]
    return f"{PATH}?{urlencode([*pairs, ('n', size)])}"


def shown_words(
    effects: WordEffects, name: str, typed: Mapping[str, Mapping[str, str]], size: int
) -> list[ShownWord]:
    """Return the words of a text with their colours, and the comparison with the text without each.

    Args:
        effects: of its words.
        name: of the text, `a` or `b`.
        typed: what was typed for each.
        size: shoppers whose lists are made.

    """
    strongest = effects.strongest or 1.0
    shown = []
    for effect in effects.effects:
        piece, written = effect.piece, typed[name]
        rest = {key: value for key, value in {**written, piece.field: piece.rest}.items() if value}
        shown.append(
            ShownWord(
                piece.text,
                round(LEVELS * effect.score / strongest),
                effect.score,
                effect.lists,
                effect.likeness,
                address({"a": written, "b": rest}, size),
            )
        )
    return shown


def compared(moved: Sequence[Move]) -> dict[str, int]:
    """Return how many lists have the second text and not the first, the reverse, and both, by direction."""
    both = [move for move in moved if move.before is not None and move.after is not None]
    return {
        "gained": sum(move.before is None for move in moved),
        "lost": sum(move.after is None for move in moved),
        "higher": sum(move.rise(DEPTH) > 0 for move in both),
        "lower": sum(move.rise(DEPTH) < 0 for move in both),
        "equal": sum(move.rise(DEPTH) == 0 for move in both),
    }


def near_items(model: LoadedModel, items: Sequence[Near]) -> list[tuple[str, str, float]]:
    """Return ids, titles and nearness of items."""
    ids = model.bundle.catalogue.ids
    return [(ids[item.row], model.items.title(item.row), item.score) for item in items]


def form_fields(model: LoadedModel) -> list[Field]:
    """Return the attributes that a product can be given: those of its text, price, then the others."""
    frame, template = model.bundle.catalogue.frame, model.bundle.template
    kinds = attribute_kinds(frame.schema)
    text = [name for name in (*template.fields, *template.fallback) if name in kinds]
    others = [
        name
        for name in model.bundle.catalogue.attributes
        if name in kinds and name not in text and name != model.items.picture_column
    ]
    others.sort(key=lambda name: name != schema.PRICE)
    named = dict.fromkeys([*text, *others[:MOST_FIELDS]])
    return [Field(name, kinds[name], name in text, _values(frame[name])) for name in named]


def _values(column: pl.Series) -> tuple[str, ...]:
    if column.dtype == pl.Boolean:
        return ("true", "false")
    if column.dtype != pl.String:
        return ()
    values = column.drop_nulls().unique()
    return tuple(sorted(values.to_list())) if len(values) <= MOST_VALUES else ()


def _size(request: Request) -> int:
    text = request.query_params.get("n", "").strip() or "500"
    if text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= SIZES[-1]:
        return int(text)
    raise PageError(
        400, "This address has a wrong value", f"n: “{text[:80]}” is not a number from 1 to {SIZES[-1]}."
    )


def _desk(request: Request, context: ExplorerContext) -> Desk:
    """Return the desk of the newest bundle; a new version gets a new one."""
    model, state = context.model(), request.app.state
    assert context.store is not None
    with _MAKING:
        found: Desk | None = getattr(state, "desk", None)
        if found is None or found.version != model.version:
            found = state.desk = Desk(context.store, model)
        return found


_MAKING: Final = threading.Lock()
PAGES = (Page("", new_product), Page("/progress", progress))
