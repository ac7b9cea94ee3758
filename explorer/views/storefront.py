"""Be a shopper: a shelf, a product, clicks, the cart, and the list that changes with them."""

from __future__ import annotations

import hmac
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from explorer.context import ExplorerContext
from explorer.items import ItemCard, shown_price, shown_value
from explorer.model import LoadedModel
from explorer.problems import PageError, unknown_item, unknown_shopper
from explorer.rendering import render
from explorer.server import server_of
from explorer.shoppers import Like
from explorer.storefront.shelf import facets, filter_expression
from explorer.storefront.shop import ForYou, Shop, ShopError
from explorer.storefront.shop_server import Phase, ServerState, ShopServer
from explorer.storefront.visit import PATH, Action, Ledger, ShopAddress, Visit, kinds_of_actions
from explorer.view import Page
from explorer.views.shopper import DEGRADATIONS, stored_id
from features.data import schema
from features.text.titles import title_column
from shelfwise_client import Client, RecommendResult, ServiceError, SessionEvent
from shelfwise_client.v1 import recommendations_pb2 as pb

SECONDS: Final = 30.0
"""Longest wait for the storefront's own server."""
PATIENCE: Final = 0.3
"""Seconds that a page waits for a starting server before it says so."""
DYING: Final = 3.0
"""Seconds in which the end of a server that does not answer is noticed."""
_DID: Final = {Action.click: "clicked", Action.cart: "put into the cart", Action.buy: "bought"}


class Storefront:
    """What lasts between pages of one explorer: the server, and what was recorded at it."""

    def __init__(self, context: ExplorerContext) -> None:
        """Prepare; no server is started yet."""
        self.form_token = secrets.token_urlsafe(24)
        """In every form: a page of another origin cannot read it."""
        self.ledger = Ledger()
        self.server: ShopServer | None = None
        """None where the explorer was started with a server."""
        if context.server is None:
            assert context.store is not None
            self.server = ShopServer(context.store, *_privacy(context))
        self._client: tuple[str, Client] | None = None
        self._lock = threading.Lock()

    def client(self, address: str) -> Client:
        """Return the client of the own server at an address."""
        with self._lock:
            if self._client is None or self._client[0] != address:
                if self._client is not None:
                    self._client[1].close()
                self._client = (address, Client(address, timeout=SECONDS))
            return self._client[1]


def _privacy(context: ExplorerContext) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the settings and the variables by which a server takes a pseudonymised bundle.

    Where the key of the shop is missing, one is made: visits need some key, and histories are read here.
    """
    if not context.model().bundle.manifest.get("hash_users"):
        return (), {}
    name = context.privacy.key_env
    key = os.environ.get(name) or secrets.token_hex(32)
    return ("privacy.hash_users=true", f"privacy.key_env={name}"), {name: key}


class ServerDownError(Exception):
    """The storefront's own server is starting, or has failed."""

    def __init__(self, state: ServerState) -> None:
        super().__init__(state.message)
        self.state = state


@dataclass(frozen=True)
class Scene:
    """The shop of one request, with what pages show beside its lists."""

    context: ExplorerContext
    storefront: Storefront
    shop: Shop
    model: LoadedModel | None
    """None where only a server was named."""

    def card(self, item_id: str) -> ItemCard:
        """Return what is shown of an item: from the bundle, else as the server has it.

        Raises:
            PageError: there is no such item.

        """
        if self.model is not None:
            row = self.model.bundle.catalogue.row(item_id)
            if row is not None:
                return self.model.items.card(row)
        try:
            values = self.shop.client.get_item(item_id).attributes
        except ServiceError as error:
            if error.reason != "ITEM_NOT_FOUND":
                raise
            known = [] if self.model is None else self.model.bundle.catalogue.ids
            raise unknown_item(item_id, known, f"{PATH}?item={{}}") from error
        title = values.pop(title_column(values) or "", item_id)
        price = shown_price(values.pop(schema.PRICE, None))
        others = tuple((name, shown_value(value)) for name, value in values.items())
        return ItemCard(item_id, str(title), price, "", others, "")

    def cards(self, item_ids: Sequence[str]) -> dict[str, ItemCard | None]:
        """Return the cards of items; None for one that has gone meanwhile."""
        found: dict[str, ItemCard | None] = {}
        for item_id in item_ids:
            try:
                found[item_id] = self.card(item_id)
            except PageError:
                found[item_id] = None
        return found

    @cached_property
    def expression_columns(self) -> Any:  # noqa: ANN401 - polars' schema, or no columns
        """Types of the catalogue's columns."""
        return {} if self.model is None else self.model.bundle.catalogue.frame.schema


