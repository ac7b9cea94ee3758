"""DeclareAttributes: validation of declarations, and the wire names of attribute types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from features.data import schema
from features.files.column_names import is_pattern
from ranking.catalogue.filter_language import AttributeKind
from ranking.catalogue.live_catalogue import Declaration, LiveCatalogue
from serving.core.errors import ApiError, invalid
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_DECLARED: Final = 200
"""Most declared attributes of a catalogue, over all calls."""
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
        rows: of the request.
        catalogue: the items; attributes that they have cannot be declared with another type.
        declared: attributes declared before.

    Raises:
        ApiError: no row, an invalid name, no type, or a type that differs from the existing one.
    """
    if not rows:
        raise invalid("attributes", "is empty; declare at least one")
    found: dict[str, AttributeKind] = {}
    for index, row in enumerate(rows):
        path = f"attributes[{index}]"
        if len(row.name) > MAX_NAME_CHARS or not _NAME.fullmatch(row.name) or row.name != row.name.strip():
            raise invalid(f"{path}.name", "use 1 to 64 characters without ` and control characters")
        if is_pattern(row.name):
            raise invalid(
                f"{path}.name", f"'{row.name}' is no name: * and ^...$ stand for several attributes"
            )
        if row.name in (schema.ITEM_ID, schema.TEXT):
            raise invalid(f"{path}.name", f"'{row.name}' is no attribute of items")
        kind = _KINDS.get(row.type)
        if kind is None:
            raise invalid(f"{path}.type", "set STRING, NUMBER, BOOL, TIME or LIST")
        existing = catalogue.kinds.get(row.name)
        if existing is None and row.name in catalogue.columns:
            raise invalid(f"{path}.name", f"the model has '{row.name}' with a type that cannot be set")
        existing = found.setdefault(row.name, existing or declared.get(row.name, kind))
        if existing is not kind:
            raise type_conflict(index, row.name, existing)
    if len({*declared, *found}) > MAX_DECLARED:
        raise invalid("attributes", f"{len(declared)} are declared already; at most {MAX_DECLARED}")
    return [Declaration(name, kind) for name, kind in found.items()]


def type_conflict(index: int, name: str, kind: AttributeKind) -> ApiError:
    """Return the error for an attribute that exists with another type."""
    message = f"'{name}' is {pb.Attribute.Type.Name(WIRE_TYPES[kind])} already; use that, or another name"
    return invalid(f"attributes[{index}].type", message, "ATTRIBUTE_TYPE")
