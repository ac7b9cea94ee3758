"""The tables of faults and attacks: every row names tests, and they exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = {"| attempt | result | test |": 25, "| fault | effect | what to do | test |": 18}
"""Heads of the tables in docs/operations.md, and how many rows they have at least."""


def names_of_tests() -> set[str]:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("head", TABLES)
def test_every_row_names_tests_that_exist(head: str) -> None:
    lines = (ROOT / "docs/operations.md").read_text().splitlines()
    start = lines.index(head) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("| "):
            break
        rows.append(line)
    assert len(rows) >= TABLES[head]
    known = names_of_tests()
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == head.count("|") - 1, row
        assert all(cells), row
        named = [name.strip("` ") for name in cells[-1].strip(" |").split(",")]
        assert named, set(named) - known
        assert set(named) <= known, set(named) - known
