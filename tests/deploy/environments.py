"""Environments of an image's distributions alone, made of links to the installed ones."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Collection
from pathlib import Path

from benchmarks.serving.size import closure
from tests.deploy.manifests import ROOT


def slim_environment(folder: Path, wanted: set[str], without: Collection[str] = ()) -> dict[str, str]:
    """Fill a folder with links to some installed distributions and what they need, as in an image.

    Returns:
        Environment variables with which `python -S` finds these distributions and the project alone.
    """
    for name in closure(wanted, without):
        for file in importlib.metadata.distribution(name).files or []:
            link = folder / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not link.exists():
                link.symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / file.parts[0])
    path = os.pathsep.join(map(str, (folder, ROOT, ROOT / "clients" / "python")))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": str(folder)}
