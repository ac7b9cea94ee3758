"""The RPCs: each checks its request, asks state and model, and builds its response."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

import grpc
import numpy as np

from conf.schema import ServeConfig
from features.dataset import BoolArray, IntArray
from features.privacy import Pseudonyms
from ranking.filters import AttributeKind, FilterError, MaskCache, attribute_kinds
from ranking.requests import History, Recommendation, Request
from serving import paging, validation
from serving.batching import Batcher
from serving.envelope import CALL, Context
from serving.model import Answer, Job, Model, Neighbours, RecommendJob, SimilarJob, run_jobs
from serving.popularity import LivePopularity
from serving.problems import Problem, invalid
from serving.proto.shelfwise.v1 import recommendations_pb2 as pb
from serving.proto.shelfwise.v1 import recommendations_pb2_grpc as pb_grpc
from serving.recording import check_events, respond
from serving.translation import ItemCards, degradation, merge_history, session_events
from serving.user_state import MICROS, Outcome, PastEvent, StateUnavailable, UserState, log_name

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
_LOG = logging.getLogger(__name__)
_MODEL_TEXT_CHARS: Final = 1000
"""Raw item text is cut to this many characters where the model does not say how long its texts were."""
_ATTRIBUTE_TYPES: Final = {
    AttributeKind.string: pb.Attribute.STRING,
    AttributeKind.number: pb.Attribute.NUMBER,
    AttributeKind.boolean: pb.Attribute.BOOL,
    AttributeKind.time: pb.Attribute.TIME,
    AttributeKind.list: pb.Attribute.LIST,
}


class Served:
    """A model and what is derived from its catalogue; a request uses one from beginning to end."""

    def __init__(self, model: Model) -> None:
        """Derive titles and the lookup of paged items."""
        self.model = model
        self.cards = ItemCards(model.catalogue)
        self.shown = paging.ShownItems(model.catalogue)
        self.diversity = float(model.manifest.get("rerank", {}).get("diversity", 0.0))
        """MMR trade-off of requests that set none."""
        self.text_chars = int(model.manifest.get("template", {}).get("max_text_chars", _MODEL_TEXT_CHARS))
        """Length to which the texts that the model learnt from were cut."""
        self.attributes = attribute_kinds(model.catalogue)
        self.popularity = LivePopularity(model)
        self.since_us = time.time_ns() // 1000


@dataclass(frozen=True)
class _FilterJob:
    served: Served
    expression: str


class RecommendationService(pb_grpc.RecommendationServiceServicer):
    """Implements shelfwise.v1.RecommendationService; create it inside a running event loop."""

    def __init__(
        self, served: Served, state: UserState, config: ServeConfig, pseudonyms: Pseudonyms | None = None
    ) -> None:
        """Wire the service.

        Args:
            served: the model that answers.
            state: stored events.
            config: limits.
            pseudonyms: replaces user ids before anything else sees them; None keeps them.
        """
        self._served = served
        self._state = state
        self._config = config
        self._pseudonyms = pseudonyms
        self._started = time.monotonic()
        self._masks = MaskCache()
        self._jobs = Batcher[Job, Answer](
            run_jobs, max_batch=config.max_batch, max_queue=config.max_queue, name="model"
        )
        self._filters = Batcher[_FilterJob, BoolArray | FilterError](
            self._make_masks, max_batch=1, max_queue=config.max_queue, name="filters"
        )

    async def warm_up(self) -> None:
        """Answer one list and one similarity search, so that no caller waits for first-time work."""
        model = self._served.model
        if self._served.popularity.active:
            self._served.popularity.add(await self._state.item_counts())
        nobody = History(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(0, np.int64))
        request = Request(history=nobody, now=max(model.data_end, 1), k=min(10, len(model.catalogue)))
        await self._jobs.submit(RecommendJob(model, request, "warm up"))
        await self._jobs.submit(SimilarJob(model, "warm up", 1, np.zeros(0, np.int32), None))

    async def close(self) -> None:
        """Finish running work and stop the threads."""
        await self._jobs.close()
        await self._filters.close()

    async def Recommend(self, request: pb.RecommendRequest, _: Context) -> pb.RecommendResponse:
        """Answer with a personalised list."""
        call, served = CALL.get(), self._served
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
        answer = await self._jobs.submit(
            RecommendJob(
                model,
                Request(
                    history=history,
                    now=now_us // MICROS,
                    k=min(size + 1, len(model.catalogue)),  # one more, to know whether there is a next page
                    exclude=self._exclude(served, excluded, shown),
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
        page = Recommendation(answer.items[:size], answer.degradation)
        _LOG.info(
            "recommended %d items request_id=%s user=%s surface=%s %s",
            len(page.items),
            call.request_id,
            log_name(user) if user else "-",
            surface or "-",
            pb.Degradation.Name(rung),
        )
        rows = [item.row for item in page.items] if len(answer.items) > size else []
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
        call, served = CALL.get(), self._served
        model = served.model
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = paging.decode(request.page_token, identity := paging.fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.SimilarItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        seed = _seed(request, served)
        exclude = self._exclude(served, excluded, shown)
        if isinstance(seed, int):
            exclude = np.union1d(exclude, np.array([seed], dtype=np.int32)).astype(np.int32)
        allowed = await self._allowed(served, request.filter)
        job = SimilarJob(model, seed, min(size + 1, len(model.catalogue)), exclude, allowed)
        answer = await self._jobs.submit(job, call.deadline)
        assert isinstance(answer, Neighbours)
        rows = answer.rows[:size].tolist() if len(answer.rows) > size else []
        return pb.SimilarItemsResponse(
            items=served.cards.similar(answer.rows[:size], answer.cosines[:size], fields),
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
        checked = check_events(request.events, self._served.model, now_us, ahead, self._known_as)
        outcomes = await self._state.record(checked.events, call.deadline) if checked.events else []
        if self._served.popularity.active:
            pairs = zip(checked.events, outcomes, strict=True)
            new = [event.item_id for event, outcome in pairs if outcome is Outcome.new]
            await asyncio.to_thread(self._served.popularity.count, new)
        return respond(checked, outcomes, call.request_id)

    async def GetStatus(self, request: pb.GetStatusRequest, _: Context) -> pb.GetStatusResponse:
        """Describe what is being served."""
        served, stats = self._served, await self._state.stats()
        model = served.model
        response = pb.GetStatusResponse(
            model_version=model.version,
            item_count=len(model.catalogue),
            text_dim=int(model.text_vectors.shape[1]),
            event_kinds=model.kinds,
            attributes=[pb.Attribute(name=n, type=_ATTRIBUTE_TYPES[k]) for n, k in served.attributes.items()],
            user_count=stats.users,
            event_count=stats.events,
            server_version=_server_version(),
            max_page_size=self._config.max_page_size,
            max_event_batch=self._config.max_event_batch,
            queue_length=len(self._jobs),
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
        """Refuse: not part of this version."""
        raise _unimplemented("UpsertItems", "publish a model with the new items")

    async def DeleteItems(self, request: pb.DeleteItemsRequest, _: Context) -> pb.DeleteItemsResponse:
        """Refuse: not part of this version."""
        raise _unimplemented("DeleteItems", "use exclude_item_ids or a filter")

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
        found = self._masks.cached(served.model.version, expression)
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

    def _make_masks(self, jobs: Sequence[_FilterJob]) -> list[BoolArray | FilterError]:
        """Evaluate filters in the filter thread; a wrong one is an answer, not a failure."""
        return [self._make_mask(job.served.model, job.expression) for job in jobs]

    def _make_mask(self, model: Model, expression: str) -> BoolArray | FilterError:
        try:
            return self._masks.mask(model.version, model.catalogue, expression)
        except FilterError as error:
            return error

    def _exclude(self, served: Served, item_ids: list[str], shown: paging.HashArray) -> IntArray:
        """Return the rows that must not appear, each once."""
        rows = np.concatenate([served.model.catalogue.rows(item_ids), served.shown.rows(shown)])
        return np.unique(rows).astype(np.int32)


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
    if row is None:
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
