"""Warm start: an earlier run or bundle whose weights a training begins with, and what it has learned from.

Weights remember what they were trained on. Those that have seen the validation window would choose epochs by
events that they know, those that have seen the test window would be measured on them; both are refused, by
times that every run and every bundle records, the ancestors' included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import yaml  # type: ignore[import-untyped]
from rich.console import Console

from conf.errors import InputError
from conf.schema import PipelineConfig, Refit
from encoders.towers.towers import TOWERS_CONFIG, TOWERS_FILE, Towers
from features.data import schema
from features.data.dataset import Dataset, IntArray
from features.data.pipeline_step import fingerprint, write_atomically
from features.data.splits import Split

PIN: Final = "warm_start.json"
"""In the work directory: the source that its steps began with, as a store's current version changes."""
LEARNED_UNTIL: Final = "learned_until"
"""Key in a step's report and in a manifest: part -> Unix seconds that all events it knows precede."""
TEXT_MODEL: Final = "text_model"
"""Key in the report of the encoder step and in a manifest: `text_encoder.model` of the first training."""
WARM: Final = "warm"
"""Key in a step's report: the parts that began with earlier weights."""
REPORT: Final = "training.json"
TEXT_ENCODER: Final = "text_encoder"
TEXT_VECTORS: Final = "text_vectors.npy"
MANIFEST: Final = "manifest.json"
PARTS: Final = ("text_encoder", "towers", "ranker_towers", "ranker")


@dataclass(frozen=True)
class WarmSource:
    """The weights of a finished run or of a published version."""

    folder: Path
    identity: str
    """Changes with the weights: a version's name, or the fingerprint of a run's inputs."""
    learned_until: dict[str, int]
    """Part -> Unix seconds before which all events lie that its weights, or its ancestors', have seen."""
    text_model: str | None
    """Model that the text encoder was fine-tuned from; None if unknown."""
    precision: str
    """Precision of the text vectors."""
    kinds: list[str]
    """Event kinds by code."""
    encoder: Path
    """Folder with text encoder, text vectors and affinity."""
    items: Path
    """Table of the catalogue, in the order of the vectors."""
    towers: Path
    ranker_towers: Path | None
    """Towers that score the ranking head's training lists; a bundle has none."""
    ranker: Path

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """Ids and texts, in the order of the vectors."""
        return pl.read_parquet(self.items, columns=[schema.ITEM_ID, schema.TEXT])

    def rows(self, ids: list[str]) -> IntArray:
        """Return each item's row in the source's catalogue, -1 where it has none, [items]."""
        return _places(self.catalogue[schema.ITEM_ID].to_list(), ids)

    def text_rows(self, texts: list[str]) -> IntArray:
        """Return a row of the source with each text, -1 where none has it, [texts]."""
        return _places(self.catalogue[schema.TEXT].to_list(), texts)

    def require_unseen(self, split: Split) -> None:
        """Refuse weights that have seen events of the windows that choose epochs or are measured.

        Raises:
            InputError: naming the window and the setting that moves it.
        """
        last = max(self.learned_until.values())
        if last <= split.train_time:
            return
        tested = last > split.state_time
        window, why = ("test", "measured on") if tested else ("validation", "stopped by")
        raise InputError(
            f"warm_start: {self.folder} has learned from events up to {_moment(last)}, the {window} window "
            f"begins at {_moment(split.state_time if tested else split.train_time)}: training would be {why} "
            f"events that it knows; set split.valid_start={_moment(last)} or later"
            f"{' and split.test_start after it' * (last >= split.state_time)}, or warm_start=null"
        )


def _places(known: list[str], wanted: list[str]) -> IntArray:
    place = {value: row for row, value in enumerate(known)}
    return np.array([place.get(value, -1) for value in wanted], dtype=np.int32)


def _moment(seconds: int) -> str:
    return f"{np.datetime64(seconds, 's')}Z"


def warm_identity(config: PipelineConfig, facts: Any) -> str | None:  # noqa: ANN401 - JSON
    """Return what identifies the source's weights; None for a cold start, or a source that cannot be read.

    Args:
        config: of the run.
        facts: of its dataset; a run on the same facts keeps the source that it began with.
    """
    if config.warm_start is None:
        return None
    pinned = _pinned(config, facts)
    if pinned is not None:
        return str(pinned["identity"])
    try:
        return _read(Path(config.warm_start)).identity
    except InputError:
        return None


