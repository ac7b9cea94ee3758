"""The size of a server's environment by package, beside that of a whole installation.

    python -m benchmarks.serving.size

It makes the environment of `deploy/image/serve.txt` from the distributions that are installed here, by hard
links, and prunes it by the script of the image, so nothing is downloaded and the versions are those of this
environment. A server is installed so on a machine without containers:

    python3 -m venv /opt/shelfwise
    /opt/shelfwise/bin/pip install -c constraints.txt -r deploy/image/serve.txt faiss-cpu
    /opt/shelfwise/bin/pip install --no-deps .
    deploy/image/prune.sh /opt/shelfwise
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf.errors import InputError

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = ROOT / "deploy" / "image"
BAR: Final = 1.2 * 1024
"""MiB."""
FAISS: Final = ("faiss-cpu", "faiss-gpu")
"""One of them is installed."""
_MIB: Final = 2**20
_PROGRAM: Final = "shelfwise"
_SHOWN: Final = 12


def listed(file: str) -> set[str]:
    """Return the names in a list of requirements, without those of a list that it includes."""
    lines = (IMAGE / file).read_text().splitlines()
    return {canonicalize_name(line) for line in lines if line and not line.startswith(("#", "-r "))}


def pruned() -> set[str]:
    """Return the distributions that prune.sh uninstalls."""
    found = re.search(r"^unused=\((.*)\)$", (IMAGE / "prune.sh").read_text(), re.MULTILINE)
    assert found is not None
    return {canonicalize_name(name) for name in found[1].split()}


def closure(wanted: Iterable[str], without: Collection[str] = ()) -> set[str]:
    """Return the installed distributions that these need, themselves included, by others than `without`."""
    found: set[str] = set()
    todo = [(name, frozenset[str]()) for name in wanted]
    while todo:
        name, extras = todo.pop()
        if name in without:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for text in distribution.requires or []:
            requirement = Requirement(text)
            of_extras = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if requirement.marker is None or any(map(requirement.marker.evaluate, of_extras)):
                entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
                if entry[0] not in found:
                    todo.append(entry)
    return found


def size(files: Iterable[Path]) -> float:
    """Return the size of those files that are there, in MiB; a file with several names counts once."""
    found: dict[tuple[int, int], int] = {}
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            status = file.lstat()
            found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values()) / _MIB


def program_files(root: Path = ROOT) -> list[Path]:
    """Return the files of the program that an installation has."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = [root / f"{module}.py" for module in settings["py-modules"]]
    for where, patterns in (
        (root, settings["packages"]["find"]["include"]),
        (root / "clients" / "python", ["shelfwise_client*"]),
    ):
        for name in {pattern.rstrip("*").partition(".")[0] for pattern in patterns}:
            found += [
                path
                for path in (where / name).rglob("*")
                if path.is_file() and "__pycache__" not in path.parts
            ]
    return sorted(set(found))


def link(name: str, packages: Path) -> None:
    """Put the files of an installed distribution into an environment, as hard links or copies."""
    for file in importlib.metadata.distribution(name).files or []:
        source, target = Path(str(file.locate())), packages / str(file)
        if ".." in file.parts or not source.is_file() or target.exists():
            continue  # scripts are outside of the packages
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)


def server_sizes(folder: Path) -> dict[str, float]:
    """Make a server's environment in a folder, prune it, and return the MiB of each distribution.

    Raises:
        InputError: something that it needs is not installed here, or it cannot be pruned.
    """
    needed = listed("serve.txt")
    lacking = sorted(needed - closure(needed))
    if lacking or not closure(FAISS):
        raise InputError(
            f"not installed here: {', '.join(lacking) or ' or '.join(FAISS)}; run make install-dev"
        )
    venv.create(folder, with_pip=True, clear=True)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    names = closure(needed | set(FAISS))
    for name in sorted(names):
        link(name, packages)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(IMAGE / "prune.sh"), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"deploy/image/prune.sh: {done.stderr.strip().splitlines()[-1:]}")
    found = {
        name: size(packages / str(file) for file in importlib.metadata.distribution(name).files or [])
        for name in names
    }
    everything = size(path for path in folder.rglob("*") if path.is_file())
    found = {name: mib for name, mib in found.items() if mib > 0}
    return {
        **found,
        f"{_PROGRAM}, without compiled loops": size(program_files()),
        "other files": everything - sum(found.values()),
    }


def whole_size() -> float:
    """Return the MiB that `pip install shelfwise[cpu]` takes with the versions here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = closure(
        {canonicalize_name(Requirement(text).name) for text in project["dependencies"]} | set(FAISS)
    )
    files = (
        Path(str(file.locate()))
        for name in names
        for file in importlib.metadata.distribution(name).files or []
    )
    return size(files) + size(program_files())


def result(folder: Path) -> dict[str, Any]:
    """Measure in a folder, which is removed; return MiB: `server`, `whole`, and `packages` by name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        packages = server_sizes(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "server": sum(packages.values()),
        "whole": whole_size(),
        "torch": importlib.metadata.version("torch"),
        "packages": dict(sorted(packages.items(), key=lambda item: -item[1])),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.size",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work-dir", type=Path, default=Path("work/benchmarks/serving"))
    parser.add_argument("--json", type=Path, help="file for the sizes")
    options = parser.parse_args(arguments)
    try:
        found = result(options.work_dir.resolve() / "environment")
    except InputError as error:
        Console(stderr=True).print(f"size: {error}", soft_wrap=True, markup=False, highlight=False)
        return 2
    table = Table("package", "MiB", title="a server's environment")
    largest = list(found["packages"].items())
    for name, mib in largest[:_SHOWN]:
        table.add_row(name, f"{mib:,.0f}")
    table.add_row(f"{len(largest[_SHOWN:])} others", f"{sum(mib for _, mib in largest[_SHOWN:]):,.0f}")
    table.add_row("sum", f"{found['server']:,.0f}", end_section=True)
    table.add_row("bar", f"{BAR:,.0f}")
    table.add_row(escape("pip install shelfwise[cpu]"), f"{found['whole']:,.0f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
