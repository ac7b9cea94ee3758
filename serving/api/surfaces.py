"""The shop's defaults for the lists of a surface: its home page, product pages, cart, mails.

They are kept in a file beside the server, so that merchandisers can change them without a release of the
storefront; what a request says itself wins. The file is read again when it changes. Defaults that the model
cannot fulfil are never used: at a start they are an error, later those of before stay, and a new model that
does not fit to them is not taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import yaml  # type: ignore[import-untyped]
from google.protobuf import json_format

from conf.errors import InputError
from ranking.catalogue.filter_language import AttributeKind, FilterError, attribute_kinds, compile_filter
from serving.api import validation
from serving.api.list_rules import check_rules
from serving.core.errors import ApiError
from serving.core.poller import Poller, mark_of
from serving.model.interfaces import Model
from shelfwise_client.v1 import recommendations_pb2 as pb

_LOOK_SECONDS: Final = 1.0
_NOTHING: Final = pb.SurfaceDefaults()


class Surfaces:
    """The defaults by surface; create it inside a running event loop."""

    def __init__(
        self, path: Path | None, model: Model, declared: Mapping[str, AttributeKind] | None = None
    ) -> None:
        """Read the file.

        Args:
            path: the file; None for no defaults.
            model: has to fulfil them.
            declared: as of `check`.

        Raises:
            InputError: the file cannot be read, or says what the model cannot fulfil.
        """
        self._path = path
        self._mark = None if path is None else mark_of(path)
        self.defaults: dict[str, pb.SurfaceDefaults] = {} if path is None else read_surfaces(path)
        """By name of the surface."""
        self.check(model, declared)
        self._model: Callable[[], Model] = lambda: model
        self.watch = Poller(
            self._look, _LOOK_SECONDS, "the surfaces' defaults of before stay in use", (InputError,)
        )
        """Reads the file again whenever it changes, once `start` was called."""

    def of(self, surface: str) -> pb.SurfaceDefaults:
        """Return the defaults of a surface; empty where there are none."""
        return self.defaults.get(surface, _NOTHING)

    def check(self, model: Model, declared: Mapping[str, AttributeKind] | None = None) -> None:
        """Check the defaults against a model.

        Args:
            model: has to fulfil them.
            declared: attributes that its items are going to have beside those that it has now.

        Raises:
            InputError: naming the surface and the field that the model cannot fulfil.
        """
        _check(self._path, self.defaults, model, declared or {})

    def start(self, model: Callable[[], Model]) -> None:
        """Follow the file from now on; `model` returns the one that has to fulfil what it says."""
        self._model = model
        if self._path is not None:
            self.watch.start()

    async def _look(self) -> None:
        assert self._path is not None
        mark = await asyncio.to_thread(mark_of, self._path)
        if mark == self._mark:
            return
        defaults = await asyncio.to_thread(read_surfaces, self._path)
        _check(self._path, defaults, self._model(), {})
        self.defaults, self._mark = defaults, mark


def read_surfaces(path: Path) -> dict[str, pb.SurfaceDefaults]:
    """Read a file of defaults: YAML or JSON, surface -> what `SurfaceDefaults` has.

    Raises:
        InputError: it cannot be read, or something in it is not what it should be.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: neither YAML nor JSON ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: write one entry per surface, for example `home: {{diversity: 0.2}}`")
    defaults = {}
    for name, entry in content.items():
        try:
            if not isinstance(name, str) or not validation.surface(name):
                raise InputError(f"{path}: '{name}' is no surface; use 1 to 64 characters of a-z 0-9 _ -")
            defaults[name] = json_format.ParseDict(entry, pb.SurfaceDefaults())
        except ApiError as problem:
            raise InputError(f"{path}: '{name}': {problem.message}") from problem
        except (json_format.ParseError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: {name}: {_in_short(error)}") from error
    return defaults


def _check(
    path: Path | None,
    defaults: dict[str, pb.SurfaceDefaults],
    model: Model,
    declared: Mapping[str, AttributeKind],
) -> None:
    columns = model.catalogue.filtered(declared)
    known = attribute_kinds(columns)
    for name, entry in defaults.items():
        where = f"{path}: {name}"
        try:
            for field in ("diversity", "novelty"):
                if entry.HasField(field):
                    validation.share(field, getattr(entry, field))
            check_rules(entry.rules, known)
        except ApiError as problem:
            raise InputError(f"{where}: {problem.message}") from problem
        for index, boost in enumerate(entry.rules.boosts):
            try:
                compile_filter(columns, boost.filter)
            except FilterError as error:
                raise InputError(f"{where}: rules.boosts[{index}].filter: {error}") from error


def _in_short(error: Exception) -> str:
    """Say what is wrong with an entry, without the names of Python's and protobuf's types."""
    if not isinstance(error, json_format.ParseError):
        return "is not a mapping of fields"
    text = " ".join(str(error).split()).replace('"shelfwise.v1.', '"')
    return text.partition(" Available Fields")[0].rstrip(".")
