"""Interfaces of models as serving uses them, and the jobs of a model's queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.statistics import Neighbours as TextNeighbours
from ranking.catalogue.live_catalogue import Change, LiveCatalogue, PreparedItemChanges
from ranking.live.recorded_events import CountResult, RecordedEvent
from ranking.milvus.status import EngineStatus
from ranking.types import Recommendation, Request
from serving.core.call_context import Timeline


class LocalRecommender(Protocol):
    """Makes lists in this process, from requests alone."""

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Return the list of every request, in order."""

    def search(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Return the items that match the intent of every request, in order."""

    def similar(
        self, vectors: FloatArray, k: int, exclude: IntArray, allowed: BoolArray | None
    ) -> tuple[IntArray, FloatArray]:
        """Return the k nearest rows [queries, k], padded with -1, and their cosines [queries, k].

        Raises:
            SearchUnavailableError: another program searches, and did not answer.
        """

    def stored_neighbours(self, row: int) -> TextNeighbours:
        """Return the nearest texts of an item that are kept with the model, [found]."""


@runtime_checkable
class RemoteRecommender(Protocol):
    """Makes lists in another process."""

    def answer(self, jobs: Sequence[ListJob]) -> list[Answer]:
        """Return the answers to a batch, in order; blocks."""


CLOSE_SECONDS: Final = 2.0
"""Longest that the process of a closed model goes on after its last request."""


class Model(Protocol):
    """One state of a model with what requests need; `serving.model.process.client.RemoteVersion` is one.

    A request uses one from beginning to end. Catalogue rows refer to the same items in all states of a model.
    """

    @property
    def version(self) -> str:
        """Name of this version."""

    @property
    def manifest(self) -> dict[str, Any]:
        """Content of manifest.json."""

    @property
    def catalogue(self) -> LiveCatalogue:
        """The items of this state."""

    @property
    def kinds(self) -> list[str]:
        """Event kinds, strongest first."""

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history are excluded by default."""

    @property
    def data_end(self) -> int:
        """Unix seconds of the last event of its training data."""

    @property
    def text_dim(self) -> int:
        """Width of the text vectors."""

    @property
    def device(self) -> str:
        """Its device, for example `cpu` or `cuda:0 NVIDIA H100`."""

    @property
    def recommender(self) -> LocalRecommender | RemoteRecommender:
        """What makes the lists; shared by all states, with the newest vectors and deletions."""


class LocalModel(Model, Protocol):
    """A state whose lists are made in this process; `ranking.live.snapshot.LiveVersion` is one."""

    @property
    def recommender(self) -> LocalRecommender:
        """What makes the lists."""

    @property
    def text_vectors(self) -> FloatArray:
        """Unit vectors of the items' texts, [items, text_dim]."""

    def encode_items(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of item texts, [texts, text_dim]."""

    def encode_queries(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of free texts, [texts, text_dim]."""


class LiveModel(Protocol):
    """A model whose items change while it is served; `ranking.live.updates.LiveItems` is one."""

    @property
    def current(self) -> Model:
        """The newest state."""

    @property
    def works(self) -> bool:
        """Whether it can make lists; one whose process has ended cannot."""

    @property
    def engine(self) -> EngineStatus | None:
        """State of the program that searches vectors; None where the model's process searches."""

    def plan(self, changes: Sequence[Change]) -> PreparedItemChanges:
        """Prepare changes against the current state; in any thread, one call at a time."""

    def apply(self, plan: PreparedItemChanges) -> Model:
        """Apply prepared changes; only in the model's thread, or before it is served."""

    def count_events(self, events: Sequence[RecordedEvent]) -> CountResult:
        """Count recorded events of the kinds that the model was trained on; thread as of `apply`."""

    def close(self) -> None:
        """Release the model once its current request has been answered; returns at once, idempotent.

        `works` is false once its process has ended, `CLOSE_SECONDS` after that request at most.
        """


@dataclass(frozen=True)
class RecommendJob:
    """A list to make with the model that its rows refer to."""

    model: Model
    request: Request
    intent: str = ""
    """Free text to encode into `request.intent`; empty for none."""
    search: bool = False
    """Whether to search for the intent, instead of recommending with it."""
    deadline: float | None = None
    """Of the call, in seconds of `time.monotonic`; vector searches of other programs end by then."""
    timeline: Timeline | None = None
    """Receives the stages of the job's batch."""


@dataclass(frozen=True)
class SimilarJob:
    """Items whose texts are nearest to that of an item, or to a text."""

    model: Model
    seed: int | str
    """Catalogue row, or text to encode."""
    k: int
    exclude: IntArray
    allowed: BoolArray | None
    timeline: Timeline | None = None
    """As in RecommendJob."""
    deadline: float | None = None
    """As in RecommendJob."""


@dataclass(frozen=True)
class Neighbours:
    """Answer to a SimilarJob, most similar first."""

    rows: IntArray  # [found]
    cosines: FloatArray  # [found]
    searched: bool = True
    """False where the vector search was not answered: the stored neighbours of an item, none of a text."""


@dataclass(frozen=True)
class ApplyJob:
    """Item changes to apply."""

    model: LiveModel
    plan: PreparedItemChanges


@dataclass(frozen=True)
class CountJob:
    """Recorded events to count."""

    model: LiveModel
    events: Sequence[RecordedEvent]


ListJob = RecommendJob | SimilarJob
Job = ListJob | ApplyJob | CountJob
Answer = Recommendation | Neighbours | CountResult | None
