"""Validation of request fields: each function returns the clean value or raises ApiError naming the field."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from conf.errors import closest
from features.data import schema
from features.text.words import folded
from serving.core.errors import invalid
from serving.core.event_kinds import kind_fault
from serving.state.contracts.user_state import MICROS
from shelfwise_client.v1 import recommendations_pb2 as pb

DEFAULT_PAGE_SIZE: Final = 20
MAX_ID_CHARS: Final = schema.MAX_ID_CHARS
MAX_SESSION_EVENTS: Final = 500
MAX_EXCLUDED: Final = 10_000
MAX_QUERY_CHARS: Final = 1000
MAX_TEXT_CHARS: Final = 10_000
MAX_MASK_PATHS: Final = 100
_SURFACE: Final = re.compile(r"[a-z0-9_-]{1,64}")
_DEVICE: Final = re.compile(r"[a-z0-9_-]{1,32}")
_LAST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z, the largest Timestamp."""


def page_size(requested: int, largest: int, path: str = "page_size") -> int:
    """Return the effective page size: 0 is the default, larger ones are capped (https://google.aip.dev/158)."""
    if requested < 0:
        raise invalid(path, f"{requested} is negative; use 0 for the default of {DEFAULT_PAGE_SIZE}")
    return min(requested or DEFAULT_PAGE_SIZE, largest)


def optional_id(path: str, value: str) -> str:
    """Return an id or an empty string."""
    if len(value) > MAX_ID_CHARS:
        raise invalid(path, f"longer than {MAX_ID_CHARS} characters")
    return value


def limited_text(path: str, value: str, max_chars: int) -> str:
    """Return text with whitespace collapsed."""
    if len(value) > max_chars:
        raise invalid(path, f"longer than {max_chars:,} characters")
    return " ".join(value.split())


def free_text(path: str, value: str) -> str:
    """Return free text with whitespace collapsed; empty where it has neither letter nor digit."""
    text = limited_text(path, value, MAX_QUERY_CHARS)
    return text if folded(text) else ""


def excluded(path: str, ids: Sequence[str]) -> list[str]:
    """Return the ids of excluded items."""
    if len(ids) > MAX_EXCLUDED:
        raise invalid(
            path, f"{len(ids):,} ids; at most {MAX_EXCLUDED:,} can be excluded (a filter can do more)"
        )
    for index, item_id in enumerate(ids):
        optional_id(f"{path}[{index}]", item_id)
    return list(ids)


def share(path: str, value: float) -> float:
    """Return a number from 0 to 1."""
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise invalid(path, f"{value:g} is not between 0 and 1")
    return value


def surface(value: str) -> str:
    """Return the name of a surface, or an empty string."""
    if value and not _SURFACE.fullmatch(value):
        raise invalid("surface", "use 1 to 64 characters of a-z 0-9 _ -")
    return value


def device(path: str, value: str) -> str:
    """Return a device type, or an empty string."""
    if value and not _DEVICE.fullmatch(value):
        raise invalid(path, "use 1 to 32 characters of a-z 0-9 _ -")
    return value


def hour(path: str, value: int) -> int:
    """Return an hour of the day."""
    if not 0 <= value <= 23:
        raise invalid(path, f"{value} is not between 0 and 23")
    return value


def device_and_hour(session: pb.SessionContext) -> tuple[str, int | None]:
    """Return the session's device and hour of the day."""
    kind = device("session.device", session.device)
    return kind, hour("session.hour", session.hour) if session.HasField("hour") else None


def micros(path: str, value: Timestamp) -> int:
    """Return a Timestamp from 1970 on in microseconds since 1970."""
    if not (0 <= value.seconds <= _LAST_SECOND and 0 <= value.nanos < 1_000_000_000):
        raise invalid(path, "not a time between 1970 and 9999")
    return value.seconds * MICROS + value.nanos // 1000


def event_kind(path: str, kind: str, known: Sequence[str]) -> str:
    """Return an event kind that is known to the model or has a valid name."""
    fault = kind_fault(kind, known)
    if fault:
        raise invalid(path, fault)
    return kind


def read_mask(mask: FieldMask, item: type[Message]) -> frozenset[str] | None:
    """Return the fields of a response's items; None for all. Only top-level fields can be selected."""
    if not mask.paths or list(mask.paths) == ["*"]:
        return None
    known = [field.name for field in item.DESCRIPTOR.fields]
    if len(mask.paths) > MAX_MASK_PATHS:
        raise invalid("read_mask", f"{len(mask.paths):,} paths; there are {len(known)} fields")
    for path in mask.paths:
        if path not in known:
            message = f"no field '{path[:64]}'{closest(path[:64], known)}; fields: {', '.join(known)}"
            raise invalid("read_mask", message)
    return frozenset(mask.paths)
