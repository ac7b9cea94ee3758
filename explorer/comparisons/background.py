"""Comparisons of two systems for the pages: made in the background, one at a time, the newest few kept."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conf.errors import InputError
from encoders.device import CPU
from ranking.bundle.store import versions
from ranking.comparison.compare import Settings, compare
from ranking.comparison.measured import Measured
from ranking.comparison.operand import EVALUATION, PREDICTIONS_FILE, Kind, Operand
from ranking.comparison.sides import lists_of, shared_window
from ranking.comparison.window import METRICS_FILE, Window

_LOG = logging.getLogger(__name__)
METRICS: Final = ("recall@10", "ndcg@10", "hit@10", "mrr", "map@10")
KEPT: Final = 4
"""Comparisons that are kept."""
SHOPPERS: Final = 20
"""Users of each kind that are listed."""


@dataclass(frozen=True)
class Choice:
    """A system that can be compared."""

    value: str
    """As in the address of a page."""
    label: str
    operand: Operand


def choices(store: Path) -> list[Choice]:
    """Return the systems of a store: its versions, newest first, and the lists that were measured with it."""
    found = [
        Choice(version, f"version {version}", Operand(version, Kind.bundle, store, version))
        for version in reversed(versions(store))
    ]
    folder = store.parent / EVALUATION
    for path in sorted(folder.glob(f"*/{PREDICTIONS_FILE}")):
        if (path.parent / METRICS_FILE).is_file():
            name = path.parent.name
            found.append(Choice(f"file:{name}", f"lists of {name}", Operand(name, Kind.file, path)))
    return found


@dataclass(frozen=True)
class Made:
    """A finished comparison; `failed` says why there is none."""

    window: Window | None = None
    a: Measured | None = None
    b: Measured | None = None
    result: dict[str, Any] | None = None
    failed: str = ""


class Comparisons:
    """The comparisons of one process; thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._made: OrderedDict[tuple[object, ...], Made | None] = OrderedDict()
        """None for one that is being made."""

    def of(self, store: Path, a: Choice, b: Choice, queries: int) -> Made | None:
        """Return a comparison, or None while it is being made; the first call starts it.

        Args:
            store: the artifact store, beside the dataset.
            a: the present system.
            b: the other one.
            queries: size of the seeded sample of users; 0 takes all.
        """
        key = (store, a.value, b.value, queries)
        with self._lock:
            if key in self._made:
                return self._made[key]
            self._made[key] = None
            finished = [k for k, made in self._made.items() if made is not None]
            for old in finished[: max(len(finished) - KEPT + 1, 0)]:
                del self._made[old]
        work = threading.Thread(target=self._make, args=(key, a, b), name="comparison", daemon=True)
        work.start()
        return None

    def _make(self, key: tuple[object, ...], a: Choice, b: Choice) -> None:
        store, queries = key[0], key[-1]
        assert isinstance(store, Path)
        assert isinstance(queries, int)
        try:
            with self._turn:
                made = compared(store.parent, a.operand, b.operand, queries)
        except InputError as error:
            made = Made(failed=str(error))
        except Exception:
            _LOG.exception("a comparison cannot be made")
            made = Made(failed="The explorer's log says why.")
        with self._lock:
            self._made[key] = made


def compared(work: Path, a: Operand, b: Operand, queries: int) -> Made:
    """Compare two systems on the measured window of a work directory.

    Raises:
        InputError: there is no dataset or no protocol, or a bundle cannot be loaded.
    """
    window = shared_window([a, b], str(work), queries, 0)
    (first, notes_a), (second, notes_b) = (lists_of(operand, window, CPU, True) for operand in (a, b))
    notes = list(dict.fromkeys([*notes_a, *notes_b]))
    result = compare(window, first, second, Settings(METRICS, shoppers=SHOPPERS), notes)
    return Made(window, first, second, result)


COMPARISONS: Final = Comparisons()
"""Of this process."""
