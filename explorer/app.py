"""The web application: every view's pages, each in a thread, with readable pages for all that goes wrong."""

from __future__ import annotations

import importlib
import logging
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles

from conf.errors import InputError
from explorer.context import ExplorerContext
from explorer.lazy import LazyView
from explorer.problems import Link, LoadingError, PageError
from explorer.registry import VIEWS
from explorer.rendering import FOLDER, render
from explorer.security import PICTURES, Access, Guard, same_origin
from explorer.view import Needs, Page, View

_LOG = logging.getLogger(__name__)
MAX_FORM_BYTES: Final = 65_536
"""Largest form that a view is sent."""


def create_app(
    context: ExplorerContext, access: Access | None = None, views: Sequence[View] = VIEWS
) -> Starlette:
    """Return the application.

    Args:
        context: what the explorer was started with.
        access: who may read; None lets everybody on this machine.
        views: in the order of the navigation.

    """
    # Pages that use the bundle run one at a time: their arithmetic takes all cores, and compiled
    # loops of some threading layers must not run twice at once.
    alone = anyio.CapacityLimiter(1)

    def router_of(view: View) -> Router:
        limiter = alone if view.needs in (Needs.bundle, Needs.either) else None
        pages: Sequence[Page] = importlib.import_module(f"explorer.views.{view.name}").PAGES
        return Router([_route(view, page, limiter) for page in pages])

    lazy = {view.name: LazyView(partial(router_of, view), partial(_loading_page, view)) for view in views}
    lazy[views[0].name].load()  # the start page, which imports no models
    routes = []
    for view in views:
        routes.append(Route(view.path, lazy[view.name]))
        if view.path != "/":
            routes.append(Route(view.path + "/{rest:path}", lazy[view.name]))
    app = Starlette(
        routes=[
            *routes,
            Route("/loading", _loading),
            Route("/pictures/{state:str}", _pictures),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ],
        middleware=[Middleware(Guard, access=access or Access(), refuse=_key_page)],
        exception_handlers={HTTPException: _http_error},
    )
    app.state.context = context
    app.state.views = tuple(views)
    app.state.lazy = tuple(lazy.values())
    return app


def _route(view: View, page: Page, limiter: anyio.CapacityLimiter | None) -> Route:
    """Return the route of a page."""
    if page.method != "GET" and not view.posts:
        raise ValueError(f"view '{view.name}' is read-only: {page.method} {page.path} needs posts=True")

    async def answer(request: Request) -> Response:
        request.state.view = view
        if page.method != "GET":
            refused = await _read_form(request)
            if refused is not None:
                return refused
        return await anyio.to_thread.run_sync(partial(_made, view, page, request), limiter=limiter)

    return Route(view.path.rstrip("/") + page.path or "/", answer, methods=[page.method])


async def _loading_page(view: View, request: Request) -> Response:
    request.state.view = view
    return await anyio.to_thread.run_sync(partial(render, request, "loading.html.jinja", 202))


async def _read_form(request: Request) -> Response | None:
    """Put the fields of a form into `request.state.form`, or return why it is refused."""
    if not same_origin(request):
        return await _page_of(
            request, PageError(403, "Sent from another page", "Send the form from the explorer.")
        )
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            return await _page_of(request, PageError(413, "Too much text", "Send a shorter text."))
    request.state.form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    return None


def _made(view: View, page: Page, request: Request) -> Response:
    """Return a page, or the page that explains why there is none; runs in a thread."""
    context: ExplorerContext = request.app.state.context
    try:
        if view.needs is Needs.server and context.server is None:
            raise PageError(
                404,
                "This page needs a server",
                "Start the explorer with one: shelfwise explore server=HOST:PORT",
            )
        if view.needs is Needs.bundle or (view.needs is Needs.either and context.loader is not None):
            context.model()
        return page.endpoint(request, context)
    except LoadingError:
        return render(request, "loading.html.jinja", 202)
    except PageError as error:
        return _problem(request, error)
    except InputError as error:
        return _problem(request, PageError(500, "This cannot be read", str(error)))
    except Exception:
        number = uuid.uuid4().hex[:8]
        _LOG.exception("view %s failed, error %s", view.name, number)
        return _problem(
            request,
            PageError(500, "This page failed", f"The explorer's log has the cause under error {number}."),
        )


def _problem(request: Request, error: PageError) -> HTMLResponse:
    return render(request, "problem.html.jinja", error.status, problem=error)


async def _page_of(request: Request, error: PageError) -> Response:
    return await anyio.to_thread.run_sync(partial(_problem, request, error))


async def _http_error(request: Request, error: Exception) -> Response:
    """Return the page for an address or a method that does not exist."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        problem = PageError(
            404, "No such page", "There is nothing at this address.", [Link("/", "Start page")]
        )
    else:
        problem = PageError(error.status_code, "Not possible", str(error.detail))
    response = await _page_of(request, problem)
    response.headers.update(error.headers or {})
    return response


async def _key_page(request: Request) -> Response:
    """Return the page that asks for the key."""
    page = partial(render, request, "key.html.jinja", 401, wrong="key" in request.query_params)
    return await anyio.to_thread.run_sync(page)


async def _loading(request: Request) -> Response:
    """Say whether the bundle is there; a page that waits for it asks every second and reloads itself."""
    loader = request.app.state.context.loader
    bundle = loader is not None and loader.state().loading and not loader.state().loaded
    waiting = bundle or any(view.loading for view in request.app.state.lazy)
    text = f"<p>{'The bundle is' if bundle else 'The programs of this view are'} being loaded.</p>"
    text = text if waiting else "<p>Everything is loaded.</p>"
    return HTMLResponse(text, headers={} if waiting else {"HX-Refresh": "true"})


async def _pictures(request: Request) -> Response:
    """Switch pictures on or off for this reader, and go back to the page."""
    back = request.query_params.get("back", "/")
    # A path of this host only: a browser reads "//" and "/\" as the beginning of another host.
    safe = back.startswith("/") and not back.startswith(("//", "/\\"))
    response = RedirectResponse(back if safe else "/", 303)
    if request.path_params["state"] == "on":
        response.set_cookie(PICTURES, "on", max_age=365 * 86_400, httponly=True, samesite="lax")
    else:
        response.delete_cookie(PICTURES)
    return response
