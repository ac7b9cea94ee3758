"""Defaults of lists as files have them: the fields of `SurfaceDefaults`, in YAML or JSON."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from conf.errors import InputError
from shelfwise_client.v1 import recommendations_pb2 as pb


def parse_defaults(entry: Any, where: str) -> pb.SurfaceDefaults:  # noqa: ANN401 - checked by the parser
    """Return the defaults of an entry.

    Args:
        entry: what YAML or JSON was read to.
        where: begins the error's message: the file and the place in it.

    Raises:
        InputError: an unknown field, or a value of a wrong type.
    """
    try:
        return json_format.ParseDict(entry, pb.SurfaceDefaults())
    except (json_format.ParseError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {_parse_message(error)}") from error


def overlaid(base: pb.SurfaceDefaults, over: pb.SurfaceDefaults) -> pb.SurfaceDefaults:
    """Return defaults in which the fields that are set in `over` replace those of `base`."""
    if not over.ListFields():
        return base
    merged = pb.SurfaceDefaults()
    merged.CopyFrom(base)
    for field, _ in over.ListFields():
        merged.ClearField(field.name)
    merged.MergeFrom(over)
    return merged


def _parse_message(error: Exception) -> str:
    """Return why an entry cannot be parsed, without the names of Python's and protobuf's types."""
    if not isinstance(error, json_format.ParseError):
        return "is not a mapping of fields"
    text = " ".join(str(error).split()).replace('"shelfwise.v1.', '"')
    return text.partition(" Available Fields")[0].rstrip(".")
