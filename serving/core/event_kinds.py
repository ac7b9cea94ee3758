"""Event kinds: valid names, and the mapping of kinds that a model was not trained on.

A shop may record any kind; a model knows those that it was trained on. Unknown kinds are stored, exported and
attributed like all others. Of them only the usual ones (`view`, `click`, `add_to_cart`, `purchase`) enter
histories: as the nearest weaker kind that the model knows, or else as a sign of interest, which personalises
a list and is not a purchase.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from features.data import schema
from features.data.histories import INTEREST

MAX_KIND_CHARS: Final = 64
DEFAULT_KIND: Final = "view"
"""Kind of a session event without a kind."""
_KIND: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")


def kind_fault(kind: str, known: Sequence[str]) -> str:
    """Return why an event of this kind cannot be stored; empty where it can.

    Args:
        kind: as received.
        known: kinds of the model; always valid.
    """
    if kind in known or _KIND.fullmatch(kind):
        return ""
    if not kind:
        return "event is empty; name what happened, for example `view`"
    return (
        f"event kind '{kind[:MAX_KIND_CHARS]}' cannot be used; use 1 to 64 characters of A-Z a-z 0-9 _ . : -"
    )


def history_codes(known: Sequence[str]) -> Mapping[str, int]:
    """Return the code of every kind that enters histories: its index in `known`, or `INTEREST`.

    All other kinds are left out of histories.

    Args:
        known: kinds of the model, strongest first.
    """
    return _codes(tuple(known))


@lru_cache(16)
def _codes(known: tuple[str, ...]) -> Mapping[str, int]:
    codes = {kind: code for code, kind in enumerate(known)}
    usual = schema.USUAL_KINDS
    for rank, kind in enumerate(usual):
        if kind not in known:
            weaker = usual[rank + 1 :]
            # A view and a click mean the same where a model knows only one of them.
            alike = schema.CLICK_KINDS if kind in schema.CLICK_KINDS else ()
            nearest = next((other for other in (*weaker, *alike) if other in known), None)
            codes[kind] = INTEREST if nearest is None else known.index(nearest)
    return MappingProxyType(codes)
