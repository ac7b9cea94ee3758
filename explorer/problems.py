"""What a view raises where there is no page to show: a readable page instead."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Link:
    """A way on from a page."""

    address: str
    text: str


class PageError(Exception):
    """A page that cannot be shown, with what a reader can do about it."""

    def __init__(self, status: int, title: str, message: str, links: Sequence[Link] = ()) -> None:
        """Make the error.

        Args:
            status: HTTP status.
            title: heading of the page.
            message: one or two sentences.
            links: ways on, for example to the closest ids.

        """
        super().__init__(message)
        self.status = status
        self.title = title
        self.message = message
        self.links = tuple(links)


class LoadingError(Exception):
    """The bundle is still being loaded; a page that comes back by itself is shown."""


def closest_ids(wanted: str, known: Sequence[str], limit: int = 5) -> list[str]:
    """Return the ids most like one that is unknown, best first.

    Ids that contain it come first, then those that difflib finds similar.

    Args:
        wanted: the unknown id.
        known: all ids.
        limit: how many at most.

    """
    lower = wanted.lower()
    found = [i for i in known if lower and lower in i.lower()][:limit]
    if len(found) < limit:
        # Of a large catalogue only ids of about the same length are compared.
        like = [i for i in known if abs(len(i) - len(wanted)) <= 2 and i[:1] == wanted[:1]][:20_000]
        found += [i for i in difflib.get_close_matches(wanted, like, n=limit, cutoff=0.5) if i not in found]
    return found[:limit]


def unknown_item(wanted: str, known: Sequence[str], address: str) -> PageError:
    """Return the error for an unknown item.

    Args:
        wanted: its id.
        known: the ids of the catalogue.
        address: of a page about an item, with `{}` in place of its id.

    """
    return _unknown("item", "the catalogue", wanted, known, address)


def unknown_shopper(wanted: str, known: Sequence[str], address: str) -> PageError:
    """Return the error for an unknown shopper; arguments as of `unknown_item`."""
    return _unknown("shopper", "the stored histories", wanted, known, address)


def _unknown(what: str, where: str, wanted: str, known: Sequence[str], address: str) -> PageError:
    links = [Link(address.format(quote(i, safe="")), i) for i in closest_ids(wanted, known)]
    hint = " The closest ids:" if links else ""
    return PageError(
        404, f"No {what} “{wanted[:80]}”", f"There is no {what} with this id in {where}.{hint}", links
    )
