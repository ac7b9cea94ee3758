"""What a view is: a name, a place in the navigation, and pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from starlette.requests import Request
from starlette.responses import Response

from explorer.context import ExplorerContext

Endpoint = Callable[[Request, ExplorerContext], Response]
"""Makes one page. Plain code: it runs in a thread, never on the event loop."""


class Needs(Enum):
    """What a view cannot do without; without it a page says so."""

    nothing = "nothing"
    bundle = "bundle"
    """A local artifact store. Its pages run one at a time, once the bundle is loaded."""
    server = "server"
    either = "either"
    """A bundle or a server. With a store its pages run one at a time, once the bundle is loaded."""


@dataclass(frozen=True)
class Page:
    """An address of a view."""

    path: str
    """After the view's own path; empty is the view's first page. Starlette's path parameters are allowed."""
    endpoint: Endpoint
    method: str = "GET"
    """`POST` only in a view with `posts`; the fields of the form are in `request.state.form`."""


@dataclass(frozen=True)
class View:
    """One entry of the navigation.

    Its pages are in the module `explorer.views.<name>`, as a tuple `PAGES`. That module is imported when the
    view is first opened: models take seconds to import, and the start page must not wait for them.
    """

    name: str
    """Also of its module, of its template `<name>.html.jinja`, and of its picture in the documentation."""
    title: str
    path: str
    """Begins with a slash; all addresses of the view begin with it."""
    summary: str
    """One sentence for the start page: what a person can do there."""
    needs: Needs = Needs.bundle
    posts: bool = False
    """Whether it has pages that are sent a form. All other views are read-only."""
    example: str = ""
    """What follows the path in the address of a state worth a picture, for example `?like=loyal&seed=1`."""
