"""Where the machine code of compiled loops is kept, and for which processors it is made.

numba keeps machine code in the first folder that it can write to, and reads no other one. A service that runs
from an image or as a system user can write neither beside the program nor into a home, so it would compile
at every start, though `shelfwise compile` may have left the code beside the program. So code is read from
every place here, and written to the first one that takes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from llvmlite import binding
from numba.core import config as numba_config
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
    _Cache,
)

_NUMBA: Final[Any] = numba_config
"""numba's settings."""
_TARGET_FILE: Final = "target.json"
"""Written by `shelfwise compile` where it keeps the code of this file's folder: what it is made for."""
PORTABLE: Final = {
    "x86-64-v2": ("sse4.2", "popcnt"),
    "x86-64-v3": ("avx2", "bmi2", "fma", "f16c"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma"),
}
"""Levels of x86-64 (its psABI) that code can be made for -> instructions that tell whether a CPU has it."""


class Beside(InTreeCacheLocator):
    """`__pycache__` beside the source file, writable or not."""

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> Beside | None:
        """Return the place, unless the function has no file."""
        return cls(function, source) if os.path.exists(source) else None


class _Named(UserProvidedCacheLocator):
    """The folder that NUMBA_CACHE_DIR names, writable or not."""

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _Named | None:
        """Return the place, if one is named."""
        return cls(function, source) if _NUMBA.CACHE_DIR and os.path.exists(source) else None


class _OfUser(UserWideCacheLocator):
    """The user's cache folder, writable or not."""

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _OfUser | None:
        """Return the place, unless the function has no file."""
        return cls(function, source) if os.path.exists(source) else None


def _cache_in(place: type) -> type[FunctionCache]:
    implementation = type("_Implementation", (CompileResultCacheImpl,), {"_locator_classes": [place]})
    return type("_CacheInOnePlace", (FunctionCache,), {"_impl_class": implementation})


_PLACES: Final = tuple(map(_cache_in, (_Named, Beside, _OfUser)))
"""Caches in the order of preference."""


@contextlib.contextmanager
def _passed_over_where_it_fails(cache: Any) -> Iterator[None]:  # noqa: ANN401 - numba has no type for it
    """Pass over a place that cannot be used; forget its code if it is damaged, as by a power failure."""
    try:
        yield
    except OSError:
        pass
    except (EOFError, pickle.UnpicklingError):
        with contextlib.suppress(OSError):
            cache.flush()


class CodeCache(_Cache):
    """The machine code of one function; see `numba.core.caching.Cache`."""

    kept = True
    """Whether code compiled by this process is kept: false once no place could be written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Find the places of a function; nothing is created."""
        self.caches: list[Any] = []
        for place in _PLACES:
            with contextlib.suppress(RuntimeError):  # not a place of this function
                self.caches.append(place(function))

    @property
    def cache_path(self) -> str | None:
        """Folder that code would be written to first; None without any."""
        return self.caches[0].cache_path if self.caches else None

    def has(self, sig: Any, codegen: Any) -> bool:  # noqa: ANN401 - numba's types
        """Return whether a place that can be read has the code for argument types."""
        for cache in self.caches:
            with _passed_over_where_it_fails(cache):
                if cache._index_key(sig, codegen) in cache._cache_file._load_index():
                    return True
        return False

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401 - as numba has it
        """Return the code for argument types from the first place that has it, or None."""
        for cache in self.caches:
            with _passed_over_where_it_fails(cache):
                found = cache.load_overload(sig, target_context)
                if found is not None:
                    return found
        return None

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401 - as numba has it
        """Write code to the first place that takes it."""
        for cache in self.caches:
            with _passed_over_where_it_fails(cache):  # read-only, full, or another user's
                cache.save_overload(sig, data)
                return
        CodeCache.kept = False

    def enable(self) -> None:
        """Use the cache."""
        for cache in self.caches:
            cache.enable()

    def disable(self) -> None:
        """Do not use the cache."""
        for cache in self.caches:
            cache.disable()

    def flush(self) -> None:
        """Forget the code in all places."""
        for cache in self.caches:
            cache.flush()


def writable_folder(function: Callable[..., Any]) -> str | None:
    """Return the folder that the code of a function can be written to; None if there is none."""
    for cache in CodeCache(function).caches:
        with contextlib.suppress(OSError):
            cache._impl.locator.ensure_cache_path()
            return str(cache.cache_path)
    return None


def set_target(name: str | None) -> None:
    """Compile for a level of `PORTABLE` from here on, or for this machine's processor; before the first loop.

    NUMBA_CPU_NAME, numba's own variable, overrules it.
    """
    if "NUMBA_CPU_NAME" in os.environ:
        return
    _NUMBA.CPU_NAME = name
    _NUMBA.CPU_FEATURES = None if name is None else ""


def supports(name: str) -> bool:
    """Return whether this machine's processor has the instructions of a level of `PORTABLE`."""
    features = binding.get_host_cpu_features()
    return all(features.get(feature, False) for feature in PORTABLE[name])


def stored_target() -> str | None:
    """Return the level that `shelfwise compile` was last called for; None for the processor of its machine.

    The last call need not have written to the preferred place: in an image that one is read-only.
    """
    found: list[tuple[int, str]] = []
    for folder in _target_folders():
        file = folder / _TARGET_FILE
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append((file.stat().st_mtime_ns, str(json.loads(file.read_text())["target"])))
    _, name = max(found, key=lambda each: each[0], default=(0, ""))
    return name if name in PORTABLE else None


def store_target(name: str | None) -> None:
    """Keep what code is made for, so that later processes look for such code."""
    for folder in _target_folders():
        with contextlib.suppress(OSError):
            (folder / _TARGET_FILE).write_text(json.dumps({"target": name}))
            return


def _target_folders() -> list[Path]:
    return [Path(cache.cache_path) for cache in CodeCache(use_stored_target).caches]


def use_stored_target() -> None:
    """Compile for the level that `stored_target` returns, if this processor has it; before the first loop."""
    name = stored_target()
    if name is not None and supports(name):
        set_target(name)
