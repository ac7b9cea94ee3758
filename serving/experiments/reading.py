"""The file of experiments, YAML or JSON: reading and checking. docs/experiments.md describes it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from conf.errors import InputError, closest
from features.ingest.privacy import PSEUDONYM
from serving.core.list_defaults import parse_defaults
from serving.experiments.definitions import (
    CURRENT_MODEL,
    MAX_LAYERS,
    PREVIOUS_MODEL,
    Arm,
    Experiment,
    apart,
    exclusive,
)
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_EXPERIMENTS: Final = 50
MAX_ARMS: Final = 10
MAX_BYTES: Final = 4_194_304
_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_SALT: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SURFACE: Final = re.compile(r"[a-z0-9_-]{1,64}")
_VERSION: Final = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")
_ROUNDING: Final = 1e-9
"""How far a sum of shares may exceed 1: three times 0.3333333333333334."""
_KEYS: Final = (
    "arms", "enabled", "end", "exclude_users", "layer", "salt", "slice", "start", "surfaces", "unit",
)  # fmt: skip
_ARM_KEYS: Final = ("lists", "share", "version")
StoredId = Callable[[str], str]
"""Returns the id under which the state stores a user."""


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a mapping with two equal keys, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: ANN401 - untyped
        """Return a mapping with distinct keys."""
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # `<<`, whose keys a mapping may replace
                continue
            name = self.construct_object(key, deep=True)
            if isinstance(name, str) and name in seen:
                raise yaml.YAMLError(
                    f"'{name}' is there twice, the second time in line {key.start_mark.line + 1}"
                )
            seen.add(name if isinstance(name, str) else id(key))
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def read_experiments(path: Path, stored_id: StoredId = lambda user: user) -> tuple[Experiment, ...]:
    """Return the experiments of a file, in its order.

    Args:
        path: the file.
        stored_id: maps user ids of `exclude_users` to those of the state.

    Raises:
        InputError: the file cannot be read, or is invalid; the message names experiment and field.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: more than {MAX_BYTES:,} bytes; put excluded users into a file of their own"
            )
        content = yaml.load(path.read_text(), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: neither YAML nor JSON ({' '.join(str(error).split())})") from error
    if content is None:
        return ()
    if not isinstance(content, dict):
        raise InputError(f"{path}: write one entry per experiment, for example `ranking: {{arms: ...}}`")
    if len(content) > MAX_EXPERIMENTS:
        raise InputError(f"{path}: {len(content)} experiments; at most {MAX_EXPERIMENTS}")
    experiments = tuple(_experiment(path, name, entry, stored_id) for name, entry in content.items())
    _check_together(path, experiments)
    return experiments


def _experiment(path: Path, name: object, entry: object, stored_id: StoredId) -> Experiment:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{path}: '{str(name)[:64]}' is no name of an experiment; use 1 to 32 characters of a-z 0-9 _ -, "
            "in quotes where YAML would read something else"
        )
    where = f"{path}: {name}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: is not a mapping of {', '.join(_KEYS)}")
    _known(where, entry, _KEYS)
    unit = entry.get("unit", "user")
    if unit not in ("user", "session"):
        raise InputError(f"{where}.unit: '{str(unit)[:64]}'; write user or session")
    salt = _text(where, "salt", entry.get("salt", name), _SALT, "1 to 64 characters of A-Z a-z 0-9 _ . -")
    start, end = (_time(where, field, entry.get(field)) for field in ("start", "end"))
    if start is not None and end is not None and end <= start:
        raise InputError(f"{where}.end: is not after start")
    layer = entry.get("layer", "")
    if layer != "":
        layer = _text(where, "layer", layer, _NAME, "1 to 32 characters of a-z 0-9 _ -")
    if bool(layer) != ("slice" in entry):
        raise InputError(
            f"{where}.slice: layer and slice need each other; write for example "
            "layer: ranking and slice: [0, 0.5]"
        )
    given = entry.get("exclude_users", [])
    excluded, excluded_file = _excluded(where, given, path.parent, stored_id)
    return Experiment(
        name=name,
        arms=_arms(where, entry.get("arms")),
        salt=salt,
        by_session=unit == "session",
        surfaces=_surfaces(where, entry.get("surfaces", [])),
        excluded=excluded,
        excluded_file=excluded_file,
        enabled=_flag(where, "enabled", entry.get("enabled", True)),
        start=start,
        end=end,
        layer=layer,
        slice=_slice(where, entry["slice"]) if layer else (0.0, 1.0),
    )


def _arms(where: str, entry: object) -> tuple[Arm, ...]:
    if not isinstance(entry, dict) or not entry:
        raise InputError(
            f"{where}.arms: write a mapping of arms, for example "
            "{control: {share: 0.5}, new: {share: 0.5}}"
        )
    if len(entry) > MAX_ARMS:
        raise InputError(f"{where}.arms: {len(entry)} arms; at most {MAX_ARMS}")
    arms = tuple(_arm(f"{where}.arms", name, arm) for name, arm in entry.items())
    total = math.fsum(arm.share for arm in arms)
    if total > 1 + _ROUNDING:
        raise InputError(f"{where}.arms: the shares sum to {total:g}; at most 1")
    return arms


