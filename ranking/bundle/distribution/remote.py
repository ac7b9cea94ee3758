"""A folder behind an address: a bucket, a web server, or a folder of this or another machine.

`s3://`, `gs://` and `abfs://` are read and written by obstore (`object_store.py`), every other protocol by
fsspec. Credentials come from the environment (AWS_ACCESS_KEY_ID or the role of the machine;
GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_ACCOUNT_KEY and so on), never from a setting. Errors are one
line, without what an address may hold of credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from conf.errors import InputError
from ranking.bundle.distribution.object_store import PROTOCOLS, ObjectStore, ObjectStoreError
from ranking.bundle.store import CURRENT, is_version

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY: Final = re.compile(r"\?[^\s'\")]*")
_EXAMPLES: Final = (
    "write remote=s3://bucket/path, gs://bucket/path, abfs://..., https://host/path or file:///path"
)
_LONGEST: Final = 300
"""Characters of an error of a library that are printed."""


class Remote:
    """A folder behind an address; paths are relative to it. Safe for use by several threads."""

    def __init__(self, files: Any, root: str, name: str) -> None:  # noqa: ANN401 - fsspec has no types
        """Use a file system of fsspec.

        Args:
            files: the file system, or one with the same methods.
            root: path of the folder in it.
            name: address for messages, without credentials.
        """
        self._files = files
        self._root = root.rstrip("/")
        self.name = name

    @classmethod
    def open(cls, address: str) -> Remote:
        """Return the folder behind an address; nothing is read yet.

        Raises:
            InputError: no address, an unknown protocol, or one whose library is not installed.
        """
        name = without_credentials(address)
        name = name if name.endswith("://") else name.rstrip("/")
        protocol, found, _ = address.partition("://")
        if not address:
            raise InputError(f"remote is not set; {_EXAMPLES}")
        if not found:
            raise InputError(f"remote: '{name}' is no address; {_EXAMPLES}")
        try:
            if protocol in PROTOCOLS:
                return cls(ObjectStore(address), "", name)
            from fsspec.core import url_to_fs

            files, root = url_to_fs(address, use_listings_cache=False)
        except ImportError as error:
            how = "pip install aiohttp" if protocol.startswith("http") else without_credentials(str(error))
            raise InputError(f"remote: {name} cannot be opened: {how}") from error
        except InputError as error:
            raise InputError(f"remote: {name} cannot be opened: {error}") from error
        except Exception as error:  # each file system has exceptions of its own
            raise InputError(f"remote: {name} cannot be opened ({_said(error)}); {_EXAMPLES}") from error
        return cls(files, root, name)

    def read(self, path: str) -> bytes | None:
        """Return the content of a small file; None for a missing one.

        Raises:
            InputError: it cannot be read.
        """
        with self._one_line(path, "read"):
            try:
                return bytes(self._files.cat_file(self._at(path)))
            except FileNotFoundError:
                return None

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return some bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: it cannot be read, or another number of bytes came.
        """
        with self._one_line(path, "read"):
            found = bytes(self._files.cat_file(self._at(path), start=start, end=end))
        if len(found) > end - start:
            raise InputError(f"{self.name}: sends whole files where a part is asked for (no range requests)")
        if len(found) < end - start:
            raise InputError(
                f"{self.name}/{path}: {start + len(found)} bytes or fewer, not {end}; push it again"
            )
        return found

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes; None for a missing one."""
        with self._one_line(path, "read"):
            try:
                return int(self._files.info(self._at(path))["size"])
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none for a missing one."""
        with self._one_line(folder, "listed"):
            try:
                found = self._files.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found} - {"", folder})

    def upload(self, source: Path, path: str) -> None:
        """Write a file; in an object store it is there whole or not at all."""
        with self._one_line(path, "written"):
            self._make_folder(path)
            try:
                self._files.put_file(str(source), self._at(path))
            except FileNotFoundError as error:
                raise InputError(f"{source}: was removed meanwhile; push again") from error

    def write(self, path: str, content: str) -> None:
        """Write a small file."""
        with self._one_line(path, "written"):
            self._make_folder(path)
            self._files.pipe_file(self._at(path), content.encode())

    def remove(self, path: str, folder: bool = False) -> None:
        """Remove a file, or a folder with what is in it; a missing one is no error."""
        with self._one_line(path, "removed"):
            try:
                self._files.rm(self._at(path), recursive=folder)
            except FileNotFoundError:
                return

    def current(self) -> str | None:
        """Return the version that CURRENT names; None where nothing has been pushed.

        Raises:
            InputError: it cannot be read, or names no version.
        """
        content = self.read(CURRENT)
        if content is None:
            return None
        version = content.decode(errors="replace").strip()
        if not is_version(version):
            raise InputError(f"{self.name}/{CURRENT}: holds no name of a version: {version[:60]!r}")
        return version

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _make_folder(self, path: str) -> None:
        """Make the folder of a file where folders exist; in a bucket they are parts of names."""
        if self._files.protocol in ("local", ("file", "local"), "memory", "sftp"):
            self._files.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _one_line(self, path: str, done: str) -> Iterator[None]:
        try:
            yield
        except (InputError, FileNotFoundError):
            raise
        except NotImplementedError as error:
            raise InputError(f"{self.name}: cannot be {done}; this kind of address is read only") from error
        except Exception as error:  # each file system has exceptions of its own
            raise InputError(f"{self.name}/{path}: cannot be {done} ({_said(error)})") from error


def without_credentials(text: str) -> str:
    """Return an address, or a text with addresses, without users, passwords and parameters."""
    return _QUERY.sub("", _CREDENTIALS.sub("", text))


def _said(error: Exception) -> str:
    """Return the type and the first line of an error, without credentials."""
    if isinstance(error, ObjectStoreError):
        return without_credentials(str(error))[:_LONGEST]
    lines = str(error).strip().splitlines()
    text = without_credentials(lines[0] if lines else "")
    return f"{type(error).__name__}: {text[:_LONGEST]}" if text else type(error).__name__
