"""DeclareAttributes: which attributes can be declared, and how their types are called on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from features.data import schema
from ranking.catalogue.filter_language import AttributeKind
from ranking.catalogue.live_catalogue import Declaration, LiveCatalogue
from serving.core.errors import ApiError, invalid
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_DECLARED: Final = 200
"""Attributes that can be declared, in all calls together."""
MAX_NAME_CHARS: Final = 64
WIRE_TYPES: Final = MappingProxyType(
    {
        AttributeKind.string: pb.Attribute.STRING,
        AttributeKind.number: pb.Attribute.NUMBER,
        AttributeKind.boolean: pb.Attribute.BOOL,
        AttributeKind.time: pb.Attribute.TIME,
        AttributeKind.list: pb.Attribute.LIST,
    }
)
_KINDS: Final = {wire: kind for kind, wire in WIRE_TYPES.items()}
_NAME: Final = re.compile(r"[^`\x00-\x1f\x7f]+")


def check_declarations(
    rows: Sequence[pb.AttributeDeclaration],
    catalogue: LiveCatalogue,
    declared: Mapping[str, AttributeKind],
) -> list[Declaration]:
    """Return the attributes to declare, each once.

    Args:
        rows: as received.
        catalogue: the items, whose own attributes cannot be declared otherwise.
        declared: attributes that are declared already.

    Raises:
        ApiError: no row, a name that cannot be used, no type, or another type than there is.
    """
    if not rows:
        raise invalid("attributes", "is empty; declare at least one")
    found: dict[str, AttributeKind] = {}
    for index, row in enumerate(rows):
        path = f"attributes[{index}]"
        if len(row.name) > MAX_NAME_CHARS or not _NAME.fullmatch(row.name) or row.name != row.name.strip():
            raise invalid(f"{path}.name", "use 1 to 64 characters without ` and control characters")
        if row.name in (schema.ITEM_ID, schema.TEXT):
            raise invalid(f"{path}.name", f"'{row.name}' is no attribute of items")
        kind = _KINDS.get(row.type)
        if kind is None:
            raise invalid(f"{path}.type", "set STRING, NUMBER, BOOL, TIME or LIST")
        here = catalogue.kinds.get(row.name)
        if here is None and row.name in catalogue.columns:
            raise invalid(f"{path}.name", f"the model has '{row.name}' with a type that cannot be set")
        before = found.setdefault(row.name, here or declared.get(row.name, kind))
        if before is not kind:
            raise other_type(index, row.name, before)
    if len({*declared, *found}) > MAX_DECLARED:
        raise invalid("attributes", f"{len(declared)} are declared already; at most {MAX_DECLARED}")
    return [Declaration(name, kind) for name, kind in found.items()]


def other_type(index: int, name: str, kind: AttributeKind) -> ApiError:
    """Return the problem of an attribute that is there already with another type."""
    message = f"'{name}' is {pb.Attribute.Type.Name(WIRE_TYPES[kind])} already; use that, or another name"
    return invalid(f"attributes[{index}].type", message, "ATTRIBUTE_TYPE")
