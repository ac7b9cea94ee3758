"""The RPCs: each checks its request, asks state and model, and builds its response."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

import grpc
import numpy as np

from conf.serving import ServeConfig
from features.dataset import BoolArray, IntArray
from features.privacy import Pseudonyms
from ranking.filters import AttributeKind, FilterError
from ranking.live_items import ItemChange
from ranking.requests import Recommendation, Request
from serving import paging, validation
from serving.batching import Batcher
from serving.envelope import CALL, Context
from serving.host import ModelHost, Served
from serving.item_changes import ItemChanges
from serving.items import check_deletes, check_items
from serving.model import Neighbours, RecommendJob, SimilarJob
from serving.problems import Problem, invalid
from serving.proto.shelfwise.v1 import recommendations_pb2 as pb
from serving.proto.shelfwise.v1 import recommendations_pb2_grpc as pb_grpc
from serving.recording import check_events, respond
from serving.translation import degradation, merge_history, session_events
from serving.user_state import MICROS, Outcome, PastEvent, StateUnavailable, UserState, log_name

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
_LOG = logging.getLogger(__name__)
_ATTRIBUTE_TYPES: Final = {
    AttributeKind.string: pb.Attribute.STRING,
    AttributeKind.number: pb.Attribute.NUMBER,
    AttributeKind.boolean: pb.Attribute.BOOL,
    AttributeKind.time: pb.Attribute.TIME,
    AttributeKind.list: pb.Attribute.LIST,
}


@dataclass(frozen=True)
class _FilterJob:
    served: Served
    expression: str


class RecommendationService(pb_grpc.RecommendationServiceServicer):
    """Implements shelfwise.v1.RecommendationService; create it inside a running event loop."""

    def __init__(
        self,
        host: ModelHost,
        state: UserState,
        changes: ItemChanges,
        config: ServeConfig,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        """Wire the service.

        Args:
            host: the model that answers; it must have one before the first request.
            state: stored events.
            changes: stored item changes.
            config: limits.
            pseudonyms: replaces user ids before anything else sees them; None keeps them.
        """
        self._host = host
        self._state = state
        self._changes = changes
        self._config = config
        self._pseudonyms = pseudonyms
        self._started = time.monotonic()
        self._filters = Batcher[_FilterJob, BoolArray | FilterError](
            _make_masks, max_batch=1, max_queue=config.max_queue, name="filters"
        )

    async def close(self) -> None:
        """Finish running work and stop the thread."""
        await self._filters.close()

    async def Recommend(self, request: pb.RecommendRequest, _: Context) -> pb.RecommendResponse:
        """Answer with a personalised list."""
        call, served = CALL.get(), self._host.served
        model = served.model
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = paging.decode(request.page_token, identity := paging.fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.RecommendedItem)
        surface = validation.surface(request.surface)
        intent = validation.limited_text("session.intent", request.session.intent, validation.MAX_QUERY_CHARS)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        asked = request.HasField("request_time")
        now_us = validation.micros("request_time", request.request_time) if asked else time.time_ns() // 1000
        session = session_events(request.session, model, now_us)
        user = self._known_as(validation.optional_id("user_id", request.user_id))
        exclude_seen = request.exclude_seen if request.HasField("exclude_seen") else model.exclude_seen
        diversity = (
            validation.diversity(request.diversity) if request.HasField("diversity") else served.diversity
        )

        allowed = await self._allowed(served, request.filter)
        stored = await self._history(user, now_us if asked else None)
        history, used = merge_history(
            model, stored or (), session, now_us // MICROS, self._config.max_history
        )
        answer = await self._host.jobs.submit(
            RecommendJob(
                model,
                Request(
                    history=history,
                    now=now_us // MICROS,
                    k=min(size + 1, len(model.catalogue)),  # one more, to know whether there is a next page
                    exclude=_exclude(served, excluded, shown),
                    allowed=allowed,
                    exclude_seen=exclude_seen,
                    diversity=diversity,
                    explain=request.explain,
                ),
                intent,
            ),
            call.deadline,
        )
        assert isinstance(answer, Recommendation)
        rung = degradation(answer.degradation, used, len(history.items), stored is not None)
        kept = self._still_there(item.row for item in answer.items)
        items = tuple(item for item, there in zip(answer.items, kept, strict=True) if there)
        page = Recommendation(items[:size], answer.degradation)
        _LOG.info(
            "recommended %d items request_id=%s user=%s surface=%s %s",
            len(page.items),
            call.request_id,
            log_name(user) if user else "-",
            surface or "-",
            pb.Degradation.Name(rung),
        )
        rows = [item.row for item in page.items] if len(items) > size else []
        return pb.RecommendResponse(
            items=served.cards.recommended(page, intent, request.explain, fields),
            next_page_token=_next_token(served, identity, shown, rows),
            model_version=model.version,
            request_id=call.request_id,
            degradation=rung,
            unknown_item_ids=session.unknown,
        )

    async def SimilarItems(
        self, request: pb.SimilarItemsRequest, context: Context
    ) -> pb.SimilarItemsResponse:
        """Answer with the items whose texts are most alike."""
        call, served = CALL.get(), self._host.served
        model = served.model
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = paging.decode(request.page_token, identity := paging.fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.SimilarItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        seed = _seed(request, served)
        exclude = _exclude(served, excluded, shown)
        if isinstance(seed, int):
            exclude = np.union1d(exclude, np.array([seed], dtype=np.int32)).astype(np.int32)
        allowed = await self._allowed(served, request.filter)
        job = SimilarJob(model, seed, min(size + 1, len(model.catalogue)), exclude, allowed)
        answer = await self._host.jobs.submit(job, call.deadline)
        assert isinstance(answer, Neighbours)
        kept = self._still_there(answer.rows.tolist())
        found, cosines = answer.rows[kept], answer.cosines[kept]
        rows = found[:size].tolist() if len(found) > size else []
        return pb.SimilarItemsResponse(
            items=served.cards.similar(found[:size], cosines[:size], fields),
            next_page_token=_next_token(served, identity, shown, rows),
            model_version=model.version,
            request_id=call.request_id,
        )

    async def RecordEvents(
        self, request: pb.RecordEventsRequest, context: Context
    ) -> pb.RecordEventsResponse:
        """Store events."""
        call = CALL.get()
        limit = self._config.max_event_batch
        if not request.events:
            raise invalid("events", "is empty; send at least one event")
        if len(request.events) > limit:
            raise invalid("events", f"{len(request.events):,} events; send at most {limit:,} per call")
        now_us, ahead = time.time_ns() // 1000, self._config.max_future_seconds
        checked = check_events(request.events, self._host.served.model, now_us, ahead, self._known_as)
        outcomes = await self._state.record(checked.events, call.deadline) if checked.events else []
        pairs = zip(checked.events, outcomes, strict=True)
        await self._host.count_events(event.item_id for event, outcome in pairs if outcome is Outcome.new)
        return respond(checked, outcomes, call.request_id)

    async def GetStatus(self, request: pb.GetStatusRequest, _: Context) -> pb.GetStatusResponse:
        """Describe what is being served."""
        served, stats = self._host.served, await self._state.stats()
        model = served.model
        response = pb.GetStatusResponse(
            model_version=model.version,
            item_count=model.catalogue.alive_count,
            changed_item_count=model.catalogue.changed_count,
            deleted_item_count=model.catalogue.hidden_count,
            text_dim=int(model.text_vectors.shape[1]),
            event_kinds=model.kinds,
            attributes=[pb.Attribute(name=n, type=_ATTRIBUTE_TYPES[k]) for n, k in served.attributes.items()],
            user_count=stats.users,
            event_count=stats.events,
            server_version=_server_version(),
            max_page_size=self._config.max_page_size,
            max_event_batch=self._config.max_event_batch,
            queue_length=len(self._host.jobs),
            request_id=CALL.get().request_id,
        )
        response.model_data_time.FromSeconds(model.data_end)
        response.model_load_time.FromMicroseconds(served.since_us)
        response.uptime.FromMilliseconds(int((time.monotonic() - self._started) * 1000))
        response.max_future.FromMilliseconds(int(self._config.max_future_seconds * 1000))
        if stats.last_record_us is not None:
            response.last_record_time.FromMicroseconds(stats.last_record_us)
        return response

    async def SearchItems(self, request: pb.SearchItemsRequest, _: Context) -> pb.SearchItemsResponse:
        """Refuse: not part of this version."""
        raise _unimplemented("SearchItems", "use Recommend with session.intent")

    async def UpsertItems(self, request: pb.UpsertItemsRequest, _: Context) -> pb.UpsertItemsResponse:
        """Add or replace items; they can be found before this returns."""
        call, catalogue = CALL.get(), self._host.served.model.catalogue
        room = self._config.max_live_items - (len(catalogue) - len(catalogue.base))
        checked = check_items(request.items, catalogue, room)
        if checked.changes and not request.validate_only:
            revision = await self._changes.store(checked.changes, call.deadline)
            await self._host.reach(revision, call.deadline)
        return pb.UpsertItemsResponse(
            upserted_count=len(checked.changes), rejects=checked.rejects, request_id=call.request_id
        )

    async def DeleteItems(self, request: pb.DeleteItemsRequest, _: Context) -> pb.DeleteItemsResponse:
        """Remove items; they are in no response after this one."""
        call, catalogue = CALL.get(), self._host.served.model.catalogue
        item_ids = check_deletes(request.item_ids)
        rows = [catalogue.row(item_id) for item_id in item_ids]
        there = sum(row is not None and not catalogue.is_hidden(row) for row in rows)
        revision = await self._changes.store([ItemChange(i, None) for i in item_ids], call.deadline)
        await self._host.reach(revision, call.deadline)
        return pb.DeleteItemsResponse(deleted_count=there, request_id=call.request_id)

    async def DeleteUser(self, request: pb.DeleteUserRequest, _: Context) -> pb.DeleteUserResponse:
        """Refuse: not part of this version."""
        raise _unimplemented("DeleteUser", "delete the user from the event tables and the state file")

    def _known_as(self, user_id: str) -> str:
        return self._pseudonyms.of(user_id) if self._pseudonyms and user_id else user_id

    async def _history(self, user: str, before_us: int | None) -> list[PastEvent] | None:
        """Return a user's stored events; None when the store cannot be read, which must not stop a list."""
        if not user:
            return []
        try:
            return await self._state.history(user, self._config.max_history, before_us, CALL.get().deadline)
        except StateUnavailable as error:
            _LOG.warning("history unavailable request_id=%s: %s", CALL.get().request_id, error)
            return None

    async def _allowed(self, served: Served, expression: str) -> BoolArray | None:
        """Return the mask of a filter, [items]; None without a filter."""
        if not expression.strip():
            return None
        found = served.cached_mask(expression)
        made = (
            found
            if found is not None
            else await self._filters.submit(_FilterJob(served, expression), CALL.get().deadline)
        )
        if isinstance(made, FilterError):
            problem = invalid("filter", str(made), "FILTER_INVALID")
            problem.metadata["column"] = str(made.column)
            raise problem
        return made

    def _still_there(self, rows: Iterable[int]) -> list[bool]:
        """Tell which rows may be shown: an item may have been deleted since the list was made."""
        catalogue = self._host.served.model.catalogue
        return [row >= len(catalogue) or not catalogue.is_hidden(row) for row in rows]


