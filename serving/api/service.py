"""The RPCs of the service: each validates its request, queries state and model, and builds its response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from importlib import metadata
from pathlib import Path
from typing import Final

from conf.serving import ServeConfig
from features.ingest.privacy import Pseudonyms
from serving.api import validation
from serving.api.attribute_rows import WIRE_TYPES
from serving.api.attribution_tokens import AttributionTokens
from serving.api.batch_recommend import BatchListCalls
from serving.api.events import check_events, respond
from serving.api.item_calls import ItemCalls
from serving.api.recommend import ListCalls
from serving.api.similar import SimilarCalls
from serving.api.surfaces import Surfaces
from serving.api.user_context import UserContextLoader
from serving.api.users.export import export_user
from serving.core.call_context import annotate, annotate_audit, mark_stage, stage
from serving.core.errors import Context, invalid
from serving.experiments.router import ArmRouter
from serving.model.host import ModelHost
from serving.model.interfaces import Model
from serving.model.reload import BundleWatcher
from serving.state.contracts.item_changes import ItemChanges
from serving.state.contracts.user_state import Outcome, UserState, log_name
from serving.state.histories import remove_users
from serving.transport.call_interceptor import CALL
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
QUEUED: Final = ("Recommend", "SearchItems", "SimilarItems")
"""RPCs that queue for the model."""


class RecommendationService(pb_grpc.RecommendationServiceServicer):
    """Implements shelfwise.v1.RecommendationService; create it inside a running event loop."""

    def __init__(
        self,
        host: ModelHost,
        state: UserState,
        changes: ItemChanges,
        config: ServeConfig,
        histories: Path,
        surfaces: Surfaces,
        router: ArmRouter,
        watcher: BundleWatcher | None = None,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        """Wire the service.

        Args:
            host: the served model; it must be loaded before the first request.
            state: stored events.
            changes: stored item changes.
            config: limits.
            histories: file of training histories in the artifact store; it may be missing.
            surfaces: the shop's defaults for lists.
            router: chooses arms of experiments, and the models of lists.
            watcher: reloads newly published models; None where models are never replaced.
            pseudonyms: replaces user ids before they are stored or logged; None keeps them.
        """
        self._host = host
        self._state = state
        self._config = config
        self._histories = histories
        self._surfaces = surfaces
        self._router = router
        self.watcher = watcher
        self._context_loader = UserContextLoader(host, state, config)
        self._tokens = AttributionTokens()
        self._lists = ListCalls(
            host, self._context_loader, config, pseudonyms, self._tokens, surfaces, router
        )
        self._similar = SimilarCalls(self._lists, host, self._context_loader, config)
        self._items = ItemCalls(host, changes, self._context_loader, self._lists.selector, config)
        self._batches = BatchListCalls(self._lists, host, state, config, surfaces)
        self._started = time.monotonic()

    def end_streams(self) -> None:
        """End running streams after their current list; clients resume them on another server."""
        self._batches.end()

    async def close(self) -> None:
        """Finish queued work and stop the filter thread."""
        await self._lists.close()

    async def Recommend(self, request: pb.RecommendRequest, _: Context) -> pb.RecommendResponse:
        """Return a personalised list."""
        self._host.admit(CALL.get().deadline)
        response = await self._lists.recommend(request)
        mark_stage("response")
        return response

    def BatchRecommend(
        self, request: pb.BatchRecommendRequest, _: Context
    ) -> AsyncGenerator[pb.BatchRecommendResponse]:
        """Stream the lists of many users."""
        return self._batches.stream(request)

    async def SearchItems(self, request: pb.SearchItemsRequest, _: Context) -> pb.SearchItemsResponse:
        """Return the items that match a text query."""
        self._host.admit(CALL.get().deadline)
        response = await self._lists.search(request)
        mark_stage("response")
        return response

    async def SimilarItems(self, request: pb.SimilarItemsRequest, _: Context) -> pb.SimilarItemsResponse:
        """Return the items whose texts are most similar to the seed's."""
        self._host.admit(CALL.get().deadline)
        response = await self._similar.similar(request)
        mark_stage("response")
        return response

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
        stored_id, tokens = self._lists.stored_id, self._tokens
        checked = check_events(request.events, self._models(), now_us, ahead, stored_id, tokens)
        if any(reject.reason == pb.RowReject.ITEM_ID for reject in checked.rejects):
            await self._context_loader.load("")  # another server may have added the item a moment ago
            checked = check_events(request.events, self._models(), now_us, ahead, stored_id, tokens)
        mark_stage("validate")
        kinds = self._host.served.model.kinds
        if request.validate_only:
            return respond(checked, [Outcome.new] * len(checked.events), kinds, call.request_id)
        outcomes: list[Outcome] = []
        if checked.events:
            with stage("store"):
                outcomes = await self._state.record(checked.events, call.deadline)
        if Outcome.new in outcomes:
            for host in self._router.hosts:
                host.poll_events()
        response = respond(checked, outcomes, kinds, call.request_id)
        annotate(
            new_events=response.new_count,
            duplicate_events=response.duplicate_count,
            rejected_events=len(response.rejects),
        )
        return response

    def _models(self) -> list[Model]:
        """Return the models that make lists, the current one first."""
        return [host.served.model for host in self._router.hosts]

    async def GetStatus(self, request: pb.GetStatusRequest, _: Context) -> pb.GetStatusResponse:
        """Return the served model, its catalogue, limits and the state's size."""
        stats = await self._state.stats()
        served = self._host.served
        model = served.model
        response = pb.GetStatusResponse(
            model_version=model.version,
            item_count=model.catalogue.alive_count,
            changed_item_count=model.catalogue.changed_count,
            deleted_item_count=model.catalogue.hidden_count,
            text_dim=model.text_dim,
            device=model.device,
            event_kinds=model.kinds,
            attributes=[
                pb.Attribute(name=name, type=WIRE_TYPES[kind], declared=name in model.catalogue.declared)
                for name, kind in served.attributes.items()
            ],
            user_count=stats.users,
            event_count=stats.events,
            server_version=_server_version(),
            max_page_size=self._config.max_page_size,
            max_event_batch=self._config.max_event_batch,
            queue_length=len(self._host.jobs),
            surfaces=self._surfaces.defaults,
            experiments=self._router.status(),
            experiments_failure=self._router.failure,
            request_id=CALL.get().request_id,
        )
        response.model_data_time.FromSeconds(model.data_end)
        response.model_load_time.FromMicroseconds(served.since_us)
        response.uptime.FromMilliseconds(int((time.monotonic() - self._started) * 1000))
        response.max_future.FromMilliseconds(int(self._config.max_future_seconds * 1000))
        failed = None if self.watcher is None else self.watcher.failed
        if self.watcher is not None:
            response.loading_version = self.watcher.loading
        if failed is not None:
            response.failed_reload.model_version = failed.version
            response.failed_reload.reason = failed.reason
            response.failed_reload.time.FromMicroseconds(failed.time_us)
        if stats.last_record_us is not None:
            response.last_record_time.FromMicroseconds(stats.last_record_us)
        return response

    async def GetItem(self, request: pb.GetItemRequest, _: Context) -> pb.GetItemResponse:
        """Return an item as it is served."""
        return await self._items.get(request)

    async def ListItems(self, request: pb.ListItemsRequest, _: Context) -> pb.ListItemsResponse:
        """Return a page of the items, in order of their ids."""
        return await self._items.list(request)

    async def UpsertItems(self, request: pb.UpsertItemsRequest, _: Context) -> pb.UpsertItemsResponse:
        """Add or replace items; lists reflect them before this returns."""
        return await self._items.upsert(request)

    async def UpdateItem(self, request: pb.UpdateItemRequest, _: Context) -> pb.UpdateItemResponse:
        """Change attributes of an item."""
        return await self._items.update(request)

    async def BatchUpdateItems(
        self, request: pb.BatchUpdateItemsRequest, _: Context
    ) -> pb.BatchUpdateItemsResponse:
        """Change attributes of many items."""
        return await self._items.batch_update(request)

    async def DeclareAttributes(
        self, request: pb.DeclareAttributesRequest, _: Context
    ) -> pb.DeclareAttributesResponse:
        """Declare attributes that items may have."""
        return await self._items.declare(request)

    async def DeleteItems(self, request: pb.DeleteItemsRequest, _: Context) -> pb.DeleteItemsResponse:
        """Delete items; no response after this one contains them."""
        return await self._items.delete(request)

    async def DeleteUser(self, request: pb.DeleteUserRequest, _: Context) -> pb.DeleteUserResponse:
        """Erase a user from the state and from the histories file."""
        if not validation.optional_id("user_id", request.user_id):
            raise invalid("user_id", "is empty")
        if request.validate_only:
            return pb.DeleteUserResponse(request_id=CALL.get().request_id)
        user = self._lists.stored_id(request.user_id)
        annotate_audit(user=log_name(user), erasure=self._state.erasure_name(user))
        deleted = await self._state.delete_user(user)
        annotate_audit(deleted_events=deleted)
        await asyncio.to_thread(remove_users, self._histories, [user])
        return pb.DeleteUserResponse(deleted_event_count=deleted, request_id=CALL.get().request_id)

    async def ExportUser(
        self, request: pb.ExportUserRequest, _: Context
    ) -> AsyncGenerator[pb.ExportUserResponse]:
        """Stream everything that is stored of a user."""
        if not validation.optional_id("user_id", request.user_id):
            raise invalid("user_id", "is empty")
        user, limit = self._lists.stored_id(request.user_id), self._config.max_message_bytes
        async for response in export_user(self._state, self._histories, user, CALL.get().request_id, limit):
            yield response


def _server_version() -> str:
    try:
        return metadata.version("shelfwise")
    except metadata.PackageNotFoundError:
        return "unpackaged"
