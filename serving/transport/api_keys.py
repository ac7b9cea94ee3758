"""API keys with scopes and rate limits; stored as hashes, the key itself is shown once, on creation.

A key is 32 random bytes, so its SHA-256 cannot be brute-forced, and a slow password hash would only add load.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from conf.errors import InputError, closest
from serving.core.poller import file_version

_LOG = logging.getLogger(__name__)
_PREFIX: Final = "sw_"
"""Prefix by which people and secret scanners recognise a key."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SCOPES_HELP: Final = "write 'scopes=[read,events]'; there are read, batch, events, admin"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_POLL_SECONDS: Final = 1.0
"""Shortest time between two checks whether the file has changed."""


class Scope(Enum):
    """What a key permits."""

    read = "read"
    """Lists, search, items and status."""
    batch = "batch"
    """The lists of all users."""
    events = "events"
    """Recording events."""
    admin = "admin"
    """Changing items and their attributes, deleting and exporting users."""


@dataclass(frozen=True)
class ApiKey:
    """One key, as stored."""

    name: str
    """Owner of the key, for logs."""
    sha256: str
    scopes: tuple[Scope, ...]
    requests_per_second: float = 0.0
    """Sustained rate; 0 is unlimited."""
    burst: int = 0
    """Size of the token bucket; 0 takes twice the rate."""

    @property
    def capacity(self) -> float:
        """Size of the token bucket."""
        return float(self.burst or max(1, math.ceil(2 * self.requests_per_second)))


class RateLimit:
    """A token bucket: a sustained rate with bursts."""

    def __init__(self, key: ApiKey, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a full bucket."""
        self._key = key
        self._clock = clock
        self._tokens = key.capacity
        self._at = clock()

    def wait_seconds(self) -> float:
        """Take a token; return 0 if there was one, else the seconds until the next."""
        rate = self._key.requests_per_second
        if rate <= 0:
            return 0.0
        now = self._clock()
        self._tokens = min(self._key.capacity, self._tokens + (now - self._at) * rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / rate


class KeyRing:
    """The keys of a file, reloaded when it changes: a removed key is refused a second later."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read or is no key file.
        """
        self._path = path
        self._keys: list[ApiKey] = []
        self._limits: dict[str, RateLimit] = {}
        self._checked = time.monotonic()
        self._file_version = file_version(path)
        self._replace(read_keys(path))

    def find(self, secret: str) -> ApiKey | None:
        """Return the key with this secret, in a time independent of which one it is."""
        self._reload_if_changed()
        given = hash_key(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    def wait_seconds(self, key: ApiKey) -> float:
        """Take a token from a key's bucket; see `RateLimit.wait_seconds`."""
        limit = self._limits.get(key.sha256)
        return 0.0 if limit is None else limit.wait_seconds()

    def _replace(self, keys: list[ApiKey]) -> None:
        former = {key.sha256: key for key in self._keys}
        kept = {k.sha256: self._limits[k.sha256] for k in keys if former.get(k.sha256) == k}
        self._limits = {key.sha256: kept.get(key.sha256) or RateLimit(key) for key in keys}
        self._keys = keys

    def _reload_if_changed(self) -> None:
        if time.monotonic() - self._checked < _POLL_SECONDS:
            return
        self._checked = time.monotonic()
        version = file_version(self._path)
        if version != self._file_version:
            self._file_version = version
            try:
                self._replace(read_keys(self._path))
            except InputError as error:
                _LOG.error("the former keys stay in use: %s", error)


def hash_key(secret: str) -> str:
    """Return the stored hash of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> list[ApiKey]:
    """Read a key file.

    Raises:
        InputError: naming the entry that is wrong.
    """
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            raise InputError(f"{path}: everybody on this machine could add a key to it; chmod o-w it")
        entries = json.loads(path.read_text())["keys"]
        if not isinstance(entries, list):
            raise TypeError("keys is not a list")
    except OSError as error:
        raise InputError(
            f"{path}: the key file cannot be read ({error.strerror}); `shelfwise create-key` makes one"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a key file; make one with `shelfwise create-key`") from error
    keys = [_entry(path, number, entry) for number, entry in enumerate(entries)]
    for what, values in (("name", [k.name for k in keys]), ("key", [k.sha256 for k in keys])):
        if len(set(values)) < len(values):
            raise InputError(f"{path}: the same {what} twice")
    return keys


def _entry(path: Path, number: int, entry: Any) -> ApiKey:  # noqa: ANN401 - whatever the file holds
    where = f"{path}: keys[{number}]"
    try:
        key = ApiKey(
            name=str(entry["name"]),
            sha256=str(entry["sha256"]),
            scopes=tuple(Scope(scope) for scope in entry["scopes"]),
            requests_per_second=float(entry.get("requests_per_second", 0.0)),
            burst=int(entry.get("burst", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: needs name, sha256 and scopes of {_scope_names()} ({error})") from error
    if not _NAME.fullmatch(key.name) or not _HASH.fullmatch(key.sha256) or not key.scopes:
        raise InputError(f"{where}: needs a name of A-Z a-z 0-9 . _ -, 64 hex digits, and a scope")
    if not (math.isfinite(key.requests_per_second) and key.requests_per_second >= 0 and key.burst >= 0):
        raise InputError(f"{where}: requests_per_second and burst must be 0 or more")
    return key


def _scope_names() -> str:
    return ", ".join(scope.value for scope in Scope)


def _check_arguments(name: str, scopes: Sequence[str]) -> None:
    """Check what a new key is made of, by the names of the command's settings."""
    if not _NAME.fullmatch(name):
        raise InputError(f"name: '{name[:80]}' must have 1 to 64 characters of A-Z a-z 0-9 . _ -")
    known = [scope.value for scope in Scope]
    for scope in scopes:
        if scope not in known:
            raise InputError(f"scopes: there is no scope '{scope}'{closest(scope, known)}; {_SCOPES_HELP}")
    if not scopes:
        raise InputError(f"scopes: a key needs one at least; {_SCOPES_HELP}")


def create_key(
    path: Path, name: str, scopes: Sequence[str], requests_per_second: float = 0.0, burst: int = 0
) -> str:
    """Add a key to a file and return it; a missing file is created, readable by its owner only.

    Raises:
        InputError: the name is invalid or taken, a scope unknown, or the file unusable.
    """
    _check_arguments(name, scopes)
    keys = read_keys(path) if path.exists() else []
    secret = _PREFIX + secrets.token_urlsafe(32)
    entry = {
        "name": name,
        "sha256": hash_key(secret),
        "scopes": list(dict.fromkeys(scopes)),
        "requests_per_second": requests_per_second,
        "burst": burst,
    }
    key = _entry(path, len(keys), entry)
    if any(known.name == name for known in keys):
        raise InputError(f"{path}: there is a key '{name}'; take it out first, or choose another name")
    content = [{**asdict(k), "scopes": [scope.value for scope in k.scopes]} for k in (*keys, key)]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"keys": content}, file, indent=2)
            file.write("\n")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return secret