def warm_inputs(config: PipelineConfig, facts: Any) -> list[Any] | None:  # noqa: ANN401 - JSON
    """Return what decides the text encoder's outputs after a warm start; None for a cold one.

    Args:
        config: of the run.
        facts: of its dataset.
    """
    if config.warm_start is None:
        return None
    warm = config.warm
    return [warm_identity(config, facts), warm.text_steps, warm.affinity_steps, warm.learning_rate]


def warm_source(config: PipelineConfig, facts: Any) -> WarmSource | None:  # noqa: ANN401 - JSON
    """Return the source of a run, None for a cold start; from then on the run keeps it.

    Raises:
        InputError: there are no weights, or they have changed since the run began with them.
    """
    if config.warm_start is None:
        return None
    work, given = Path(config.work_dir), Path(config.warm_start)
    if given.resolve() == work.resolve():
        raise InputError(
            f"warm_start={given}: the steps would overwrite the weights that they begin with; train in "
            f"another work_dir, or begin with what was published: warm_start={given / 'artifacts'}"
        )
    pinned = _pinned(config, facts)
    source = _read(given if pinned is None else Path(pinned["folder"]))
    if pinned is None:
        work.mkdir(parents=True, exist_ok=True)
        content = {
            "given": str(given), "facts": fingerprint(facts), "folder": str(source.folder.resolve()),
            "identity": source.identity,
        }  # fmt: skip
        write_atomically(work / PIN, json.dumps(content, indent=2) + "\n")
    elif source.identity != pinned["identity"]:
        raise InputError(
            f"warm_start: {source.folder} has changed since this run began with it; delete {work / PIN} to "
            "begin again with what is there now"
        )
    return source


def unseen_source(config: PipelineConfig, dataset: Dataset, split: Split | None) -> WarmSource | None:
    """Return `warm_source` if it has learned from no event of the run's windows.

    Raises:
        InputError: it has, or there are no weights.
    """
    source = warm_source(config, dataset.facts)
    if source is not None and split is not None:
        source.require_unseen(split)
    return source


def _pinned(config: PipelineConfig, facts: Any) -> dict[str, Any] | None:  # noqa: ANN401 - JSON
    content = _json(Path(config.work_dir) / PIN)
    asked = {"given": config.warm_start, "facts": fingerprint(facts)}
    return content if content is not None and content.items() >= asked.items() else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _read(given: Path) -> WarmSource:
    """Find the weights in a store, a version's folder or a work directory.

    Raises:
        InputError: there are none, or they are not whole.
    """
    current = given / "CURRENT"
    folder = given / "versions" / current.read_text().strip() if current.is_file() else given
    manifest = _json(folder / MANIFEST)
    if manifest is not None:
        try:
            _require_whole(folder, manifest)
            return _of_version(folder, manifest)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"warm_start: {folder / MANIFEST} was made by another release; publish again, begin with "
                "another version, or set warm_start=null"
            ) from error
    if (folder / "encoder" / "stage.json").is_file() and (folder / "ranker" / "stage.json").is_file():
        return _of_run(folder)
    raise InputError(
        f"warm_start={given}: neither a finished run (work_dir), nor a store (artifacts), nor a version of "
        "one (artifacts/versions/NAME); warm_start=null trains from the beginning"
    )


