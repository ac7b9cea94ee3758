"""Copies of the store in a Redis while servers use it, and their way back: a line of JSON per part of a key.

A copy holds everything acknowledged before it began, and the keys of each user as of one moment. It is no
snapshot of one moment as a whole: that needs a fork of Redis, with the keys of all other programs in it.
Users who were deleted meanwhile are taken out at the end. A restore fills keys under another prefix, and one
script puts them in the place of the former.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError

from conf.errors import InputError
from features.files.modes import create_private
from serving.state.copies import Counts, Erasures, erasure_name, erasures_since
from serving.state.redis.store import RedisStore

_USERS_PER_READ: Final = 32
_ENTRIES: Final = 1_000
"""Entries per line, and per read of a long key."""
_ARRIVAL: Final = re.compile(r'^\["1(\d{17})\d{5}"')
"""Beginning of a recorded interaction: its arrival, by which the feed has it, too."""
_OF_USERS: Final = ("interactions", "impressions", "known")
_AT_ONCE: Final = (
    "items",
    "attributes",
    "deleted-users",
    "imports",
    "item-revisions",
    "deleted-items",
    "attribute-revisions",
)
"""Keys that are read together: item changes must not be newer than the revision that is acknowledged."""
_SORTED: Final = frozenset({"item-revisions", "deleted-items", "attribute-revisions"})
_KEYS: Final = ("store", "users", "feed", "item-vectors", "importing", *_OF_USERS, *_AT_ONCE)
"""Every key of a store, those of a user without the user's hash."""
_STAGED: Final = "restoring:"
_SWAP: Final = """
-- Put the keys that begin with ARGV[2] in the place of the store's keys that begin with ARGV[1]; ARGV[3] and
-- ARGV[4] are patterns of all keys and of the new ones, the rest are the names of a store's keys. Other keys
-- that begin so stay: 'shop:' is also the beginning of the keys of a store with the prefix 'shop:test:'.
local own, killed, of_user = {}, '^restoring:%x+:', ':' .. string.rep('%x', 32) .. '$'
for number = 5, #ARGV do
  own[ARGV[number]] = true
end

local function found(pattern)
  local cursor, names = '0', {}
  repeat
    local page = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
    cursor = page[1]
    for _, name in ipairs(page[2]) do
      names[#names + 1] = name
    end
  until cursor == '0'
  return names
end

for _, name in ipairs(found(ARGV[3])) do
  local key = string.gsub(string.gsub(string.sub(name, #ARGV[1] + 1), killed, ''), of_user, '')
  if own[key] and string.sub(name, 1, #ARGV[2]) ~= ARGV[2] then
    redis.call('UNLINK', name)
  end
end
for _, name in ipairs(found(ARGV[4])) do
  if redis.call('EXISTS', name) == 1 then
    redis.call('RENAME', name, ARGV[1] .. string.sub(name, #ARGV[2] + 1))
  end
end
"""

Entries = list[tuple[Any, Any]]
"""Field and value of a hash, or member and score of a sorted set."""


@dataclass(frozen=True)
class _Part:
    """A line: some entries of a key."""

    key: str
    """Without the prefix."""
    sorted: bool
    """Whether it is a sorted set, not a hash."""
    entries: Entries

    def line(self) -> str:
        """Return the line; values that are no text are in base64."""
        entries = [[_json_value(name), _json_value(value)] for name, value in self.entries]
        return json.dumps([self.key, "zset" if self.sorted else "hash", entries], ensure_ascii=False) + "\n"

    @classmethod
    def of(cls, line: str) -> _Part:
        """Read a line."""
        key, kind, entries = json.loads(line)
        values = [
            (_bytes(name), _bytes(value) if kind == "hash" else float(value)) for name, value in entries
        ]
        return cls(key, kind == "zset", values)


@dataclass
class _Without:
    """Takes erased users out of parts in their order: users first, the feed after them."""

    erasures: Erasures
    salt: bytes
    users: int = 0
    events: int = 0
    erased: int = 0
    _arrivals: set[bytes] = field(default_factory=set)

    def kept(self, part: _Part) -> _Part | None:
        """Return what is left of a part; None for nothing."""
        name, _, user = part.key.partition(":")
        if name in _OF_USERS and user in self.erasures:
            if name == "interactions":
                found = (_ARRIVAL.match(member.decode()) for member, _ in part.entries)
                self._arrivals |= {match.group(1).lstrip("0").encode() for match in found if match}
            return None
        entries = part.entries
        if part.key == "users":
            entries = [e for e in entries if erasure_name(e[0].decode(), self.salt) not in self.erasures]
            self.erased += len(part.entries) - len(entries)
            self.users += len(entries)
        elif part.key == "feed" and self._arrivals:
            entries = [e for e in entries if e[0][1:].partition(b",")[0] not in self._arrivals]
        elif name in ("interactions", "impressions"):
            self.events += len(entries)
        return _Part(part.key, part.sorted, entries) if entries else None


