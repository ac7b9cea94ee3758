"""Kinds of events: which names can be stored, and what a kind means to a model that does not know it.

A shop records what it likes; a model knows the kinds that it was trained on. Kinds that it does not know are
stored, exported and attributed like all others. Of them only those whose names say what they are (`view`,
`click`, `add_to_cart`, `purchase`) reach the model: as the nearest weaker kind that it knows, or else as a
sign of interest, which personalises a list and is no purchase.
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
"""Kind of a session event that names none."""
_KIND: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")


def kind_fault(kind: str, known: Sequence[str]) -> str:
    """Return why an event of this kind cannot be stored; empty where it can.

    Args:
        kind: as received.
        known: kinds of the model, which can be stored whatever their names.
    """
    if kind in known or _KIND.fullmatch(kind):
        return ""
    if not kind:
        return "event is empty; name what happened, for example `view`"
    return (
        f"event kind '{kind[:MAX_KIND_CHARS]}' cannot be used; use 1 to 64 characters of A-Z a-z 0-9 _ . : -"
    )


def history_codes(known: Sequence[str]) -> Mapping[str, int]:
    """Return the code of every kind that counts in histories: its place in `known`, or `INTEREST`.

    Kinds that are not in the mapping are left out of histories.

    Args:
        known: kinds of the model, strongest first.
    """
    return _codes(tuple(known))


@lru_cache(16)
def _codes(known: tuple[str, ...]) -> Mapping[str, int]:
    codes = {kind: code for code, kind in enumerate(known)}
    usual = schema.USUAL_KINDS
    for place, kind in enumerate(usual):
        if kind not in known:
            weaker = usual[place + 1 :]
            # A view and a click say the same where a model knows only one of them.
            alike = schema.CLICK_KINDS if kind in schema.CLICK_KINDS else ()
            nearest = next((other for other in (*weaker, *alike) if other in known), None)
            codes[kind] = INTEREST if nearest is None else known.index(nearest)
    return MappingProxyType(codes)
