"""The gate of publish: a new bundle against the current one, before it becomes current."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console

from conf.comparison import Guard
from conf.errors import GuardError, InputError
from ranking.bundle.bundle import load_bundle
from ranking.bundle.store import VERSIONS
from ranking.comparison.bundles import learned_from, measure_bundle
from ranking.comparison.command import PAGE_FILE, write_comparison
from ranking.comparison.compare import Settings, compare
from ranking.comparison.floor import judge_floor
from ranking.comparison.guards import broken_lines
from ranking.comparison.measured import Measured
from ranking.comparison.sides import bundle_notes, run_settings
from ranking.comparison.table import print_comparison
from ranking.comparison.window import Window

COMPARISONS: Final = "comparisons"
"""Folder of a store with the comparison of each gated version, refused ones too."""
METRICS: Final = ("recall@10", "ndcg@10", "hit@10", "mrr", "map@10")
_WITHOUT: Final = "publish.gate=null publishes without a comparison"


class Gate:
    """Guards that a version has to hold against the current one."""

    def __init__(
        self,
        store: Path,
        guards: Sequence[Guard],
        window: Window,
        device: torch.device,
        settings: Settings,
        floor: Sequence[Guard] = (),
    ) -> None:
        """Take the guards and the window.

        Args:
            store: the artifact folder.
            guards: against the current version.
            window: the measured queries.
            device: where the bundles run.
            settings: samples and seed.
            floor: guards against the most popular items, which a first version has to hold, too.
        """
        self.store, self.window, self.device, self.floor = store, window, device, floor
        self.settings = replace(settings, metrics=METRICS, guards=guards)

    def judge(
        self, staged: Path, manifest: dict[str, Any], current: str | None, console: Console
    ) -> dict[str, Any]:
        """Measure a version that is about to become current, and the current one.

        Args:
            staged: folder of the version's files, in the store.
            manifest: its manifest.
            current: the current version; None is measured against the floor alone.
            console: for the table.

        Returns:
            The judged guards (`guards`, and `floor`), and the folder of the comparison with its result, each
            None without a current version.

        Raises:
            InputError: a version cannot be loaded, or has learned from the window.
        """
        found: dict[str, Any] = {"folder": None, "result": None, "guards": [], "floor": []}
        served = None if current is None else self._measured(current, current, None)
        b, notes_b = self._measured(manifest["version"], staged.name, manifest)
        if self.floor:
            found["floor"] = judge_floor(self.window, b, self.floor)
        if served is not None:
            a, notes_a = served
            result = compare(self.window, a, b, self.settings, [*notes_a, *notes_b])
            folder = write_comparison(self.store / COMPARISONS / manifest["version"], result)
            print_comparison(result, console)
            found |= {"folder": folder, "result": result, "guards": result["guards"]}
        return found

    def check(self, staged: Path, manifest: dict[str, Any], current: str | None, console: Console) -> None:
        """Compare a version that is about to become current with the current one, and write the comparison.

        Args:
            staged: folder of the version's files, in the store.
            manifest: its manifest.
            current: the current version; None passes.
            console: for the table.

        Raises:
            GuardError: a guard is broken.
            InputError: the current version cannot be loaded, or one of the two has learned from the window.
        """
        if current is None or not (self.store / VERSIONS / current).is_dir():
            console.print("publish.gate: nothing is current yet; the first bundle passes")
            return
        try:
            found = self.judge(staged, manifest, current, console)
        except InputError as error:
            raise InputError(f"publish.gate: {error}; {_WITHOUT}") from error
        folder = found["folder"]
        broken = broken_lines(found["guards"])
        if broken:
            raise GuardError(
                "\n".join(
                    [*broken, f"not published: {current} stays current; see {folder / PAGE_FILE}; {_WITHOUT}"]
                )
            )
        console.print(f"publish.gate: every guard is passed; {folder / PAGE_FILE}", soft_wrap=True)

    def _measured(
        self, version: str, folder: str, manifest: dict[str, Any] | None
    ) -> tuple[Measured, list[str]]:
        bundle = replace(
            load_bundle(self.store, folder, manifest=manifest, device=self.device), version=version
        )
        settings = run_settings(self.store / VERSIONS / folder)
        leak = learned_from(bundle.manifest, settings[0].kind if settings else None, self.window)
        if leak is not None:
            raise InputError(
                f"{version} may have learned from the {self.window.name} window ({leak}), "
                "so the two cannot be compared"
            )
        found = measure_bundle(version, bundle, self.window, str(self.store))
        return found, bundle_notes(found, self.window, None)