async def copy_store(store: RedisStore, target: Path) -> Counts:
    """Write a copy of an open store into a file, and return what it holds; servers may run meanwhile.

    Raises:
        StateUnavailableError: Redis failed.
        InputError: the file cannot be written.
    """
    began = await _description(store)
    create_private(target)
    try:
        with gzip.open(target, "wt", compresslevel=1, encoding="utf-8") as file:
            async for part in _parts(store, int(began.get(b"last_arrival") or 0)):
                file.write(part.line())
            last = {part.key: part for part in await _together(store)}
            description = dict(last.pop("store").entries)
            file.writelines(part.line() for part in last.values())
    except OSError as error:
        raise InputError(f"{target.parent}: cannot be written ({error.strerror})") from error
    deleted = last["deleted-users"].entries if "deleted-users" in last else []
    meanwhile = _deleted_after(deleted, int(began.get(b"deletions") or 0))
    without = _Without(meanwhile, bytes(began[b"salt"]))
    description[b"acknowledged"] = _acknowledged(description, last)
    _rewrite(target, without, description)
    items = len(last["items"].entries) if "items" in last else 0
    return Counts(without.users, without.events, items, len(deleted), int(description[b"format"] or 0))


async def restore_store(store: RedisStore, source: Path, prefix: str, erasures: Erasures) -> int:
    """Put a copy in the place of the store under a prefix, without users erased since; return their number.

    Raises:
        StateUnavailableError: Redis failed; the former content is still there.
    """
    staged = f"{prefix}{_STAGED}{secrets.token_hex(6)}:"
    try:
        return await _swap_in(store, source, prefix, staged, erasures)
    except BaseException:  # a copy that stays would take the memory that the servers need
        with suppress(RedisError):
            async for key in store.client.scan_iter(match=_escaped(staged) + "*", count=1000):
                await store.client.unlink(key)
        raise


async def _swap_in(store: RedisStore, source: Path, prefix: str, staged: str, erasures: Erasures) -> int:
    """Fill the keys that begin with `staged`, and put them in the place of the store; see `restore_store`."""
    client = store.client
    description = _described(source)
    without = _Without(erasures, bytes(description[b"salt"]))
    for part in _read(source):
        if part.key == "store" or (kept := without.kept(part)) is None:
            continue
        key = f"{staged}{kept.key}".encode()
        mapping: dict[Any, Any] = dict(kept.entries)
        call = client.zadd if kept.sorted else _hset(client)
        await store.execute(lambda call=call, key=key, mapping=mapping: call(key, mapping))  # type: ignore[misc]
    deletions = int(description.get(b"deletions") or 0)
    for number, (user, deleted_us) in enumerate(erasures.items(), start=1):
        value = f"{deleted_us}:{deletions + number}"
        await store.execute(lambda u=user, v=value: client.hset(f"{staged}deleted-users", u, v))  # type: ignore[misc]
    description[b"id"] = secrets.token_hex(8).encode()  # running servers have applied item changes of another
    description[b"events"] = str(without.events).encode()
    description[b"deletions"] = str(deletions + len(erasures)).encode()
    await store.execute(lambda: _hset(client)(f"{staged}store".encode(), description))
    patterns = [_escaped(prefix) + "*", _escaped(staged) + "*"]
    await store.execute(lambda: client.eval(_SWAP, 0, prefix, staged, *patterns, *_KEYS))
    return without.erased


async def erasures_of_store(store: RedisStore, source: Path) -> Erasures:
    """Return the erasures of an open store that a copy does not have yet; none if the salts differ."""
    if bytes(_described(source)[b"salt"]) != store.salt:
        return {}
    found: Any = await store.execute(lambda: store.client.hgetall(store.key("deleted-users")))
    copied: Entries = [entry for part in _read(source, "deleted-users") for entry in part.entries]
    return erasures_since(_deleted_after(list(found.items())), _deleted_after(copied))


async def _parts(store: RedisStore, last_arrival: int) -> AsyncIterator[_Part]:
    """Yield users, their keys, the feed and the vectors, a part at a time.

    Args:
        store: an open store.
        last_arrival: end of the feed in the copy. Events that arrive later may be missing in the keys of
            their users, which were read before, and an erasure could not find them in the feed.
    """
    client: Any = store.client
    last = b""
    while True:
        first = b"(" + last if last else b"-"
        page: Any = await store.execute(
            lambda first=first: client.zrangebylex(  # type: ignore[misc]
                store.key("users"), first, b"+", start=0, num=_USERS_PER_READ
            )
        )
        if not page:
            break
        last = page[-1]
        for part in await _of_users(store, page):
            yield part
    position = "-inf"
    while entries := await store.execute(
        lambda position=position: client.zrangebyscore(  # type: ignore[misc]
            store.key("feed"), position, last_arrival, start=0, num=_ENTRIES, withscores=True
        )
    ):
        position = f"({entries[-1][1]:.0f}"
        yield _Part("feed", True, list(entries))
    cursor = None
    while cursor != 0:
        cursor, vectors = await store.execute(
            lambda cursor=cursor: client.hscan(store.key("item-vectors"), cursor or 0, count=_ENTRIES)  # type: ignore[misc]
        )
        if vectors:
            yield _Part("item-vectors", False, list(vectors.items()))


