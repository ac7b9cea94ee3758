"""Tables at URLs: they are copied to files before they are opened, and their rows keep the URLs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from conf.errors import InputError


@dataclass(frozen=True)
class Copy:
    """What a URL was copied to."""

    files: dict[str, str] = field(default_factory=dict)
    """URL of each file -> its copy, unchanged."""
    parts: tuple[str, ...] = ()
    """Else Parquet files with the rows of all of its files, and the columns `FILE` and `ROW`."""
    names: tuple[str, ...] = ()
    """URLs of the files in `parts`, in their order."""


_copies: dict[str, Copy] = {}
"""URL as it is in the settings -> its copy, while that exists."""


def is_url(entry: object) -> bool:
    """Return whether an entry of a setting is a URL, not a path."""
    return "://" in str(entry)


def urls_of(source: object) -> list[str]:
    """Return the URLs in the value of a setting."""
    return [
        str(entry) for entry in (source if isinstance(source, list | tuple) else [source]) if is_url(entry)
    ]


def without_urls(source: object) -> object:
    """Return the value of a setting without its URLs: None where nothing else is in it."""
    if not isinstance(source, list | tuple):
        return None if is_url(source) else source
    return [entry for entry in source if not is_url(entry)] or None if urls_of(source) else source


@contextmanager
def copied(copies: Mapping[str, Copy]) -> Iterator[None]:
    """Let URLs be opened for as long as the block runs."""
    _copies.update(copies)
    try:
        yield
    finally:
        for url in copies:
            del _copies[url]


def files_at(url: str, setting: str) -> list[str]:
    """Return the files of a URL, or the URL itself where their rows were copied together.

    Raises:
        InputError: it was not copied.
    """
    if url not in _copies:
        raise InputError(
            f"{setting}: {url} is a URL, which engine=spark reads; without Spark mount the store, or copy "
            "the files, and give a path"
        )
    return [*_copies[url].files] or [url]


def local(path: str) -> str:
    """Return the copy of a file that has a URL, any other path as it is."""
    found = (
        (copy.files[path] for copy in _copies.values() if path in copy.files) if is_url(path) else iter(())
    )
    return next(found, path)


def rows_of(path: str) -> Copy | None:
    """Return the copied rows of a URL, None for all else."""
    found = _copies.get(path)
    return found if found is not None and found.parts else None
