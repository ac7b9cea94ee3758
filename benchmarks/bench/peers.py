"""Environments of the other projects, with pinned versions, made once by the benchmark."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path
from typing import Final

from rich.console import Console

from conf.errors import InputError

HERE: Final = Path(__file__).parent
REQUIREMENTS: Final = {
    "sentence_transformers": HERE / "requirements" / "sentence_transformers.txt",
    "pandas": HERE / "requirements" / "pandas.txt",
    "ranx": HERE / "requirements" / "ranx.txt",
    "rectools": HERE.parent / "rectools_sasrec" / "requirements.txt",
    "recbole": HERE.parent / "recbole_models" / "requirements.txt",
}
"""Name of an environment -> the exact versions in it."""


def interpreter(name: str, home: Path, console: Console) -> str:
    """Return an interpreter with a project, made on the first call and again when its versions change.

    Args:
        name: key of `REQUIREMENTS`.
        home: folder of the environments.
        console: where the making is announced.

    Raises:
        InputError: its packages cannot be installed.

    """
    folder = home / name
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    requirements = REQUIREMENTS[name].read_text()
    if python.is_file() and installed.is_file() and installed.read_text() == requirements:
        return str(python.absolute())
    console.print(f"making an environment with {name} in {folder} (once)")
    venv.create(folder, with_pip=True, clear=True)
    # Python compiles on import what is used, a small part of these packages.
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile")
    pip = [str(python), "-m", "pip", "install", *options]
    done = subprocess.run([*pip, "-r", str(REQUIREMENTS[name])], capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InputError(
            f"{name} could not be installed ({(errors or ['pip failed'])[-1]}); with access to a package "
            f"index: {python} -m pip install --no-deps -r {REQUIREMENTS[name]}"
        )
    installed.write_text(requirements)
    return str(python.absolute())
