"""What of a shop's filters Milvus tests and what the server does, as lines for an operator."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from conf.errors import InputError
from features.data import schema
from ranking.catalogue.filter_language import FilterError, attribute_kinds, compile_filter
from ranking.milvus.expressions import translate, untranslatable
from ranking.milvus.fields import attribute_fields


def attributes_without_field(frame: pl.DataFrame) -> list[str]:
    """Return the attributes that filters may refer to and a collection has no field for.

    Args:
        frame: a bundle's catalogue.

    """
    stored = {schema.ITEM_ID, *(field.name for field in attribute_fields(frame))}
    return [name for name in attribute_kinds(frame.schema) if name not in stored]


def filter_lines(frame: pl.DataFrame, filters: Sequence[str]) -> list[str]:
    """Return a line for each filter: what Milvus tests of it, and which conditions the server tests and why.

    Args:
        frame: a bundle's catalogue.
        filters: in the language of `ranking.catalogue.filter_language`.

    Raises:
        InputError: naming a filter that is invalid for the catalogue.

    """
    fields, lines = attribute_fields(frame), []
    for number, expression in enumerate(filters, 1):
        try:
            compile_filter(frame.schema, expression)
        except FilterError as error:
            raise InputError(f"filters: number {number}: {error}") from error
        made = translate(fields, expression) or "nothing"
        left = "; ".join(untranslatable(fields, expression))
        if left:
            lines.append(f"filter {number}: the server tests {left}; Milvus tests the rest: {made}")
        else:
            lines.append(f"filter {number}: Milvus tests all of it: {made}")
    return lines
