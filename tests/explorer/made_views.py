"""Views made up for tests: modules that the app imports as if they were in `explorer/views/`."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from explorer.app import create_app
from explorer.context import ExplorerContext
from explorer.security import Access
from explorer.view import Endpoint, Needs, Page, View


def hello(request: Request, context: ExplorerContext) -> Response:
    return PlainTextResponse("hello")


def module(monkeypatch: pytest.MonkeyPatch, name: str, *pages: Page) -> None:
    made = ModuleType(f"explorer.views.{name}")
    made.PAGES = pages  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, made.__name__, made)


def app_of(
    monkeypatch: pytest.MonkeyPatch,
    endpoint: Endpoint,
    *,
    context: ExplorerContext | None = None,
    access: Access | None = None,
    needs: Needs = Needs.nothing,
    path: str = "",
    method: str = "GET",
    posts: bool = False,
) -> Starlette:
    """Return an app with a start page and one view, `/made`."""
    module(monkeypatch, "made_start", Page("", hello))
    module(monkeypatch, "made", Page(path, endpoint, method))
    views = (
        View("made_start", "Start", "/", "", Needs.nothing),
        View("made", "Made up", "/made", "", needs, posts=posts),
    )
    return create_app(context or ExplorerContext(), access, views)
