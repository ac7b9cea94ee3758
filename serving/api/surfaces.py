"""The shop's defaults for the lists of a surface: its home page, product pages, cart, mails.

They come from a file, so that merchandisers can change them without a release of the storefront; fields of a
request override them. The file is reloaded when it changes. Defaults that are invalid for the model are never
used: at start-up they are an error, later the former ones stay in use, and a new model for which they are
invalid is not served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import yaml  # type: ignore[import-untyped]

from conf.errors import InputError
from ranking.catalogue.filter_language import AttributeKind, FilterError, attribute_kinds, compile_filter
from serving.api import validation
from serving.api.list_rules import check_rules
from serving.core.errors import ApiError
from serving.core.list_defaults import parse_defaults
from serving.core.poller import Poller, file_version
from serving.model.interfaces import Model
from shelfwise_client.v1 import recommendations_pb2 as pb

_POLL_SECONDS: Final = 1.0
_NOTHING: Final = pb.SurfaceDefaults()


class Surfaces:
    """The defaults by surface; create it inside a running event loop."""

    def __init__(
        self, path: Path | None, model: Model, declared: Mapping[str, AttributeKind] | None = None
    ) -> None:
        """Read the file.

        Args:
            path: the file; None for no defaults.
            model: validates them.
            declared: see `check`.

        Raises:
            InputError: the file cannot be read, or its defaults are invalid for the model.
        """
        self._path = path
        self._file_version = None if path is None else file_version(path)
        self.defaults: dict[str, pb.SurfaceDefaults] = {} if path is None else read_surfaces(path)
        """By surface."""
        self.check(model, declared)
        self._model: Callable[[], Model] = lambda: model
        self.poller = Poller(
            self._poll, _POLL_SECONDS, "the surfaces' former defaults stay in use", (InputError,)
        )
        """Reloads the file when it changes, from `start` on."""

    def of(self, surface: str) -> pb.SurfaceDefaults:
        """Return the defaults of a surface; empty where there are none."""
        return self.defaults.get(surface, _NOTHING)

    def check(self, model: Model, declared: Mapping[str, AttributeKind] | None = None) -> None:
        """Check the defaults against a model.

        Args:
            model: the model.
            declared: declared attributes that its catalogue does not have yet.

        Raises:
            InputError: naming the surface and its invalid field.
        """
        _check(self._path, self.defaults, model, declared or {})

    def start(self, model: Callable[[], Model]) -> None:
        """Poll the file from now on; `model` returns the served model, which validates new defaults."""
        self._model = model
        if self._path is not None:
            self.poller.start()

    async def _poll(self) -> None:
        assert self._path is not None
        version = await asyncio.to_thread(file_version, self._path)
        if version == self._file_version:
            return
        defaults = await asyncio.to_thread(read_surfaces, self._path)
        _check(self._path, defaults, self._model(), {})
        self.defaults, self._file_version = defaults, version


def read_surfaces(path: Path) -> dict[str, pb.SurfaceDefaults]:
    """Return the defaults in a YAML or JSON file of surface -> fields of `SurfaceDefaults`.

    Raises:
        InputError: it cannot be read, or an entry is invalid.
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
        except ApiError as problem:
            raise InputError(f"{path}: '{name}': {problem.message}") from problem
        defaults[name] = parse_defaults(entry, f"{path}: {name}")
    return defaults


def _check(
    path: Path | None,
    defaults: dict[str, pb.SurfaceDefaults],
    model: Model,
    declared: Mapping[str, AttributeKind],
) -> None:
    for name, entry in defaults.items():
        check_defaults(f"{path}: {name}", entry, model, declared)


def check_defaults(
    where: str, entry: pb.SurfaceDefaults, model: Model, declared: Mapping[str, AttributeKind]
) -> None:
    """Check defaults of lists against a model.

    Args:
        where: begins the error's message.
        entry: the defaults.
        model: the model.
        declared: see `Surfaces.check`.

    Raises:
        InputError: naming the invalid field.
    """
    columns = model.catalogue.filtered(declared)
    try:
        for field in ("diversity", "novelty"):
            if entry.HasField(field):
                validation.share(field, getattr(entry, field))
        check_rules(entry.rules, attribute_kinds(columns))
    except ApiError as problem:
        raise InputError(f"{where}: {problem.message}") from problem
    for index, boost in enumerate(entry.rules.boosts):
        try:
            compile_filter(columns, boost.filter)
        except FilterError as error:
            raise InputError(f"{where}: rules.boosts[{index}].filter: {error}") from error
