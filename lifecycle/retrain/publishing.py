"""The step `publish`: the gate, and the version that becomes current if it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from conf.comparison import read_guards
from conf.errors import InputError
from conf.lifecycle import Learns
from conf.schema import PipelineConfig, Refit
from encoders.device import resolve_device
from encoders.training.train import try_split
from features.data.dataset import Dataset
from lifecycle.checks.check import Outcome as CheckOutcome
from lifecycle.checks.models import compare_models
from lifecycle.retrain.night import Night, served_version
from lifecycle.retrain.outcomes import EndOfRunError, Outcome
from lifecycle.retrain.planning import candidate_settings
from lifecycle.retrain.preparing import load_prepared
from ranking.bundle.rollback import roll_back_engines
from ranking.bundle.store import VERSIONS, current_version, versions
from ranking.comparison.command import PAGE_FILE
from ranking.comparison.compare import Settings
from ranking.comparison.gate import Gate
from ranking.comparison.guards import broken_lines
from ranking.comparison.window import frozen_vectors, make_window
from ranking.pipeline.publish import publish
from ranking.pipeline.refit import refit

INTENT: Final = "publishing"
"""Note of the journal with the version that has passed and becomes current next."""
PASSED: Final = "passed"
"""Note of the journal with what the gate found, where the model is trained once more after it."""


class _PassedError(Exception):
    """The measured version has passed and is not published itself."""


def read_gate(night: Night) -> None:
    """Read both lists of guards, so that a mistake in a file is reported before the training.

    Raises:
        InputError: a file that does not exist or is no list of guards.
    """
    for name in ("gate", "floor"):
        read_guards(getattr(night.config.retrain, name), f"retrain.{name}")


def publish_step(night: Night) -> dict[str, Any]:
    """Measure the new and the served model on the window, and publish the new one if its guards hold.

    Returns:
        The versions before and after, and what the gate found.

    Raises:
        EndOfRunError: a guard is broken; the served model stays.
        InputError: the served model cannot be measured.
    """
    done = _interrupted_publication(night)
    if done is not None:
        return done
    config, dataset = candidate_settings(night), load_prepared(night)
    if not night.record("plan")["measured"]:
        return _published(night, config, dataset, {"measured": False})
    if night.config.retrain.refit is Learns.before_window:
        return _published(night, config, dataset, None)
    found = night.journal.content.get(PASSED)
    if found is None:
        try:
            _published(night, config, dataset, None, discard=True)
        except _PassedError:
            found = night.journal.content[PASSED]
    everything = replace(config, refit=Refit.everything, evaluation=replace(config.evaluation, test=False))
    night.say("the gate is passed; training once more with the window")
    refit(everything, night.console, dataset)
    return _published(night, everything, dataset, found)


def _published(
    night: Night,
    config: PipelineConfig,
    dataset: Dataset,
    found: Mapping[str, Any] | None,
    discard: bool = False,
) -> dict[str, Any]:
    """Publish what the run's folder holds.

    Args:
        night: the run.
        config: settings of the published models.
        dataset: that of the run.
        found: by the gate; None measures the version first.
        discard: whether the version is only measured.
    """

    def judge(staged: Path, manifest: dict[str, Any], current: str | None) -> None:
        seen = (
            dict(found) if found is not None else _judged(night, config, dataset, staged, manifest, current)
        )
        if discard:
            night.journal.note(PASSED, seen)
            raise _PassedError
        night.journal.note(
            INTENT, {"version": manifest["version"], "before": current, "refit": config.refit.value, **seen}
        )

    publish(config, night.console, dataset, night.store, judge)
    return dict(night.journal.content[INTENT])


def _judged(
    night: Night,
    config: PipelineConfig,
    dataset: Dataset,
    staged: Path,
    manifest: dict[str, Any],
    current: str | None,
) -> dict[str, Any]:
    """Return what the gate found.

    Raises:
        EndOfRunError: a guard is broken, or the models are too unlike.
        InputError: the served version cannot be measured.
    """
    settings = night.config.retrain
    split = try_split(config, dataset)
    assert split is not None, "the plan has measured the window"
    vectors = frozen_vectors(night.folder, len(dataset.catalogue))
    window = make_window(dataset, split, config.evaluation, config.seed, vectors=vectors)
    device = resolve_device(config.device)
    gate = Gate(
        night.store,
        read_guards(settings.gate, "retrain.gate"),
        window,
        device,
        Settings((), bootstrap=config.evaluation.bootstrap, seed=config.seed),
        read_guards(settings.floor, "retrain.floor"),
    )
    try:
        found = gate.judge(staged, manifest, current, night.console)
    except InputError as error:
        raise InputError(
            f"retrain.gate: {error}; the served model stays. Serve a version that can be measured "
            f"(shelfwise rollback artifacts={night.store}) and run again"
        ) from error
    record = {"measured": True, "candidate": manifest["version"], "before": current, **_compared(found)}
    broken = broken_lines([*found["guards"], *found["floor"]])
    if current is not None:
        checks = compare_models(night.store, staged, manifest, current, window, device, night.config.checks)
        record["checks"] = [check.record() for check in checks]
        for check in checks:
            if check.outcome is CheckOutcome.warned:
                night.say(f"warning: {check.line}")
        broken += [check.line for check in checks if check.outcome is CheckOutcome.refused]
    if broken:
        raise EndOfRunError(Outcome.refused, "; ".join(broken), record)
    return record


def _compared(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the audit file keeps of a comparison; the whole of it is beside the store's versions."""
    result = found["result"]
    record: dict[str, Any] = {"guards": found["guards"], "floor": found["floor"], "comparison": None}
    if result is not None:
        record["comparison"] = {
            "page": str(found["folder"] / PAGE_FILE),
            **{key: result[key] for key in ("window", "a", "b", "metrics", "notes", "confidence_level")},
        }
    return record


def _interrupted_publication(night: Night) -> dict[str, Any] | None:
    """Return the record of a publication that a kill has interrupted behind the gate, completed.

    The version is named in the journal before it can become current. If it is current, or complete in the
    store, nothing is left but the pointer; otherwise it is made again.
    """
    intent: dict[str, Any] | None = night.journal.content.get(INTENT)
    if intent is None or intent["version"] not in versions(night.store):
        return None
    if not (night.store / VERSIONS / intent["version"]).is_dir():
        return None
    served = served_version(night.store)
    if served == intent["before"]:
        # Verified, then the pointer is replaced.
        retrieval, version = night.config.retrieval, intent["version"]
        roll_back_engines(retrieval, night.store, night.console, version, action="publish")
        served = current_version(night.store)
    return dict(intent) if served == intent["version"] else None
