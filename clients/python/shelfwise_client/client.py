"""The client for threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from shelfwise_client.streams import resume
from shelfwise_client.user_results import StoredEvent
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc


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
        self._metadata = call_metadata(api_key)
        self._channel = (
            grpc.secure_channel(address, credentials, options=OPTIONS)
            if credentials
            else grpc.insecure_channel(address, options=OPTIONS)
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
        """Yield the lists of many users; a broken stream is resumed.

        Args:
            query: whose lists.
            timeout: deadline of each stream in seconds; none by default, as a campaign may run for hours.

        Raises:
            ServiceError: the call cannot be answered, or no server answered several attempts.
        """
        stream = resume(self._stub.BatchRecommend, query.message(), timeout, self._metadata)
        for response in stream:
            yield UserListResult.of(response)

    def search_items(self, query: SearchQuery, timeout: float | None = None) -> SearchResult:
        """Return one page of the items that match a text."""
        return SearchResult.of(self._call(self._stub.SearchItems, query.message(), timeout))

    def similar_items(self, query: SimilarQuery, timeout: float | None = None) -> pb.SimilarItemsResponse:
        """Return one page of similar items."""
        response: pb.SimilarItemsResponse = self._call(self._stub.SimilarItems, query.message(), timeout)
        return response

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
        """Change attributes of an item and return the result; lists and filters use it from then on."""
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
    ) -> pb.DeclareAttributesResponse:
        """Add attributes that the model does not know: name -> string, number, bool, time or list."""
        request = declare_request(attributes, validate_only)
        response: pb.DeclareAttributesResponse = self._call(self._stub.DeclareAttributes, request, timeout)
        return response

    def delete_items(
        self, item_ids: Sequence[str], timeout: float | None = None, *, validate_only: bool = False
    ) -> pb.DeleteItemsResponse:
        """Remove items; no later response contains them."""
        request = pb.DeleteItemsRequest(item_ids=item_ids, validate_only=validate_only)
        response: pb.DeleteItemsResponse = self._call(self._stub.DeleteItems, request, timeout)
        return response

    def delete_user(
        self, user_id: str, timeout: float | None = None, *, validate_only: bool = False
    ) -> pb.DeleteUserResponse:
        """Erase every trace of a user."""
        request = pb.DeleteUserRequest(user_id=user_id, validate_only=validate_only)
        response: pb.DeleteUserResponse = self._call(self._stub.DeleteUser, request, timeout)
        return response

    def export_user(self, user_id: str, timeout: float | None = None) -> Iterator[StoredEvent]:
        """Yield everything that is stored of a user, oldest first.

        Args:
            user_id: whose events.
            timeout: deadline of the whole stream in seconds; none by default.

        Raises:
            ServiceError: the call failed, perhaps after some events; nothing is resumed.
        """
        request = pb.ExportUserRequest(user_id=user_id)
        try:
            for response in self._stub.ExportUser(request, timeout=timeout, metadata=self._metadata):
                yield from map(StoredEvent.of, response.events)
        except grpc.RpcError as error:
            raise ServiceError.of(error) from None

    def status(self, timeout: float | None = None) -> Status:
        """Return the state of the server and its model."""
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
