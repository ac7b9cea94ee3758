"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType

import grpc

from shelfwise_client.channel import OPTIONS, Request, Response, call_metadata
from shelfwise_client.errors import ServiceError
from shelfwise_client.item_results import (
    CatalogueItem,
    ItemsResult,
    UpdateResult,
    UpsertResult,
)
from shelfwise_client.queries import (
    BatchQuery,
    Event,
    Item,
    ItemUpdate,
    RecommendQuery,
    SearchQuery,
    SimilarQuery,
    declare_request,
)
from shelfwise_client.results import (
    RecommendResult,
    RecordResult,
    SearchResult,
    Status,
    UserListResult,
)
from shelfwise_client.streams import resume_async
from shelfwise_client.user_results import StoredEvent
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc


class AsyncClient:
    """Asynchronous client: `Client` for asyncio; create and use it inside one event loop."""

    def __init__(
        self,
        address: str,
        timeout: float = 5.0,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
    ) -> None:
        """Prepare a connection; see `Client`."""
        self._timeout = timeout
        self._metadata = call_metadata(api_key)
        self._channel = (
            grpc.aio.secure_channel(address, credentials, options=OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(address, options=OPTIONS)
        )
        self._stub = pb_grpc.RecommendationServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; running calls are cancelled."""
        await self._channel.close()

    async def recommend(self, query: RecommendQuery, timeout: float | None = None) -> RecommendResult:
        """Return one page of a personalised list."""
        return RecommendResult.of(await self._call(self._stub.Recommend, query.message(), timeout))

    async def batch_recommend(
        self, query: BatchQuery, timeout: float | None = None
    ) -> AsyncIterator[UserListResult]:
        """Yield the lists of many users; a broken stream is resumed.

        Args:
            query: whose lists.
            timeout: deadline of each stream in seconds; none by default, as a campaign may run for hours.

        Raises:
            ServiceError: the call cannot be answered, or no server answered several attempts.
        """
        stream = resume_async(self._stub.BatchRecommend, query.message(), timeout, self._metadata)
        async for response in stream:
            yield UserListResult.of(response)

    async def search_items(self, query: SearchQuery, timeout: float | None = None) -> SearchResult:
        """Return one page of the items that match a text."""
        return SearchResult.of(await self._call(self._stub.SearchItems, query.message(), timeout))

    async def similar_items(
        self, query: SimilarQuery, timeout: float | None = None
    ) -> pb.SimilarItemsResponse:
        """Return one page of similar items."""
        return await self._call(self._stub.SimilarItems, query.message(), timeout)

    async def record_events(
        self, events: Sequence[Event], timeout: float | None = None, *, validate_only: bool = False
    ) -> RecordResult:
        """Store events."""
        request = pb.RecordEventsRequest(
            events=[event.message() for event in events], validate_only=validate_only
        )
        return RecordResult.of(await self._call(self._stub.RecordEvents, request, timeout))

    async def upsert_items(
        self, items: Sequence[Item], timeout: float | None = None, *, validate_only: bool = False
    ) -> UpsertResult:
        """Add or replace items; they can be recommended and found when this returns."""
        request = pb.UpsertItemsRequest(items=[item.message() for item in items], validate_only=validate_only)
        return UpsertResult.of(await self._call(self._stub.UpsertItems, request, timeout))

    async def get_item(self, item_id: str, timeout: float | None = None) -> CatalogueItem:
        """Return an item as it is served."""
        response = await self._call(self._stub.GetItem, pb.GetItemRequest(item_id=item_id), timeout)
        return CatalogueItem.of(response.item)

    async def list_items(
        self, page_size: int = 0, page_token: str = "", filter: str = "", timeout: float | None = None
    ) -> ItemsResult:
        """Return one page of the items, in the order of their ids."""
        request = pb.ListItemsRequest(page_size=page_size, page_token=page_token, filter=filter)
        return ItemsResult.of(await self._call(self._stub.ListItems, request, timeout))

    async def update_item(
        self, update: ItemUpdate, timeout: float | None = None, *, validate_only: bool = False
    ) -> CatalogueItem:
        """Change attributes of an item and return the result; lists and filters use it from then on."""
        request = update.message()
        request.validate_only = validate_only
        return CatalogueItem.of((await self._call(self._stub.UpdateItem, request, timeout)).item)

    async def update_items(
        self, updates: Sequence[ItemUpdate], timeout: float | None = None, *, validate_only: bool = False
    ) -> UpdateResult:
        """Change attributes of many items, for example prices and stock."""
        request = pb.BatchUpdateItemsRequest(
            requests=[update.message() for update in updates], validate_only=validate_only
        )
        return UpdateResult.of(await self._call(self._stub.BatchUpdateItems, request, timeout))

    async def declare_attributes(
        self, attributes: Mapping[str, str], timeout: float | None = None, *, validate_only: bool = False
    ) -> pb.DeclareAttributesResponse:
        """Add attributes that the model does not know: name -> string, number, bool, time or list."""
        request = declare_request(attributes, validate_only)
        return await self._call(self._stub.DeclareAttributes, request, timeout)

    async def delete_items(
        self, item_ids: Sequence[str], timeout: float | None = None, *, validate_only: bool = False
    ) -> pb.DeleteItemsResponse:
        """Remove items; no later response contains them."""
        request = pb.DeleteItemsRequest(item_ids=item_ids, validate_only=validate_only)
        return await self._call(self._stub.DeleteItems, request, timeout)

    async def delete_user(
        self, user_id: str, timeout: float | None = None, *, validate_only: bool = False
    ) -> pb.DeleteUserResponse:
        """Erase every trace of a user."""
        request = pb.DeleteUserRequest(user_id=user_id, validate_only=validate_only)
        return await self._call(self._stub.DeleteUser, request, timeout)

    async def export_user(self, user_id: str, timeout: float | None = None) -> AsyncIterator[StoredEvent]:
        """Yield everything that is stored of a user, oldest first.

        Args:
            user_id: whose events.
            timeout: deadline of the whole stream in seconds; none by default.

        Raises:
            ServiceError: the call failed, perhaps after some events; nothing is resumed.
        """
        request = pb.ExportUserRequest(user_id=user_id)
        try:
            async for response in self._stub.ExportUser(request, timeout=timeout, metadata=self._metadata):
                for event in response.events:
                    yield StoredEvent.of(event)
        except grpc.RpcError as error:
            raise ServiceError.of(error) from None

    async def status(self, timeout: float | None = None) -> Status:
        """Return the state of the server and its model."""
        return Status.of(await self._call(self._stub.GetStatus, pb.GetStatusRequest(), timeout))

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        try:
            return await method(
                request, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise ServiceError.of(error) from None