async def _of_users(store: RedisStore, users: Sequence[bytes]) -> list[_Part]:
    """Return the keys of some users as of one moment, and the users that still exist then."""
    hashes = [erasure_name(user.decode(), store.salt) for user in users]

    async def read() -> list[Any]:
        pipeline = store.client.pipeline(transaction=True)
        for name in hashes:
            for key in _OF_USERS[:2]:
                pipeline.zrange(store.key(key, name.encode()), 0, -1, withscores=True)
            pipeline.hkeys(store.key("known", name.encode()))
        return list(await pipeline.execute())

    found = iter(await store.execute(read))
    parts: list[_Part] = []
    here: Entries = []
    for user, name in zip(users, hashes, strict=True):
        interactions, impressions, known = next(found), next(found), next(found)
        if known:
            here.append((user, 0.0))
            parts += _divided(f"interactions:{name}", True, interactions)
            parts += _divided(f"impressions:{name}", True, impressions)
            parts += _divided(f"known:{name}", False, [(event, b"") for event in known])
    return [*parts, *_divided("users", True, here)]


async def _together(store: RedisStore) -> list[_Part]:
    """Return item changes, deletions and the description of the store, as of one moment."""

    async def read() -> list[Any]:
        pipeline = store.client.pipeline(transaction=True)
        for name in _AT_ONCE:
            if name in _SORTED:
                pipeline.zrange(store.key(name), 0, -1, withscores=True)
            else:
                pipeline.hgetall(store.key(name))
        pipeline.hgetall(store.key("store"))
        return list(await pipeline.execute())

    parts = []
    for name, found in zip((*_AT_ONCE, "store"), await store.execute(read), strict=True):
        entries: Entries = list(found) if name in _SORTED else list(found.items())
        if entries:
            parts.append(_Part(name, name in _SORTED, entries))
    return parts


async def _description(store: RedisStore) -> dict[bytes, Any]:
    found: Any = await store.execute(lambda: store.client.hgetall(store.key("store")))
    return dict(found)


def _deleted_after(deleted: Entries, number: int = 0) -> Erasures:
    """Return the users whose deletion has a greater number than the given one, from 1 on."""
    found = {}
    for user, value in deleted:
        until, _, of_user = value.partition(b":")
        if int(of_user) > number:
            found[user.decode()] = int(until)
    return found


def _acknowledged(description: Mapping[bytes, Any], parts: Mapping[str, _Part]) -> bytes:
    """Return the acknowledged revision, at most the newest one of the copy: servers wait for it."""
    revisions = [
        float(score or 0)
        for key in ("item-revisions", "attribute-revisions")
        if key in parts
        for _, score in parts[key].entries
    ]
    return f"{min(int(description.get(b'acknowledged') or 0), int(max(revisions, default=0)))}".encode()


def _rewrite(target: Path, without: _Without, description: dict[bytes, Any]) -> None:
    """Write the file anew, the description of the store first, without users deleted while it was written."""
    fresh = target.with_name(f"{target.name}.new")
    create_private(fresh)
    with gzip.open(fresh, "wt", compresslevel=1, encoding="utf-8") as file:
        file.write(_Part("store", False, list(description.items())).line())
        for part in _read(target):
            kept = without.kept(part)
            if kept is not None:
                file.write(kept.line())
    fresh.replace(target)


def _described(source: Path) -> dict[bytes, Any]:
    """Return the description of the store in a copy: its first line."""
    part = next(_read(source), None)
    if part is None or part.key != "store":
        raise InputError(f"{source}: does not begin with a description of the store; take another backup")
    return dict(part.entries)


def _read(source: Path, key: str = "") -> Iterator[_Part]:
    """Yield the parts of a copy, or those of one key."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        for line in file:
            if line.startswith(f'["{key}'):
                yield _Part.of(line)


def _divided(key: str, is_sorted: bool, entries: Entries) -> Iterator[_Part]:
    for start in range(0, len(entries), _ENTRIES):
        yield _Part(key, is_sorted, entries[start : start + _ENTRIES])


def _json_value(value: Any) -> Any:  # noqa: ANN401 - a field, a value, or a score
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _bytes(value: Any) -> bytes:  # noqa: ANN401 - JSON
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode()


def _hset(client: Any) -> Any:  # noqa: ANN401 - redis-py's methods have no public type
    return lambda key, mapping: client.hset(key, mapping=mapping)


def _escaped(prefix: str) -> str:
    """Return a prefix as a pattern of Redis that matches it alone."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", prefix)
