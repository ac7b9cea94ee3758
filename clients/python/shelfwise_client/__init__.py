"""Client of the shelfwise recommendation service: `Client` for threads, `AsyncClient` for asyncio.

Both set a deadline on every call, retry calls that found no server or one that shuts down
(by the channel's own retry policy, see https://grpc.io/docs/guides/retry) and raise `ServiceError` for every
other failure. Messages and stubs of the service are in `shelfwise_client.v1`.
"""

from shelfwise_client.aio import AsyncClient
from shelfwise_client.client import Client
from shelfwise_client.errors import FieldViolation, ServiceError
from shelfwise_client.item_results import (
    CatalogueItem,
    ItemsResult,
    UpdateResult,
    UpsertResult,
)
from shelfwise_client.queries import (
    BatchQuery,
    Boost,
    Event,
    Item,
    ItemUpdate,
    ListRules,
    RecommendQuery,
    SearchQuery,
    SessionEvent,
    SimilarQuery,
)
from shelfwise_client.results import (
    ExperimentArm,
    FailedReload,
    Reason,
    RecommendedItem,
    RecommendResult,
    RecordResult,
    Reject,
    SearchResult,
    Status,
    UserListError,
    UserListResult,
)
from shelfwise_client.user_results import StoredEvent

__all__ = [
    "AsyncClient",
    "BatchQuery",
    "Boost",
    "CatalogueItem",
    "Client",
    "Event",
    "ExperimentArm",
    "FailedReload",
    "FieldViolation",
    "Item",
    "ItemUpdate",
    "ItemsResult",
    "ListRules",
    "Reason",
    "RecommendQuery",
    "RecommendResult",
    "RecommendedItem",
    "RecordResult",
    "Reject",
    "SearchQuery",
    "SearchResult",
    "ServiceError",
    "SessionEvent",
    "SimilarQuery",
    "Status",
    "StoredEvent",
    "UpdateResult",
    "UpsertResult",
    "UserListError",
    "UserListResult",
]
