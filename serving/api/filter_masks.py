"""Filter masks, attribute codes and id order of the served items, computed in their own thread and cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conf.serving import ServeConfig
from features.data.dataset import BoolArray, IntArray
from ranking.catalogue.filter_language import FilterError
from serving.core.call_context import annotate, mark_stage, stage
from serving.core.errors import invalid
from serving.model.host import ModelHost
from serving.model.served import Served
from serving.scheduling.batcher import Batcher
from serving.transport.call_interceptor import CALL


@dataclass(frozen=True)
class _Mask:
    """The mask of a filter, [items]."""

    served: Served
    expression: str

    def work(self) -> BoolArray | FilterError:
        try:
            return self.served.mask(self.expression)
        except FilterError as error:
            return error


@dataclass(frozen=True)
class _Codes:
    """The code of an attribute's value in each row, [items]."""

    served: Served
    attribute: str

    def work(self) -> IntArray:
        return self.served.codes.of(self.served.model.catalogue, self.attribute)


@dataclass(frozen=True)
class _After:
    """The rows after an item in order of the ids."""

    served: Served
    item_id: str
    count: int
    allowed: BoolArray | None

    def work(self) -> IntArray:
        rows = self.served.order.after(self.served.model.catalogue, self.item_id, self.count, self.allowed)
        return np.array(rows, dtype=np.int32)


_Job = _Mask | _Codes | _After


class RowSelector:
    """Selects catalogue rows by filter, attribute value or id order; create it inside an event loop."""

    def __init__(self, config: ServeConfig, host: ModelHost) -> None:
        """Start the thread."""
        self._jobs = Batcher[_Job, BoolArray | IntArray | FilterError](
            _work,
            max_batch=1,
            max_queue=config.max_queue,
            name="filters",
            on_batch=host.queue_metrics("filters", lambda: len(self._jobs)).batch,
        )

    async def close(self) -> None:
        """Finish queued work and stop the thread."""
        await self._jobs.close()

    async def mask(self, served: Served, expression: str, path: str = "filter") -> BoolArray | None:
        """Return the mask of a filter, [items]; None without a filter.

        Raises:
            ApiError: an invalid filter, naming the request's field `path`.
        """
        mark_stage("validate")
        if not expression.strip():
            return None
        found = served.cached_mask(expression)
        annotate(filter_mask="miss" if found is None else "hit")
        if found is not None:
            return found
        with stage("filter"):
            made = await self._jobs.submit(_Mask(served, expression), CALL.get().deadline)
        if isinstance(made, FilterError):
            problem = invalid(path, str(made), "FILTER_INVALID")
            problem.metadata["column"] = str(made.column)
            raise problem
        return made.astype(bool, copy=False)

    async def codes(self, served: Served, attribute: str) -> IntArray:
        """Return the code of each row's value of an attribute, [items]."""
        found = served.codes.cached(served.model.catalogue, attribute)
        if found is not None:
            return found
        made = await self._jobs.submit(_Codes(served, attribute), CALL.get().deadline)
        assert not isinstance(made, FilterError)
        return made.astype("int32", copy=False)

    async def after(self, served: Served, item_id: str, count: int, allowed: BoolArray | None) -> list[int]:
        """Return the rows of the next items after an id; see `ItemOrder.after`."""
        made = await self._jobs.submit(_After(served, item_id, count, allowed), CALL.get().deadline)
        assert not isinstance(made, FilterError)
        return [int(row) for row in made]


def _work(jobs: Sequence[_Job]) -> list[BoolArray | IntArray | FilterError]:
    """Run jobs in the thread; an invalid filter is a result, not a failure."""
    return [job.work() for job in jobs]
