"""The item text template: one definition of the text encoder's input, for preparation and for serving.

A field is cleaned (HTML, control characters, whitespace), labelled (`Brand: Acme`) unless it comes first, and
the fields are joined into sentences: `Rubber boots. Brand: Acme. Colour: green`. An item without any of the
text fields falls back to its other string attributes, and then to its id.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.entities import html5
from typing import Any

import polars as pl

from conf.errors import InputError
from features.data import schema

_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_HIDDEN = r"(?is)<(?:script|style)\b[^>]*>.*?</(?:script|style)\s*>|<!--.*?-->"
_INLINE_TAG = (
    r"(?i)</?(?:a|abbr|b|bdi|bdo|cite|code|em|font|i|mark|q|s|small|span|strong|sub|sup|tt|u|var|wbr)"
    r"(?:\s[^<>]*)?/?>"
)
_TAG = r"<[/!?]?[A-Za-z][^<>]*>"
_INVISIBLE = r"[\u{00AD}\u{200B}\u{200E}\u{200F}\u{202A}-\u{202E}\u{2060}-\u{2064}\u{FEFF}]"
_SPACE = r"[\s\p{Cc}\p{Z}]+"
_SEPARATOR = "\x1f"
"""Separator of parts while they are joined: a control character, which cleaning removes from parts."""
_ENTITY_PATTERN = re.compile(_ENTITY)
_PLAIN_WORD = re.compile(r"[^<>&]*[A-Za-z0-9][^<>&]*", re.DOTALL)
_PUNCTUATED = re.compile(f"([.!?…]){_SEPARATOR}")


@dataclass(frozen=True)
class TextTemplate:
    """The fields of an item's text, and its greatest length."""

    fields: tuple[str, ...]
    """Text columns in order; the first one has no label."""
    fallback: tuple[str, ...] = ()
    """String attributes used when an item has none of `fields`."""
    max_chars: int = 1000

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> TextTemplate:
        """Rebuild the template from the content of dataset.json."""
        return cls(
            tuple(info["text_fields"]), tuple(info["text_fallback_fields"]), int(info["max_text_chars"])
        )


