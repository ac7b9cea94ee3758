"""`shelfwise recommend-batch`: writes the lists of many users to a file, in bounded memory, resumable.

Lines are appended to `OUTPUT.part`, which is renamed to the output once it is complete. Every line has the
token that resumes the stream after it, so after an interruption (a signal, a power failure, a stopped server)
the same command writes the missing lists.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO, Final

import grpc
from rich.console import Console

from conf.clients import RecommendBatchConfig
from conf.errors import InputError
from features.files.modes import private_opener
from serving.cli.connection import connect, failure_message, parse_time
from serving.state.histories import file_sha256
from shelfwise_client import BatchQuery, Client, RecommendedItem, ServiceError, UserListResult

_USERS_PER_REQUEST: Final = 1_000
"""Users per request: with the longest ids it stays below the server's default message size."""
_STATUS_INTERVAL: Final = 100
"""Lists between two updates of the terminal."""
_TIMEOUT: Final = 5.0


@dataclass
class _Part:
    """The unfinished output file."""

    file: BinaryIO
    lists: int
    """Complete lines in the file."""
    resume_token: str
    """Token of the last line; empty without lines."""

    def add(self, found: UserListResult, fields: frozenset[str]) -> None:
        """Append a user's line."""
        self.file.write(json.dumps(_line(found, fields), ensure_ascii=False).encode() + b"\n")
        self.lists, self.resume_token = self.lists + 1, found.resume_token


def recommend_batch(config: RecommendBatchConfig, console: Console) -> Path:
    """Write the lists of all or some users, resuming an earlier call with the same settings.

    Raises:
        InputError: an unusable file, settings that differ from those of the unfinished file, an unavailable
            server or a refused request; the unfinished file stays for the next call.
    """
    output = Path(config.output)
    if output.exists():
        raise InputError(f"output={output}: is there already, and complete; name another file, or delete it")
    try:
        with _open_part(output, _settings(config)) as part:
            if part.lists:
                console.print(f"resuming after {part.lists:,} lists", highlight=False)
            counts = _write(config, part, console)
            part.file.flush()
            os.fsync(part.file.fileno())
            _part_path(output).replace(output)
        _settings_path(output).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror})") from error
    summary = f"{part.lists:,} lists written to {output}{_summary(counts)}"
    console.print(summary, soft_wrap=True, highlight=False, markup=False)
    return output


def _write(config: RecommendBatchConfig, part: _Part, console: Console) -> Counter[str]:
    """Append the missing lists; return their number by degradation or error reason."""
    counts: Counter[str] = Counter()
    fields = frozenset(_fields(config))
    try:
        with connect(config, _TIMEOUT) as client, console.status("asking for lists") as status:
            for number, found in enumerate(_lists(config, client, part), start=1):
                part.add(found, fields)
                counts[found.degradation if found.error is None else found.error.reason] += 1
                if number % _STATUS_INTERVAL == 0:
                    status.update(f"{part.lists:,} lists")
    except (ServiceError, KeyboardInterrupt) as error:
        why = failure_message(error, config) if isinstance(error, ServiceError) else "stopped"
        kept = f"; {part.lists:,} lists are kept, the same call resumes after them" if part.lists else ""
        raise InputError(f"{why}{kept}") from error
    return counts


def _fields(config: RecommendBatchConfig) -> tuple[str, ...]:
    """Return the fields of the items; empty for all."""
    explained = ("reasons",) if config.explain and config.fields else ()
    return (*config.fields, *explained)


def _lists(config: RecommendBatchConfig, client: Client, part: _Part) -> Iterator[UserListResult]:
    """Yield the lists missing in the unfinished file."""
    query = BatchQuery(
        list_size=config.k,
        filter=config.filter,
        exclude_seen=config.exclude_seen,
        diversity=config.diversity,
        novelty=config.novelty,
        explain=config.explain,
        surface=config.surface,
        fields=_fields(config),
        request_time=parse_time(config.request_time),
    )
    if config.users is None:
        yield from _retried(client, replace(query, resume_token=part.resume_token))
        return
    users = islice(_users(Path(config.users)), part.lists, None)  # one line each, in this order
    while named := tuple(islice(users, _USERS_PER_REQUEST)):
        yield from _retried(client, replace(query, user_ids=named))


def _retried(client: Client, query: BatchQuery) -> Iterator[UserListResult]:
    """Yield the lists of a query; retry after the delay that a server at its limit names."""
    while True:
        try:
            for found in client.batch_recommend(query):
                query = replace(query, resume_token=found.resume_token)
                yield found
            return
        except ServiceError as error:
            if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or error.retry_seconds is None:
                raise
            sleep(error.retry_seconds)


def _users(path: Path) -> Iterator[str]:
    """Yield the ids of a file, one per line; empty lines are skipped."""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if user := line.rstrip("\r\n"):
                    yield user
    except OSError as error:
        raise InputError(f"users={path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"users={path}: is not UTF-8 text") from error


def _settings(config: RecommendBatchConfig) -> dict[str, Any]:
    """Return the settings that must not change when a file is resumed; those of the connection may."""
    settings = asdict(config)
    for name in ("address", "api_key_env", "tls", "output"):
        del settings[name]
    if config.users is not None:
        settings["users"] = file_sha256(Path(config.users))
    return settings


@contextmanager
def _open_part(output: Path, settings: dict[str, Any]) -> Iterator[_Part]:
    """Open the unfinished file under a lock, positioned after its last whole line."""
    path, settings_path = _part_path(output), _settings_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", opener=private_opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{path}: another command is writing it") from error
        part = _read_part(file, path)
        if part.lists:
            former = json.loads(settings_path.read_text()) if settings_path.is_file() else {}
            changed = [name for name, value in settings.items() if former.get(name) != value]
            if changed:
                raise InputError(
                    f"{path}: was begun with other settings ({', '.join(changed)}); use the same ones, "
                    "or delete it to begin anew"
                )
        else:
            settings_path.write_text(json.dumps(settings))
        try:
            yield part
        finally:
            if not part.lists:  # nothing to resume
                path.unlink(missing_ok=True)
                settings_path.unlink(missing_ok=True)


def _read_part(file: BinaryIO, path: Path) -> _Part:
    """Count the whole lines of an unfinished file and truncate a torn one."""
    file.seek(0)
    lists, end, last = 0, 0, b""
    for line in file:
        if not line.endswith(b"\n"):
            break
        lists, end, last = lists + 1, end + len(line), line
    file.truncate(end)
    try:
        return _Part(file, lists, str(json.loads(last)["resume_token"]) if last else "")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a file of this command; delete it, or name another output") from error


def _line(found: UserListResult, fields: frozenset[str]) -> dict[str, Any]:
    line = {
        name: value
        for name, value in asdict(found).items()
        if name not in ("items", "request_id") and value not in (None, "")
    }
    if found.error is None:
        line["items"] = [_item(item, fields) for item in found.items]
    return line


def _item(item: RecommendedItem, fields: frozenset[str]) -> dict[str, Any]:
    values = asdict(item).items()
    return {name: value for name, value in values if value is not None and (name in fields or not fields)}


def _summary(counts: Counter[str]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common()) + ")"


def _part_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.part")


def _settings_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.settings")