def _require_whole(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a version with missing or cut files; whoever serves it compares the hashes, too.

    Raises:
        InputError: naming the file.
    """
    for name, published in manifest["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != published["size"]:
            raise InputError(
                f"warm_start: {file} is missing or cut off; publish again, begin with another version, or "
                "set warm_start=null"
            )


def _of_version(folder: Path, manifest: Mapping[str, Any]) -> WarmSource:
    # Versions without a record: no weights have seen more than the statistics.
    end = int(manifest["data_end"]) + (manifest.get("refit") == Refit.everything.value)
    learned = manifest.get(LEARNED_UNTIL) or dict.fromkeys(PARTS, end)
    model = manifest.get(TEXT_MODEL)
    if model is None:
        try:
            model = yaml.safe_load((folder / "config.yaml").read_text())["text_encoder"]["model"]
        except (OSError, KeyError, TypeError, yaml.YAMLError):
            model = None
    return WarmSource(
        folder, str(manifest["version"]), learned, model, str(manifest["precision"]), list(manifest["kinds"]),
        encoder=folder, items=folder / "catalog.parquet", towers=folder, ranker_towers=None, ranker=folder,
    )  # fmt: skip


def _of_run(folder: Path) -> WarmSource:
    encoder, ranker = folder / "encoder", folder / "ranker"
    reports = [_json(part / REPORT) or {} for part in (encoder, ranker)]
    info = _json(folder / "dataset" / schema.DATASET_FILE)
    if info is None or LEARNED_UNTIL not in reports[0]:
        raise InputError(
            f"warm_start: {folder} does not record what its weights have learned from; train it anew, or "
            f"begin with what it published: warm_start={folder / 'artifacts'}"
        )
    stages = [_json(part / "stage.json") for part in (encoder, ranker)]
    return WarmSource(
        folder, fingerprint(stages), reports[0][LEARNED_UNTIL] | reports[1].get(LEARNED_UNTIL, {}),
        reports[0].get(TEXT_MODEL), str(reports[0]["embedding_precision"]), info["kinds"],
        encoder=encoder, items=folder / "dataset" / schema.ITEMS_FILE, towers=encoder / "towers",
        ranker_towers=encoder / "ranker_towers", ranker=ranker,
    )  # fmt: skip


@dataclass(frozen=True)
class Beginning:
    """Towers whose weights a training begins with."""

    towers: Path
    rows: IntArray  # [items] each item's row there, -1 for none
    kinds: IntArray  # [kinds] each event kind's code there, -1 for none

    @classmethod
    def of_same(cls, towers: Path, dataset: Dataset) -> Beginning:
        """Return towers of the same catalogue and kinds."""
        items, kinds = (np.arange(len(rows), dtype=np.int32) for rows in (dataset.catalogue, dataset.kinds))
        return cls(towers, items, kinds)

    def copy_into(self, towers: Towers) -> None:
        """Copy the weights into towers of a grown or shrunken catalogue.

        The whitening comes along, as the projection was learned on top of it, and so do the marks of the
        items whose residuals were learned. Items and kinds that the earlier towers do not have keep their
        initial values.
        """
        weights = Towers.load(self.towers).state_dict()
        by_row = {
            "item_tower.residual.weight": self.rows,
            "item_tower.seen": self.rows,
            "user_encoder.kind.weight": self.kinds,
        }
        for name, tensor in towers.state_dict().items():  # shares memory with the towers
            if name in by_row:
                here = np.flatnonzero(by_row[name] >= 0)
                tensor[here] = weights[name][by_row[name][here]]
            else:
                tensor.copy_(weights[name])


def beginning(
    source: WarmSource | None, part: str, shape: Mapping[str, Any], dataset: Dataset, console: Console
) -> Beginning | None:
    """Return the weights that towers of a shape can begin with; None where there are none, with a line why.

    Args:
        source: the earlier run or version; None for a cold start.
        part: `towers` or `ranker_towers`.
        shape: `Towers.shape` of those to be trained.
        dataset: of the run.
        console: for the line.
    """
    if source is None:
        return None
    folder = source.towers if part == "towers" else source.ranker_towers
    reason = "there are none"
    if folder is not None and (folder / TOWERS_FILE).is_file():
        old = _json(folder / TOWERS_CONFIG) or {}
        other = [key for key in shape if key not in ("items", "kinds") and old.get(key) != shape[key]]
        if not other:
            return Beginning(folder, source.rows(dataset.catalogue.ids), _places(source.kinds, dataset.kinds))
        reason = ", ".join(f"{key} is {shape[key]}, there {old.get(key)}" for key in other)
    cold(part.replace("_", " "), reason, console)
    return None


def cold(part: str, reason: str, console: Console) -> None:
    """Say that a part cannot begin with earlier weights."""
    console.print(
        f"warm_start: {part} trained from the beginning: {reason}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def learned_until(source: WarmSource | None, own: Mapping[str, int]) -> dict[str, int]:
    """Return up to when each part has learned, its ancestors included.

    Args:
        source: whose weights the parts began with.
        own: part -> Unix seconds before which the events of its own training lie.
    """
    before = {} if source is None else source.learned_until
    return {part: max(time, before.get(part, time)) for part, time in own.items()}