def storefront(request: Request, context: ExplorerContext) -> Response:
    """Show the shop in the state of the address."""
    address = ShopAddress.of(request.url.query)
    return _with_scene(
        request, context, address, lambda scene: _page(request, scene, "storefront.html.jinja", address)
    )


def act(request: Request, context: ExplorerContext) -> Response:
    """Carry out a click, an addition to the cart or a purchase, and show the shop after it."""
    form = request.state.form
    _check_token(request, context)
    address = ShopAddress.of(form.get("state", ""))
    action, _, rest = form.get("what", "").partition(":")
    position, _, item_id = rest.partition(":")
    known = {one.value: one for one in Action}
    if action not in known or not item_id:
        raise PageError(400, "Nothing to do", "The form names no action and no product.")
    place = int(position) if position.isascii() and position.isdigit() and len(position) < 6 else 0

    def made(scene: Scene) -> Response:
        failed, after = "", address
        try:
            visit = scene.shop.act(address.visit, known[action], item_id, form.get("token", ""), place)
            after = address.with_visit(visit)
            if known[action] is Action.click:
                after = ShopAddress.of(after.at(item=item_id).partition("?")[2])
        except ShopError as error:
            failed = str(error)
        if request.headers.get("hx-request") != "true":
            if failed:
                raise PageError(400, "The server did not take this", failed)
            return RedirectResponse(after.url, 303)
        response = _page(request, scene, "storefront_parts.html.jinja", after, failed=failed)
        response.headers["HX-Push-Url"] = after.url
        return response

    return _with_scene(request, context, address, made)


def restart(request: Request, context: ExplorerContext) -> Response:
    """Start the shop's server anew after a failure."""
    _check_token(request, context)
    held = _storefront(request, context)
    if held.server is not None:
        held.server.restart()
    return RedirectResponse(ShopAddress.of(request.state.form.get("state", "")).url, 303)


def opening(request: Request, context: ExplorerContext) -> Response:
    """Say whether the server is still starting: the page asks every second, and then loads itself again."""
    held = _storefront(request, context)
    waiting = held.server is not None and held.server.wait(PATIENCE).phase is Phase.starting
    text = "<p>The shop's server is starting.</p>" if waiting else "<p>The shop is open.</p>"
    return HTMLResponse(text, headers={} if waiting else {"HX-Refresh": "true"})


def _storefront(request: Request, context: ExplorerContext) -> Storefront:
    """Return the storefront of the app, which is made once."""
    state = request.app.state
    with _MAKING:
        if not hasattr(state, "storefront"):
            state.storefront = Storefront(context)
        found: Storefront = state.storefront
        return found


_MAKING: Final = threading.Lock()


def _check_token(request: Request, context: ExplorerContext) -> None:
    given = request.state.form.get("form_token", "")
    if not hmac.compare_digest(given.encode(), _storefront(request, context).form_token.encode()):
        raise PageError(
            403,
            "This form is out of date",
            "The explorer was started anew. Load the page again, then send it.",
        )


@contextmanager
def _scene(request: Request, context: ExplorerContext) -> Iterator[Scene]:
    """Yield the shop.

    Raises:
        ServerDownError: the own server is not there.
        PageError: a given server does not answer, or refuses.

    """
    model = None if context.loader is None else context.model()
    held = _storefront(request, context)
    history = None if model is None else _histories(model)
    if held.server is None:
        with server_of(context) as client:
            kinds = kinds_of_actions(client.status().event_kinds)
            shop = Shop(client, held.ledger, kinds, history, writes=context.write)
            yield Scene(context, held, shop, model)
        return
    assert model is not None
    held.server.start()
    state = held.server.wait(PATIENCE)
    if state.phase is not Phase.running:
        raise ServerDownError(state)
    shop = Shop(
        held.client(state.address), held.ledger, kinds_of_actions(model.bundle.kinds), history, model.now
    )
    try:
        yield Scene(context, held, shop, model)
    except ServiceError as error:
        state = held.server.wait_for_end(DYING)
        if state.phase is not Phase.running:
            raise ServerDownError(state) from error
        raise PageError(502, "The shop's server did not answer this", str(error)) from error


def _histories(model: LoadedModel) -> Callable[[str], list[SessionEvent]]:
    """Return what gives the events of a shopper who is copied."""

    def history(user: str) -> list[SessionEvent]:
        return [
            SessionEvent(event.item_id, event.kind, datetime.fromtimestamp(event.time, UTC))
            for event in model.shoppers.events(user)
        ]

    return history


