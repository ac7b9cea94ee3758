"""The export step: a bundle's text encoder for use elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from conf.errors import InputError
from conf.operating import ExportConfig
from ranking.bundle.bundle import TEXT_ENCODER
from ranking.bundle.store import VERSIONS, current_version, verify


def export(config: ExportConfig, console: Console) -> Path:
    """Copy the verified text encoder (Hugging Face and sentence-transformers layout) to a new folder.

    Raises:
        InputError: no bundle, a damaged one, or an output folder that already holds something.

    """
    store, output = Path(config.artifacts), Path(config.output)
    version = current_version(store)
    folder = store / VERSIONS / version
    verify(folder)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"output={output}: already exists; name a new folder")
    shutil.copytree(folder / TEXT_ENCODER, output, dirs_exist_ok=True)
    console.print(f"text encoder of {version} copied to {output}")
    console.print(f"load it: SentenceTransformer('{output}')", markup=False, highlight=False)
    return output
