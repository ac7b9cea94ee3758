"""Tables inside other files: members of a ZIP archive and sheets of a workbook, addressed by a longer path.

`export.zip/orders.csv` is a member and `shop.xlsx/Products` a sheet. An archive or a workbook with a single
table is addressed by its own path.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from conf.errors import InputError
from features.files.conversions import scratch_file
from features.files.copies import is_url, local

ARCHIVES = (".zip",)
WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
_PATTERN = re.compile(r"[*?\[\]]")
_SHOWN = 10
_unpacked: dict[str, Path] = {}
"""Member -> the file it was unpacked to, while that exists."""


def file_of(path: str) -> Path:
    """Return the file on disk that contains a path."""
    return Path(split(path)[0])


def split(path: str | Path) -> tuple[str, str | None]:
    """Return the file that contains a path and the name inside it; None for a path that is a file."""
    whole = Path(path)
    for parent in whole.parents:
        if parent.suffix.lower() in (*ARCHIVES, *WORKBOOKS) and parent.is_file():
            return str(parent), whole.relative_to(parent).as_posix()
    return str(path), None


def members(archive: str, known: Sequence[str]) -> list[str]:
    """Return the files of an archive with a table's extension, sorted, without those that macOS adds.

    Raises:
        InputError: it is not a ZIP archive.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            names = [info.filename for info in file.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{archive}: cannot be read: {error}") from error
    plain = [n for n in names if not n.startswith("__MACOSX/") and not PurePosixPath(n).name.startswith(".")]
    return sorted(
        n for n in plain if any(suffix.lower() in known for suffix in PurePosixPath(n).suffixes[-2:])
    )


def expand(path: str | Path, setting: str, known: Sequence[str]) -> list[str] | None:
    """Expand a path to or into an archive or a workbook; None for other paths.

    Args:
        path: as given; the name inside an archive may be a glob.
        setting: name of the setting in messages.
        known: extensions of tables.

    Raises:
        InputError: no such member, or several tables and no member named.
    """
    file, inside = split(path)
    if Path(file).suffix.lower() in WORKBOOKS and inside is not None:
        return [str(path)]  # a missing sheet is found when it is read
    if Path(file).suffix.lower() not in ARCHIVES or not Path(file).is_file():
        return None
    tables = members(file, known)
    chosen = tables if inside is None else fnmatch.filter(tables, inside)
    listing = ", ".join(tables[:_SHOWN]) + (", ..." if len(tables) > _SHOWN else "")
    if not chosen:
        what = f"no '{inside}' in it" if inside and tables else "no table in it"
        raise InputError(f"{setting}: {file}: {what}" + (f"; it holds {listing}" if tables else ""))
    if inside is None and len(chosen) > 1:
        example = shlex.quote(f"{setting}={file}/{chosen[0]}")
        raise InputError(f"{setting}: {file} holds several tables ({listing}); name one, e.g. {example}")
    return [f"{file}/{name}" for name in chosen]


def unpacked(path: str) -> str:
    """Return a path that polars can open: members of archives are unpacked.

    A file with a URL has a copy; one whose path polars would take for a pattern (`sales[2024].csv`) gets a
    link.

    Raises:
        InputError: the member is encrypted or broken, or there is not enough disk space.
    """
    if is_url(path):
        return local(path)
    file, inside = split(path)
    member = inside is not None and Path(file).suffix.lower() in ARCHIVES
    if not member and not _PATTERN.search(path):
        return path
    if path in _unpacked and _unpacked[path].exists():
        return str(_unpacked[path])
    target = scratch_file(_PATTERN.sub("_", PurePosixPath(path).name))
    if not member or inside is None:
        target.symlink_to(Path(path).resolve())
        _unpacked[path] = target
        return str(target)
    try:
        with zipfile.ZipFile(file) as archive:
            size, free = archive.getinfo(inside).file_size, shutil.disk_usage(target.parent).free
            if size > free:
                raise InputError(
                    f"{path}: {size:,} bytes unpacked, and {free:,} bytes free in {target.parent}"
                )
            with archive.open(inside) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise InputError(f"{path}: cannot be unpacked: {error}") from error
    _unpacked[path] = target
    return str(target)