def _with_scene(
    request: Request, context: ExplorerContext, address: ShopAddress, made: Callable[[Scene], Response]
) -> Response:
    """Return a page of the shop, or the one that says that its server is not there."""
    try:
        with _scene(request, context) as scene:
            _check_shopper(scene, address.visit)
            return made(scene)
    except ServerDownError as down:
        if request.headers.get("hx-request") == "true":
            return HTMLResponse("", headers={"HX-Redirect": address.url})
        status = 202 if down.state.phase is Phase.starting else 503
        return render(
            request,
            "storefront_closed.html.jinja",
            status,
            state=down.state,
            here=address,
            form_token=_storefront(request, context).form_token,
        )


def _check_shopper(scene: Scene, visit: Visit) -> None:
    """Raise PageError for a visit that begins with the history of an unknown shopper."""
    if not visit.shopper:
        return
    if scene.model is None:
        if scene.shop.writes:
            raise PageError(
                400,
                "A copy of a shopper needs the histories",
                "The visit would begin without the history after its first action. Start the explorer with "
                "artifacts=DIR, too, or without write=true.",
            )
        return
    if scene.model.shoppers.position(visit.shopper) is None:
        stored = stored_id(scene.context, scene.model, visit.shopper)
        raise unknown_shopper(stored, scene.model.shoppers.ids, f"{PATH}?as={{}}")


def _page(
    request: Request, scene: Scene, template: str, address: ShopAddress, failed: str = ""
) -> HTMLResponse:
    """Render the shop in one of its three forms: a product, a search, or the shelf."""
    shop, model, visit = scene.shop, scene.model, address.visit
    expression = filter_expression(address.filters, scene.expression_columns)
    product, similar = None, list[pb.SimilarItem]()
    found: RecommendResult | None = None
    if address.item:
        product = scene.card(address.item)
        similar = list(shop.similar(address.item))
    elif address.query:
        found = shop.search(address, expression)
    else:
        found = shop.shelf(expression, address.page)
    made = shop.for_you(address)
    shown = [item.item_id for item in (similar if found is None else found.items)]
    shown += [entry.item.item_id for entry in made.entries] + [done.item_id for done in visit.done]
    return render(
        request,
        template,
        here=address,
        visit=visit,
        shop=shop,
        server=scene.context.server,
        model=model,
        cards=scene.cards(list(dict.fromkeys(shown))),
        product=product,
        similar=similar,
        found=found,
        made=made,
        said=_said(made, visit),
        summary=summary(made),
        facets=[] if model is None else facets(model.bundle.catalogue.frame, _no_facets(model)),
        chosen=dict(address.filters),
        did=[(_DID[done.action], done.item_id) for done in visit.done],
        counts=Counter(_DID[done.action] for done in visit.done),
        recorded=shop.recorded(visit),
        others=_others(model, visit),
        failed=failed,
        form_token=scene.storefront.form_token,
    )


def _no_facets(model: LoadedModel) -> list[str | None]:
    return [model.items.title_column, model.items.picture_column, *model.bundle.template.fields[:1]]


def _others(model: LoadedModel | None, visit: Visit) -> list[tuple[str, str]]:
    """Return some shoppers to become: what they are like, and their ids."""
    if model is None:
        return []
    seed = int(visit.id, 16)
    drawn = [(like.value, model.shoppers.draw(like, seed)) for like in (Like.random, Like.new, Like.loyal)]
    return [(like, user) for like, user in drawn if user is not None]


def _said(made: ForYou, visit: Visit) -> str:
    """Return what the list was made from."""
    if made.degradation == "session_only":
        return "personalised with " + ("the copied history" if visit.shopper else "what was done")
    return DEGRADATIONS.get(made.degradation, made.degradation)


def summary(made: ForYou) -> str:
    """Return what the last action changed, in one sentence; empty before the first one."""
    changes = [entry.change for entry in made.entries]
    if not any(changes):
        return ""
    if not made.changed:
        return "The last action changed nothing in these places."
    moved = changes.count("up") + changes.count("down")
    parts = [f"{count} {word}" for count, word in ((changes.count("new"), "new"), (moved, "moved")) if count]
    return f"By the last action: {', '.join(parts)}, {len(made.left)} gone."


PAGES = (
    Page("", storefront),
    Page("/opening", opening),
    Page("/act", act, "POST"),
    Page("/restart", restart, "POST"),
)
