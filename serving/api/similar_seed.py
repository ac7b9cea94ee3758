"""What a similarity search begins with: an item of the catalogue, or a text."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from serving.api import validation
from serving.core.errors import ApiError, invalid
from serving.model.served import Served
from shelfwise_client.v1 import recommendations_pb2 as pb


def similar_seed(request: pb.SimilarItemsRequest, served: Served, deleted: Sequence[str]) -> int | str:
    """Return the seed of a similarity search: a catalogue row or a text."""
    kind = request.WhichOneof("seed")
    if kind is None:
        raise invalid("seed", "set item_id or text")
    if kind == "text":
        text = validation.limited_text("text", request.text, validation.MAX_TEXT_CHARS)
        if not text:
            raise invalid("text", "is empty")
        return text[: served.text_chars]
    if not validation.optional_id("item_id", request.item_id):
        raise invalid("item_id", "is empty")
    row = served.model.catalogue.row(request.item_id)
    if row is None or served.model.catalogue.is_hidden(row) or request.item_id in deleted:
        raise ApiError(
            grpc.StatusCode.NOT_FOUND,
            "ITEM_NOT_FOUND",
            f"item_id '{request.item_id}' is not in the catalogue; send its text instead",
            metadata={"item_id": request.item_id},
        )
    return row
