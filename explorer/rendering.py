"""Pages from templates: escaping is on everywhere, and an undefined name is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

from explorer.security import shows_pictures

FOLDER: Final = Path(__file__).parent
_ENVIRONMENT: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def address(request: Request, **changes: object) -> str:
    """Return the address of this page in another state, without host.

    Args:
        request: of this page.
        changes: query parameters to set; None removes one.

    """
    values: dict[str, str] = dict(request.query_params)
    for name, value in changes.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = str(value)
    return request.url.path + (f"?{urlencode(values)}" if values else "")


def day(seconds: int) -> str:
    """Return a day in UTC, `2011-11-20`, from Unix seconds; empty for 0, a shop without times."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}" if seconds else ""


def moment(seconds: int) -> str:
    """Return a day and a minute in UTC from Unix seconds; empty for 0."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" if seconds else ""


_ENVIRONMENT.filters.update(day=day, moment=moment)
_ENVIRONMENT.globals["address"] = address


def render(request: Request, template: str, http_status: int = 200, /, **values: Any) -> HTMLResponse:  # noqa: ANN401
    """Return a page.

    Args:
        request: of the page; `request.state.view` is the view it belongs to, `None` outside of all views.
        template: its name; it extends `base.html.jinja` and fills the block `main`.
        http_status: of the response.
        values: names of the template.

    """
    context = request.app.state.context
    text = _ENVIRONMENT.get_template(template).render(
        request=request,
        context=context,
        views=request.app.state.views,
        view=getattr(request.state, "view", None),
        bundle=None if context.loader is None else context.loader.state(),
        pictures=shows_pictures(request),
        **values,
    )
    return HTMLResponse(text, http_status)
