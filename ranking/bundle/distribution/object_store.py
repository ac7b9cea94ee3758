"""Buckets of S3, Google Cloud Storage and Azure, by the library obstore.

It has the methods of fsspec that `Remote` calls, so that a bucket is a file system like any other. One small
library reads all three clouds; fsspec's own packages bring an SDK for each.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from conf.errors import InputError

PROTOCOLS: Final = ("s3", "gs", "gcs", "abfs", "abfss")
_RETRIES: Final = 3
_RETRY_SECONDS: Final = 30
_PAUSE: Final = timedelta(milliseconds=200)
"""Before a request is repeated the first time; twice as long each time after."""
_CONNECT_SECONDS: Final = 10
_REQUEST_SECONDS: Final = 120
"""Longest time of one request: 8 MiB at 70 KB a second."""
_MISSING_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound")
_BODY: Final = "request or response body error"
_REQUEST: Final = re.compile(
    r"Error performing (?P<method>[A-Z]+) (?P<url>\S+) in .*? - (?P<what>.*?)(?=: <\?xml|: \{|:? *\n|$)",
    re.DOTALL,
)
"""A failed request in an error of the library; the duration and the number of tries are left out, so that
the same failure has the same message."""
_CODE: Final = re.compile(r"<Code>(\w+)</Code>(?:\s*<Message>([^<]*)</Message>)?")
_KEYS: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class ObjectStoreError(Exception):
    """A request failed; its text is one line."""


class _BrokenConnectionError(ObjectStoreError):
    """A response ended early, which the library does not repeat as it does other failures."""


class ObjectStore:
    """The objects below an address. Safe for use by several threads."""

    protocol = "object store"

    def __init__(self, address: str) -> None:
        """Open an address; nothing is read yet.

        Raises:
            InputError: credentials are where they are not read.
            ValueError: the address names no bucket, or has parameters.
            ObjectStoreError: the library refuses it.
        """
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        parts = urlsplit(address)
        if not parts.hostname:
            raise ValueError(f"no bucket in {parts.scheme}://")
        if parts.query:
            raise ValueError(
                "parameters of an address are not read: set AWS_REGION, AWS_ENDPOINT_URL and so on"
            )
        if parts.scheme == "s3":
            _check_credentials()
        self._bucket = (
            parts.username if parts.scheme.startswith("abfs") and parts.username else parts.hostname
        )
        scheme = "gs" if parts.scheme == "gcs" else parts.scheme
        host = parts.netloc if scheme.startswith("abfs") else parts.netloc.rpartition("@")[2]
        try:
            self._store = from_url(
                f"{scheme}://{host}{parts.path}",
                client_options={
                    "allow_http": _endpoint().startswith("http://"),
                    "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                    "timeout": timedelta(seconds=_REQUEST_SECONDS),
                },
                retry_config={
                    "max_retries": _RETRIES,
                    "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
                    "backoff": {"init_backoff": _PAUSE, "max_backoff": 8 * _PAUSE, "base": 2},
                },
            )
        except BaseError as error:
            raise ObjectStoreError(reason(error)) from error

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return an object, or some of its bytes.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectStoreError: it cannot be read.
        """
        if start is not None and end is not None:
            with _Failures(self._bucket):  # whose caller tries again
                return bytes(self._store.get_range(_key(path), start=start, end=end))
        for _ in range(_RETRIES):
            with suppress(_BrokenConnectionError), _Failures(self._bucket):
                return bytes(self._store.get(_key(path)).bytes())
        with _Failures(self._bucket):
            return bytes(self._store.get(_key(path)).bytes())

    def info(self, path: str) -> dict[str, Any]:
        """Return the size of an object; raises as `cat_file` does."""
        with _Failures(self._bucket):
            return {"size": self._store.head(_key(path))["size"]}

    def ls(self, path: str, detail: bool) -> list[str]:
        """Return the paths of what is directly below a path; none for a missing one."""
        assert not detail
        with _Failures(self._bucket):
            found = self._store.list_with_delimiter(_key(path))
        return [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]

    def put_file(self, source: str, path: str) -> None:
        """Write an object from a file, in parts where it is large: it is there whole or not at all."""
        with Path(source).open("rb") as file, _Failures(self._bucket):
            self._store.put(_key(path), file)

    def pipe_file(self, path: str, content: bytes) -> None:
        """Write an object."""
        with _Failures(self._bucket):
            self._store.put(_key(path), content)

    def rm(self, path: str, recursive: bool) -> None:
        """Remove an object, or all below a path; a missing one is no error."""
        with _Failures(self._bucket):
            if not recursive:
                self._store.delete(_key(path))
                return
            for found in self._store.list(_key(path)):
                self._store.delete([entry["path"] for entry in found])


class _Failures:
    """Context in which an error of the library is one line."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Translate; an object that is not there stays a FileNotFoundError where its bucket is there."""
        from obstore.exceptions import BaseError

        if isinstance(error, FileNotFoundError | BaseError):
            text = str(error)
            if any(code in text for code in _MISSING_BUCKET):
                raise ObjectStoreError(f"there is no bucket {self._bucket!r}") from error
            if _BODY in text:
                raise _BrokenConnectionError("the connection broke") from error
            if isinstance(error, BaseError):
                raise ObjectStoreError(reason(error)) from error


def reason(error: Exception) -> str:
    """Return what an error of the library says, in one line that is the same each time.

    Its texts are several lines with the response's body, durations and request ids.
    """
    text = str(error)
    first = text.split("\n", 1)[0]
    request, code = _REQUEST.search(text), _CODE.search(text)
    if request is None:
        return first
    host = urlsplit(request["url"])
    if "kind: Connect" in text:
        return f"{request['method']} {host.scheme}://{host.netloc}: cannot connect"
    said = request["what"].strip().replace("Server returned non-2xx status code: ", "")
    if code is not None:
        said += f", {code[1]}" + (f": {code[2].strip()}" if code[2] else "")
    return f"{request['method']} {host.scheme}://{host.netloc}: {said}"


def _key(path: str) -> str:
    return path.lstrip("/")


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _check_credentials() -> None:
    """Refuse a profile, which the library does not read: it would try the machine's role instead."""
    if any(os.environ.get(name) for name in _KEYS):
        return
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.expanduser("~/.aws/credentials")
    profile = os.environ.get("AWS_PROFILE") or ("default" if os.access(file, os.R_OK) else "")
    if profile:
        raise InputError(
            f"the profile {profile!r} of AWS is not read; put its keys into the environment: "
            f'eval "$(aws configure export-credentials --profile {profile} --format env)"'
        )