def label(name: str) -> str:
    """Turn a column name into words: `product_type` and `productType` both become `Product type`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = re.sub(r"[\W_]+", " ", words).strip().lower()
    return words[:1].upper() + words[1:]


def _resolve(entity: re.Match[str]) -> str:
    """Resolve one entity, but not the prefix of a longer word: `&paradise;` is not `&para;`."""
    written = entity.group()
    return html.unescape(written) if written[1] == "#" or written[1:] in html5 else written


def _unescape(texts: pl.Series) -> pl.Series:
    """Resolve HTML entities that end in `;`, in the few texts that have one (`AT&T` and `R&D` stay)."""
    hits = texts.str.contains(_ENTITY).fill_null(False).arg_true()
    if hits.is_empty():
        return texts
    resolved = [_ENTITY_PATTERN.sub(_resolve, str(t)) for t in texts.gather(hits)]
    return texts.scatter(hits, pl.Series(resolved, dtype=pl.String))


def clean_text(texts: pl.Series) -> pl.Series:
    """Clean strings, [texts]: entities, tags, invisible characters, whitespace; blank becomes null.

    Entities are resolved twice because feeds escape twice (`&amp;amp;`); every pattern runs in linear time.
    """
    text = pl.col("text")
    steps = text.str.replace_all(_HIDDEN, " ").str.replace_all(_INLINE_TAG, "").str.replace_all(_TAG, " ")
    steps = steps.str.normalize("NFC").str.replace_all(_INVISIBLE, "")
    steps = steps.str.replace_all(_SPACE, " ").str.strip_chars(" ").replace("", None)
    return _unescape(_unescape(texts)).to_frame("text").select(steps).to_series()


def number_text(value: pl.Expr) -> pl.Expr:
    """Format floats in short: `17.0` as `17`; NaN and infinity as null."""
    whole = (value == value.floor()) & (value.abs() < 1e15)
    written = (
        pl.when(whole)
        .then(value.cast(pl.Int64, strict=False).cast(pl.String))
        .otherwise(value.cast(pl.String))
    )
    return pl.when(value.is_finite()).then(written)


def _as_string(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.List | pl.Array):
        column = column.arr.to_list() if isinstance(dtype, pl.Array) else column
        return column.cast(pl.List(pl.String)).list.drop_nulls().list.join(", ")
    return number_text(column) if dtype.is_float() else column.cast(pl.String)


def _fields(frame: pl.DataFrame, names: Sequence[str], label_first: bool) -> pl.Series:
    """List the cleaned fields that each row has, [items] lists; fields that the table lacks count as null."""
    present = [(n, label_first or position > 0) for position, n in enumerate(names) if n in frame.columns]
    if not present:
        return pl.Series([[]], dtype=pl.List(pl.String)).new_from_index(0, frame.height)
    raw = frame.select(_as_string(name, frame.schema[name]).alias(name) for name, _ in present)
    stacked = clean_text(pl.concat(raw.get_columns()))  # [fields * items], field after field
    height = frame.height
    cleaned = pl.DataFrame(
        [stacked[i * height : (i + 1) * height].alias(n) for i, (n, _) in enumerate(present)]
    )
    shown = [
        pl.format(f"{label(name)}: {{}}", name) if labelled else pl.col(name) for name, labelled in present
    ]
    return cleaned.select(pl.concat_list(shown).list.drop_nulls().alias("parts")).to_series()


def _parts(frame: pl.DataFrame, template: TextTemplate) -> tuple[pl.Series, pl.Series]:
    """Return the parts of each item (never empty) and whether they come from its text fields."""
    parts = _fields(frame, template.fields, label_first=False)
    own = parts.list.len() > 0
    bare = (~own).arg_true()
    if bare.is_empty():
        return parts, own
    poor = frame[bare]
    other = _fields(poor, template.fallback, label_first=True)
    ids = poor.select(pl.concat_list(pl.col(schema.ITEM_ID).cast(pl.String))).to_series()
    other = other.zip_with(other.list.len() > 0, ids)
    rows = pl.concat([own.arg_true(), bare])
    return pl.concat([parts.filter(own), other]).gather(rows.arg_sort()), own


def _join(parts: pl.Series, max_chars: int) -> pl.Series:
    """Join lists of parts into texts of at most `max_chars` characters, [items]."""
    joined = parts.list.join(_SEPARATOR).str.replace_all(f"([.!?…]){_SEPARATOR}", "$1 ")
    text = joined.str.replace_all(_SEPARATOR, ". ", literal=True)
    # One character more than allowed shows whether the cut falls between two words.
    head = text.str.slice(0, max_chars + 1)
    worded = head.str.contains(" ", literal=True)
    cut = head.str.replace(" [^ ]*$", "").zip_with(worded, text.str.slice(0, max_chars))
    return text.zip_with(text.str.len_chars() <= max_chars, cut)


def join_parts(parts: Sequence[str], max_chars: int) -> str:
    """Join rendered parts exactly as `render_text` does; training calls it after dropping fields.

    Args:
        parts: some of the parts of one item from `render_parts`.
        max_chars: limit in characters; the cut falls between two words where there is one.
    """
    text = _PUNCTUATED.sub(r"\1 ", _SEPARATOR.join(parts)).replace(_SEPARATOR, ". ")
    if len(text) <= max_chars:
        return text
    head = text[: max_chars + 1]
    return head.rpartition(" ")[0] if " " in head else text[:max_chars]


def render_catalogue(frame: pl.DataFrame, template: TextTemplate) -> tuple[pl.Series, pl.Series]:
    """Render a table with `item_id`: texts, [items], and whether an item has a text field, [items]."""
    parts, own = _parts(frame, template)
    return _join(parts, template.max_chars).alias(schema.TEXT), own


def render_text(frame: pl.DataFrame, template: TextTemplate) -> pl.Series:
    """Render the text of every item of a table with `item_id`, [items] strings."""
    return render_catalogue(frame, template)[0]


def render_parts(frame: pl.DataFrame, template: TextTemplate) -> pl.Series:
    """Render the labelled fields that every item has, lists of strings; `join_parts` makes them one text.

    A column, because as many Python strings would take five times as much memory.
    """
    return _parts(frame, template)[0]


def _plain(name: str, value: object) -> str | None:
    """Format one raw value as polars formats the same value of a typed column."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # tables cannot hold lone surrogates
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        written: str | None = pl.select(number_text(pl.lit(value, dtype=pl.Float64))).item()
        return written
    if isinstance(value, list | tuple):
        return ", ".join(v for v in (_plain(name, element) for element in value) if v is not None)
    raise InputError(
        f"item field '{name}': expected text, a number, a bool or a list, got {type(value).__name__}"
    )


def render_rows(rows: Sequence[Mapping[str, object]], template: TextTemplate) -> list[str]:
    """Render raw items, e.g. from a storefront; equal to `render_text` on a table of the same values.

    Raises:
        InputError: a text field that is neither text, number, bool nor a list of these.
    """
    names = dict.fromkeys((*template.fields, *template.fallback, schema.ITEM_ID))
    columns = {name: [_plain(name, row.get(name)) for row in rows] for name in names}
    columns[schema.ITEM_ID] = [value or "" for value in columns[schema.ITEM_ID]]
    frame = pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))
    rendered: list[str] = render_text(frame, template).to_list()
    return rendered


def has_text(fields: Mapping[str, object], template: TextTemplate) -> bool:
    """Return whether an item's text contains more than its id.

    Args:
        fields: raw, as of `render_rows`.
        template: of the text; without fields, none is needed.
    """
    names = (*template.fields, *template.fallback)
    values = [value for name in names if (value := fields.get(name)) is not None]
    # Cleaning never removes a plain word; other values need the template.
    if any(isinstance(value, str) and _PLAIN_WORD.fullmatch(value) for value in values):
        return True
    return not names or bool(values and render_rows([{**fields, schema.ITEM_ID: ""}], template)[0])
