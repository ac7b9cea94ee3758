"""Every sub-package names its public modules in its docstring; nothing else is imported from outside."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("features", "encoders", "ranking", "serving", "explorer", "lifecycle")
MOST_MODULES = 20
PACKAGES = sorted(
    str(path.parent.relative_to(ROOT)).replace("/", ".")
    for room in ROOMS
    for path in (ROOT / room).rglob("__init__.py")
    if path.parent.parent != ROOT
)


def _modules() -> dict[str, Path]:
    """Return every module of the engine by its dotted name, packages without `__init__`."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")] + [ROOT / "shelfwise.py"]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


def _imported(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in modules else node.module


@cache
def _used_from_outside() -> dict[str, set[str]]:
    """Return, of every sub-package, its modules that code outside of it imports."""
    modules = _modules()
    used: dict[str, set[str]] = defaultdict(set)
    for importer, path in modules.items():
        for module in _imported(path, modules):
            package, _, name = module.rpartition(".")
            if package in PACKAGES and module in modules and not importer.startswith(f"{package}."):
                used[package].add(name)
    return used


@pytest.mark.parametrize("package", PACKAGES)
def test_a_sub_package_names_what_others_may_use(package: str) -> None:
    folder = ROOT / package.replace(".", "/")
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    _, found, public = text.partition("\nPublic: ")
    named = set(re.findall(r"`(\w+)`", public)) if found else set()
    packages = {f"{package}.{name}" for name in named} & set(PACKAGES)
    used = _used_from_outside()[package] - {name.rpartition(".")[2] for name in packages}
    assert named - {name.rpartition(".")[2] for name in packages} == used


@pytest.mark.parametrize("room", [*ROOMS, "conf", "tuning", "benchmarks", "tests", "clients"])
def test_no_folder_is_too_wide(room: str) -> None:
    for folder in {path.parent for path in (ROOT / room).rglob("*.py")}:
        if "node_modules" not in folder.parts:
            assert len(list(folder.glob("*.py"))) <= MOST_MODULES, folder