def _make_masks(jobs: Sequence[_FilterJob]) -> list[BoolArray | FilterError]:
    """Evaluate filters in the filter thread; a wrong one is an answer, not a failure."""
    return [_make_mask(job) for job in jobs]


def _make_mask(job: _FilterJob) -> BoolArray | FilterError:
    try:
        return job.served.mask(job.expression)
    except FilterError as error:
        return error


def _exclude(served: Served, item_ids: list[str], shown: paging.HashArray) -> IntArray:
    """Return the rows that must not appear, each once."""
    catalogue = served.model.catalogue
    rows = np.unique(np.concatenate([catalogue.rows(item_ids), served.shown.rows(shown)])).astype(np.int32)
    return rows[rows < len(catalogue)]  # what a later state has added cannot be in this one's lists


def _next_token(served: Served, identity: bytes, shown: paging.HashArray, rows: Sequence[int]) -> str:
    """Return the token after these rows; empty when there are none, because the list ends here."""
    if not rows:
        return ""
    ids = served.model.catalogue.ids
    hashes = np.array([paging.id_hash(ids[row]) for row in rows], dtype=np.uint32)
    return paging.encode(identity, np.concatenate([shown, hashes]))


def _seed(request: pb.SimilarItemsRequest, served: Served) -> int | str:
    """Return the row or the text to start from."""
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
    if row is None or served.model.catalogue.is_hidden(row):
        raise Problem(
            grpc.StatusCode.NOT_FOUND,
            "ITEM_NOT_FOUND",
            f"item_id '{request.item_id}' is not in the catalogue; send its text instead",
            metadata={"item_id": request.item_id},
        )
    return row


def _unimplemented(rpc: str, instead: str) -> Problem:
    message = f"{rpc} is not available in this version; {instead}"
    return Problem(grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED", message)


def _server_version() -> str:
    try:
        return metadata.version("shelfwise")
    except metadata.PackageNotFoundError:
        return "unpackaged"
