"""Python clients of the service: `Client` for threads, `AsyncClient` for asyncio.

Both set a deadline on every call, retry calls that found no server (UNAVAILABLE, by the channel's own retry
policy, see https://grpc.io/docs/guides/retry) and raise `ServiceError` for every other failure.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, TypeVar

import grpc

from serving.client.item_results import (
    CatalogueItem,
    DeclareResult,
    DeleteItemsResult,
    ItemsResult,
    UpdateResult,
    UpsertResult,
)
from serving.client.queries import (
    BatchQuery,
    Event,
    Item,
    ItemUpdate,
    RecommendQuery,
    SearchQuery,
    SimilarQuery,
    declarations,
)
from serving.client.results import (
    DeleteUserResult,
    RecommendResult,
    RecordResult,
    SearchResult,
    ServiceError,
    SimilarResult,
    Status,
    UserListResult,
)
from serving.client.streams import resumed, resumed_async
from serving.proto.shelfwise.v1 import recommendations_pb2 as pb
from serving.proto.shelfwise.v1 import recommendations_pb2_grpc as pb_grpc

Request = TypeVar("Request")
Response = TypeVar("Response")

_SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
_OPTIONS: Final = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    # A retry only helps when the channel reconnects between the attempts; by default it first waits a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


def _metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    return () if api_key is None else (("authorization", f"Bearer {api_key}"),)


class Client:
    """Synchronous client; safe to share between threads; use it as a context manager or call `close`."""

    def __init__(
        self,
        address: str,
        timeout: float = 5.0,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
    ) -> None:
        """Prepare a connection; nothing is sent before the first call.

        Args:
            address: HOST:PORT or any gRPC target.
            timeout: default deadline of a call in seconds, retries included.
            credentials: for TLS; None connects in plain text.
            api_key: sent with every call; do not send one in plain text over a network that others share.
        """
        self._timeout = timeout
        self._metadata = _metadata(api_key)
        self._channel = (
            grpc.secure_channel(address, credentials, options=_OPTIONS)
            if credentials
            else grpc.insecure_channel(address, options=_OPTIONS)
        )
        self._stub = pb_grpc.RecommendationServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; running calls are cancelled."""
        self._channel.close()

    def recommend(self, query: RecommendQuery, timeout: float | None = None) -> RecommendResult:
        """Return one page of a personalised list."""
        return RecommendResult.of(self._call(self._stub.Recommend, query.message(), timeout))

    def batch_recommend(self, query: BatchQuery, timeout: float | None = None) -> Iterator[UserListResult]:
        """Give the lists of many users, one after another; a broken stream is gone on with by itself.

        Args:
            query: whose lists.
            timeout: deadline of each stream in seconds; none by default, as campaigns take their time.

        Raises:
            ServiceError: the call cannot be answered, or no server was there for several attempts.
        """
        stream = resumed(self._stub.BatchRecommend, query.message(), timeout, self._metadata)
        for response in stream:
            yield UserListResult.of(response)

    def search_items(self, query: SearchQuery, timeout: float | None = None) -> SearchResult:
        """Return one page of the items that read like some words."""
        return SearchResult.of(self._call(self._stub.SearchItems, query.message(), timeout))

    def similar_items(self, query: SimilarQuery, timeout: float | None = None) -> SimilarResult:
        """Return one page of similar items."""
        return SimilarResult.of(self._call(self._stub.SimilarItems, query.message(), timeout))

    def record_events(
        self, events: Sequence[Event], timeout: float | None = None, *, validate_only: bool = False
    ) -> RecordResult:
        """Store events."""
        request = pb.RecordEventsRequest(
            events=[event.message() for event in events], validate_only=validate_only
        )
        return RecordResult.of(self._call(self._stub.RecordEvents, request, timeout))

    def upsert_items(
        self, items: Sequence[Item], timeout: float | None = None, *, validate_only: bool = False
    ) -> UpsertResult:
        """Add or replace items; they can be recommended and found when this returns."""
        request = pb.UpsertItemsRequest(items=[item.message() for item in items], validate_only=validate_only)
        return UpsertResult.of(self._call(self._stub.UpsertItems, request, timeout))

    def get_item(self, item_id: str, timeout: float | None = None) -> CatalogueItem:
        """Return an item as it is served."""
        response = self._call(self._stub.GetItem, pb.GetItemRequest(item_id=item_id), timeout)
        return CatalogueItem.of(response.item)

    def list_items(
        self, page_size: int = 0, page_token: str = "", filter: str = "", timeout: float | None = None
    ) -> ItemsResult:
        """Return one page of the items, in the order of their ids."""
        request = pb.ListItemsRequest(page_size=page_size, page_token=page_token, filter=filter)
        return ItemsResult.of(self._call(self._stub.ListItems, request, timeout))

    def update_item(
        self, update: ItemUpdate, timeout: float | None = None, *, validate_only: bool = False
    ) -> CatalogueItem:
        """Change attributes of an item and return what it is then; lists and filters know it."""
        request = update.message()
        request.validate_only = validate_only
        return CatalogueItem.of(self._call(self._stub.UpdateItem, request, timeout).item)

    def update_items(
        self, updates: Sequence[ItemUpdate], timeout: float | None = None, *, validate_only: bool = False
    ) -> UpdateResult:
        """Change attributes of many items, for example prices and stock."""
        request = pb.BatchUpdateItemsRequest(
            requests=[update.message() for update in updates], validate_only=validate_only
        )
        return UpdateResult.of(self._call(self._stub.BatchUpdateItems, request, timeout))

    def declare_attributes(
        self, attributes: Mapping[str, str], timeout: float | None = None, *, validate_only: bool = False
    ) -> DeclareResult:
        """Add attributes that the model does not know: name -> string, number, bool, time or list."""
        request = declarations(attributes, validate_only)
        return DeclareResult.of(self._call(self._stub.DeclareAttributes, request, timeout))

    def delete_items(
        self, item_ids: Sequence[str], timeout: float | None = None, *, validate_only: bool = False
    ) -> DeleteItemsResult:
        """Remove items; no response sent after this one has them."""
        request = pb.DeleteItemsRequest(item_ids=item_ids, validate_only=validate_only)
        return DeleteItemsResult.of(self._call(self._stub.DeleteItems, request, timeout))

    def delete_user(
        self, user_id: str, timeout: float | None = None, *, validate_only: bool = False
    ) -> DeleteUserResult:
        """Erase every trace of a user."""
        request = pb.DeleteUserRequest(user_id=user_id, validate_only=validate_only)
        return DeleteUserResult.of(self._call(self._stub.DeleteUser, request, timeout))

    def status(self, timeout: float | None = None) -> Status:
        """Return what the server serves."""
        return Status.of(self._call(self._stub.GetStatus, pb.GetStatusRequest(), timeout))

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout: float | None
    ) -> Response:
        try:
            return method(
                request, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise ServiceError.of(error) from None


class AsyncClient:
    """The same for asyncio; create and use it inside one event loop."""

    def __init__(
        self,
        address: str,
        timeout: float = 5.0,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
    ) -> None:
        """Prepare a connection; see `Client`."""
        self._timeout = timeout
        self._metadata = _metadata(api_key)
        self._channel = (
            grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(address, options=_OPTIONS)
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
        """Give the lists of many users, one after another; a broken stream is gone on with by itself.

        Args:
            query: whose lists.
            timeout: deadline of each stream in seconds; none by default, as campaigns take their time.

        Raises:
            ServiceError: the call cannot be answered, or no server was there for several attempts.
        """
        stream = resumed_async(self._stub.BatchRecommend, query.message(), timeout, self._metadata)
        async for response in stream:
            yield UserListResult.of(response)

    async def search_items(self, query: SearchQuery, timeout: float | None = None) -> SearchResult:
        """Return one page of the items that read like some words."""
        return SearchResult.of(await self._call(self._stub.SearchItems, query.message(), timeout))

    async def similar_items(self, query: SimilarQuery, timeout: float | None = None) -> SimilarResult:
        """Return one page of similar items."""
        return SimilarResult.of(await self._call(self._stub.SimilarItems, query.message(), timeout))

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
        """Change attributes of an item and return what it is then; lists and filters know it."""
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
    ) -> DeclareResult:
        """Add attributes that the model does not know: name -> string, number, bool, time or list."""
        request = declarations(attributes, validate_only)
        return DeclareResult.of(await self._call(self._stub.DeclareAttributes, request, timeout))

    async def delete_items(
        self, item_ids: Sequence[str], timeout: float | None = None, *, validate_only: bool = False
    ) -> DeleteItemsResult:
        """Remove items; no response sent after this one has them."""
        request = pb.DeleteItemsRequest(item_ids=item_ids, validate_only=validate_only)
        return DeleteItemsResult.of(await self._call(self._stub.DeleteItems, request, timeout))

    async def delete_user(
        self, user_id: str, timeout: float | None = None, *, validate_only: bool = False
    ) -> DeleteUserResult:
        """Erase every trace of a user."""
        request = pb.DeleteUserRequest(user_id=user_id, validate_only=validate_only)
        return DeleteUserResult.of(await self._call(self._stub.DeleteUser, request, timeout))

    async def status(self, timeout: float | None = None) -> Status:
        """Return what the server serves."""
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
