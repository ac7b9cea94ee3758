"""What serving needs of a model, and the jobs that it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.catalogue.live_catalogue import Change, LiveCatalogue, PreparedItemChanges
from ranking.live.recorded_events import CountResult, RecordedEvent
from ranking.types import Recommendation, Request
from serving.core.call_context import Timeline


class Recommends(Protocol):
    """The pure part: requests in, lists out."""

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Answer every request, in order."""

    def search(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Answer requests that have an intent with what reads like it, in order."""

    def similar(
        self, vectors: FloatArray, k: int, exclude: IntArray, allowed: BoolArray | None
    ) -> tuple[IntArray, FloatArray]:
        """Return the k nearest rows [queries, k], padded with -1, and their cosines [queries, k]."""


@runtime_checkable
class RemoteRecommender(Protocol):
    """Makes lists in another process."""

    def answer(self, jobs: Sequence[ListJob]) -> list[Answer]:
        """Do the jobs of a batch, in order; blocks."""


class Model(Protocol):
    """One state of a model with what requests need; `serving.model.process.client.RemoteVersion` is one.

    A request uses one from beginning to end. What a catalogue row means is the same in all states of a model.
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
        """Whether items of the history are left out when the request does not say."""

    @property
    def data_end(self) -> int:
        """Unix seconds of the last event that it learnt from."""

    @property
    def text_dim(self) -> int:
        """Width of the text vectors."""

    @property
    def device(self) -> str:
        """Where its arithmetic runs, for example `cpu` or `cuda:0 NVIDIA H100`."""

    @property
    def recommender(self) -> Recommends | RemoteRecommender:
        """What makes the lists, one for all states: it knows the newest vectors and deletions."""


class ModelHere(Model, Protocol):
    """A state whose lists are made in this process; `ranking.live.snapshot.LiveVersion` is one."""

    @property
    def recommender(self) -> Recommends:
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

    def plan(self, changes: Sequence[Change]) -> PreparedItemChanges:
        """Work out what changes come to against the current state; any thread, one at a time."""

    def apply(self, plan: PreparedItemChanges) -> Model:
        """Make planned changes; only in the model's thread, or before it is served."""

    def count_events(self, events: Sequence[RecordedEvent]) -> CountResult:
        """Count recorded events of kinds that the model learnt from, each once; only as `apply`."""

    def close(self) -> None:
        """End what runs for the model, once the request that it is working at is answered; returns at once.

        Its host calls it when the last lease has been given back; more than one call is one.
        """


@dataclass(frozen=True)
class RecommendJob:
    """One list to make by the model that its rows belong to."""

    model: Model
    request: Request
    intent: str = ""
    """Free text to encode into `request.intent`; empty for none."""
    search: bool = False
    """Whether to answer with what reads like the intent, instead of recommending with regard to it."""
    timeline: Timeline | None = None
    """Where to note what the job's batch went through."""


@dataclass(frozen=True)
class SimilarJob:
    """Nearest texts to an item of the catalogue or to a text."""

    model: Model
    seed: int | str
    """Catalogue row, or text to encode."""
    k: int
    exclude: IntArray
    allowed: BoolArray | None
    timeline: Timeline | None = None
    """As of RecommendJob."""


@dataclass(frozen=True)
class Neighbours:
    """Answer to a SimilarJob, most similar first."""

    rows: IntArray  # [found]
    cosines: FloatArray  # [found]


@dataclass(frozen=True)
class ApplyJob:
    """Changes of items."""

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
