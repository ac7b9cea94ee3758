"""Folders of this machine as Spark takes them."""

from __future__ import annotations

from pathlib import Path


def address(path: Path) -> str:
    """Return the address of an absolute path, its characters as they are: Spark does not decode `%20`."""
    return f"file://{path}"