def _arm(where: str, name: object, entry: object) -> Arm:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{where}: '{str(name)[:64]}' is no name of an arm; use 1 to 32 characters of a-z 0-9 _ -, "
            "in quotes where YAML would read something else"
        )
    where = f"{where}.{name}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: is not a mapping of {', '.join(_ARM_KEYS)}")
    _known(where, entry, _ARM_KEYS)
    if "share" not in entry:
        raise InputError(f"{where}.share: is missing; write a number from 0 to 1")
    share = _number(f"{where}.share", entry["share"])
    version = entry.get("version")
    if version is not None and not (
        isinstance(version, str)
        and (version in (CURRENT_MODEL, PREVIOUS_MODEL) or _VERSION.fullmatch(version))
    ):
        raise InputError(
            f"{where}.version: '{str(version)[:64]}'; write current, previous, or the name of a version, "
            "for example 20240531T120000Z-3f2a9c41d07e"
        )
    lists = parse_defaults(entry["lists"], f"{where}.lists") if "lists" in entry else pb.SurfaceDefaults()
    return Arm(name, share, version, lists)


def _check_together(path: Path, experiments: tuple[Experiment, ...]) -> None:
    """Check experiments that may meet in one list: what they set, their salts, slices and units."""
    enabled = [experiment for experiment in experiments if experiment.enabled]
    for one, other in combinations(enabled, 2):
        where = f"{path}: {other.name}"
        if apart(one, other):
            continue
        if one.layer and one.layer == other.layer:
            if one.by_session != other.by_session:
                raise InputError(
                    f"{where}.unit: experiments of one layer have one unit; '{one.name}' has {one.unit}"
                )
            if max(one.slice[0], other.slice[0]) < min(one.slice[1], other.slice[1]):
                raise InputError(f"{where}.slice: overlaps that of '{one.name}' in the layer '{one.layer}'")
        if exclusive(one, other):
            continue
        if one.salt == other.salt:
            raise InputError(
                f"{where}.salt: the same as that of '{one.name}', which would assign the same units"
            )
        if shared := sorted(one.fields & other.fields):
            raise InputError(
                f"{where}: sets {shared[0]}, as '{one.name}' does, and a list may be part of both; "
                "give both a layer with slices that do not overlap, or different surfaces"
            )
    for experiment in enabled:
        met = [other for other in enabled if other is experiment or not exclusive(experiment, other)]
        layers = {other.layer or f"/{other.name}" for other in met}
        if len(layers) > MAX_LAYERS:
            raise InputError(
                f"{path}: {experiment.name}: a list may be part of {len(layers)} experiments; "
                f"at most {MAX_LAYERS}"
            )


def _known(where: str, entry: Mapping[Any, Any], known: Iterable[str]) -> None:
    known = tuple(known)
    for key in entry:
        if key not in known:
            name = str(key)[:64]
            raise InputError(f"{where}: no field '{name}'{closest(name, known)}; fields: {', '.join(known)}")


def _text(where: str, field: str, value: object, pattern: re.Pattern[str], allowed: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InputError(f"{where}.{field}: '{str(value)[:64]}'; use {allowed}")
    return value


def _flag(where: str, field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{where}.{field}: '{str(value)[:64]}'; write true or false")
    return value


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{where}: '{str(value)[:64]}' is not a number from 0 to 1")
    return float(value)


def _slice(where: str, value: object) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where}.slice: write two numbers, for example [0, 0.5]")
    begin, end = (_number(f"{where}.slice", number) for number in value)
    if begin >= end:
        raise InputError(f"{where}.slice: {begin:g} is not below {end:g}")
    return begin, end


def _time(where: str, field: str, value: object) -> float | None:
    """Return a time as Unix seconds; one without zone is UTC."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            raise ValueError
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InputError(
            f"{where}.{field}: '{str(value)[:64]}' is no time; write for example 2024-05-31T12:00:00Z"
        ) from None


def _surfaces(where: str, value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(
        isinstance(name, str) and _SURFACE.fullmatch(name) for name in value
    ):
        raise InputError(f"{where}.surfaces: write a list of names of a-z 0-9 _ -, for example [home, cart]")
    return frozenset(value)


def _excluded(
    where: str, value: object, folder: Path, stored_id: StoredId
) -> tuple[frozenset[str], Path | None]:
    """Return the stored ids of excluded users, and the file with one id a line that they are from."""
    where, path = f"{where}.exclude_users", None
    if isinstance(value, str) and value:
        path = folder / value
        try:
            ids: list[Any] = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or "not a text file"
            raise InputError(f"{where}: {path} cannot be read ({reason})") from error
    elif isinstance(value, list):
        ids = value
    else:
        raise InputError(f"{where}: write a list of user ids, or the name of a file with one id a line")
    for user in ids:
        if not isinstance(user, str) or not user:
            raise InputError(f"{where}: '{str(user)[:64]}' is no user id; write ids in quotes")
    stored = (user.removeprefix(PSEUDONYM) if user.startswith(PSEUDONYM) else stored_id(user) for user in ids)
    return frozenset(stored), path
