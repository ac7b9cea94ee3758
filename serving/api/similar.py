"""SimilarItems: items whose texts are like that of an item, or like a text.

The current model makes these lists. They are of no user, and so no part of an experiment.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import numpy as np

from conf.serving import ServeConfig
from serving.api import page_tokens, validation
from serving.api.recommend import ListCalls
from serving.api.tokens import fingerprint
from serving.api.translation import alive_mask, union
from serving.api.user_context import UserContext, UserContextLoader
from serving.core.call_context import annotate
from serving.core.errors import ApiError, invalid, search_unavailable
from serving.model.host import ModelHost
from serving.model.interfaces import Neighbours, SimilarJob
from serving.model.served import Served
from serving.transport.call_interceptor import CALL
from shelfwise_client.v1 import recommendations_pb2 as pb


class SimilarCalls:
    """Handler of SimilarItems; use it inside the event loop."""

    def __init__(
        self, lists: ListCalls, host: ModelHost, context_loader: UserContextLoader, config: ServeConfig
    ) -> None:
        """Wire the parts; see `serving.api.service.RecommendationService`."""
        self._lists = lists
        self._host = host
        self._context_loader = context_loader
        self._config = config

    async def similar(self, request: pb.SimilarItemsRequest) -> pb.SimilarItemsResponse:
        """Return the items whose texts are most similar to the seed's."""
        context = await self._context_loader.load("")
        async with self._host.lease() as served:
            return await self._similar(request, served, context)

    async def _similar(
        self, request: pb.SimilarItemsRequest, served: Served, context: UserContext
    ) -> pb.SimilarItemsResponse:
        call, model = CALL.get(), served.model
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = page_tokens.decode_shown(request.page_token, request_hash := fingerprint(request)).shown
        fields = validation.read_mask(request.read_mask, pb.SimilarItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        surface = validation.surface(request.surface)
        seed = _seed(request, served, context.deleted_items)
        excluded_ids = [*excluded, *context.deleted_items]
        own = np.array([seed] if isinstance(seed, int) else [], dtype=np.int32)
        exclude = union(model.catalogue.rows(excluded_ids), page_tokens.rows_of(served, shown), own)
        allowed = await self._lists.selector.mask(served, request.filter)
        job = SimilarJob(
            model, seed, min(size + 1, len(model.catalogue)), exclude, allowed, deadline=call.deadline
        )
        answer = await self._host.submit(job, call.deadline)
        annotate(model_version=model.version)
        assert isinstance(answer, Neighbours)
        if not answer.searched and isinstance(seed, str):
            raise search_unavailable()
        alive = alive_mask(self._host, served, answer.rows.tolist())
        found, cosines = answer.rows[alive], answer.cosines[alive]
        rows = found[:size].tolist() if len(found) > size else []
        response = pb.SimilarItemsResponse(
            next_page_token=page_tokens.next_token(served, request_hash, shown, rows),
            model_version=model.version,
            request_id=call.request_id,
            attribution_token=self._lists.token(served, surface),
        )
        served.cards.similar(response.items, found[:size], cosines[:size], fields, before=len(shown))
        return response


def _seed(request: pb.SimilarItemsRequest, served: Served, deleted: Sequence[str]) -> int | str:
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
