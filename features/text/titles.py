"""The title of an item: its attribute, and the fallback."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_TITLE_COLUMNS: Final = (
    "title", "name", "productname", "producttitle", "itemname", "itemtitle", "prodname", "articlename",
    "displayname", "titel", "produktname", "produkttitel", "produktbezeichnung", "artikelname",
    "artikelbezeichnung", "bezeichnung", "titre", "nom", "nomproduit", "nomduproduit", "título", "titulo",
    "nome", "nomeproduto", "nomedoproduto", "nomeprodotto", "titolo", "nombre", "nombreproducto",
    "nombredelproducto",
    "naam", "productnaam", "namn", "produktnamn", "navn", "produktnavn", "nazwa", "nazwaproduktu", "název",
)  # fmt: skip
"""Names of the title column, without case and separators; the first that a table has is taken."""
TITLE_CHARS: Final = 80


def title_column(attributes: Iterable[str]) -> str | None:
    """Return the attribute that holds titles, whatever its case; None where there is none."""
    by_key = {re.sub(r"[\W_]+", "", name).lower(): name for name in reversed(list(attributes))}
    return next((by_key[name] for name in _TITLE_COLUMNS if name in by_key), None)


def shown_title(title: object, text: str) -> str:
    """Return the title to show: the attribute's value, or else the beginning of the text."""
    return shortened(str(title) if title else text, TITLE_CHARS)


def shortened(text: str, length: int) -> str:
    """Shorten at a word's end, with an ellipsis, to at most `length` characters."""
    if len(text) <= length:
        return text
    head = text[: length - 1]
    return (head.rpartition(" ")[0] or head).rstrip(" ,;:.") + "…"
