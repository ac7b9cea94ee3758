"""Compiled loops before their first call: `shelfwise compile`, and what a server does before it forks.

numba compiles a loop once per combination of argument types. Those that a server uses are listed in
`signatures.json`, by the name of the function, so that neither a bundle nor a request is needed to compile.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final, cast

import numba
from llvmlite import binding
from numba import types
from rich.console import Console

from conf.errors import InputError
from conf.operating import CompileConfig
from features.kernels import code_cache
from features.kernels.code_cache import CodeCache
from features.kernels.compiled import LOOPS

_LOG = logging.getLogger(__name__)
SIGNATURES: Final = Path(__file__).parent / "signatures.json"
"""Function -> the combinations of argument types that servers call it with."""
_SECONDS_EACH: Final = 1.0
"""CPU seconds to compile one combination on a server of 2024, the functions that it calls included."""


@dataclass(frozen=True)
class Combination:
    """One function with one combination of argument types."""

    name: str
    loop: Any
    """numba's dispatcher."""
    arguments: tuple[types.Type, ...]

    @property
    def kept(self) -> bool:
        """Whether its machine code for this processor is in a place that it is loaded from."""
        return bool(self.loop._cache.has(self.arguments, self.loop.targetctx.codegen()))


def written(kind: types.Type) -> str:
    """Return a type in the form of `signatures.json`.

    Raises:
        ValueError: a kind of type that has no such form.

    """
    if isinstance(kind, types.Array) and kind.mutable and kind.aligned and kind.layout in "CA":
        axes = [":"] * kind.ndim
        if kind.layout == "C":
            axes[-1] = "::1"
        return f"{written(kind.dtype)}[{', '.join(axes)}]"
    if isinstance(kind, types.NamedTuple):
        parts = ", ".join(map(written, kind.types))
        owner = kind.instance_class
        return f"NamedTuple(({parts},), '{owner.__module__}:{owner.__qualname__}')"
    if isinstance(kind, types.UniTuple):
        return f"UniTuple({written(kind.dtype)}, {kind.count})"
    if isinstance(kind, types.Boolean):
        return "boolean"
    if isinstance(kind, types.Number) and not isinstance(kind, types.Literal):
        return str(kind.name)
    raise ValueError(f"no form for {kind!r}")


def _named_tuple(parts: Iterable[types.Type], name: str) -> types.Type:
    return cast(types.Type, types.NamedTuple(tuple(parts), resolve_name(name)))  # type: ignore[no-untyped-call]


def read(text: str) -> tuple[types.Type, ...]:
    """Return the argument types that a list of `signatures.json`, joined by commas, stands for."""
    names = {**vars(types), "NamedTuple": _named_tuple, "__builtins__": {}}
    return tuple(eval(f"({text},)", names))  # noqa: S307 - our own file


def combinations() -> Iterator[Combination]:
    """Return all listed combinations; imports the modules of the functions."""
    for name, texts in json.loads(SIGNATURES.read_text()).items():
        importlib.import_module(name.rpartition(".")[0])
        for text in texts:
            yield Combination(name, LOOPS[name], read(text))


def used() -> dict[str, list[str]]:
    """Return the combinations that this process has compiled or loaded, as `signatures.json` lists them.

    A literal argument occurs only between functions, which are compiled with their callers.
    """
    found: dict[str, list[str]] = {}
    for name, loop in LOOPS.items():
        for arguments in loop.signatures:
            with contextlib.suppress(ValueError):
                found.setdefault(name, []).append(", ".join(map(written, arguments)))
    return {name: sorted(texts) for name, texts in sorted(found.items())}


def prepare_loops() -> None:
    """Load the listed combinations, and compile those without kept code, so that no request waits for it.

    If any are compiled, a line is logged first, with the folder and what would avoid it.
    """
    everything = list(combinations())
    missing = [each for each in everything if not each.kept]
    if missing:
        _LOG.warning("%s", _announcement(missing))
    for each in everything:
        each.loop.compile(each.arguments)


def _announcement(missing: list[Combination]) -> str:
    folder = code_cache.writable_folder(missing[0].loop.py_func)
    seconds = max(1, round(_SECONDS_EACH * len(missing)))
    line = f"compiling {len(missing)} loops for {target_name()}, about {seconds} s of CPU time: "
    if folder is not None:
        return f"{line}once, as the code is kept in folders like {folder}"
    beside = Path(missing[0].loop.py_func.__code__.co_filename).parent / "__pycache__"
    return (
        f"{line}at every start, as it can be kept nowhere ({beside} cannot be written); run "
        "`shelfwise compile` once as a user who may, or set NUMBA_CACHE_DIR to a folder that it may write"
    )


def target_name() -> str:
    """Return what code is made for: a level of x86-64, or the name of this processor."""
    return str(numba.config.CPU_NAME or binding.get_host_cpu_name())  # type: ignore[attr-defined]


def compile_ahead(config: CompileConfig, console: Console) -> None:
    """Compile all listed combinations and keep their code, for servers that start later.

    Raises:
        InputError: a level that is not of this kind of processor, or nowhere to keep the code.

    """
    if config.target is not None and platform.machine() not in ("x86_64", "AMD64"):
        raise InputError(
            f"target: {config.target} is x86-64, this machine is {platform.machine()}; leave it out"
        )
    if config.target is not None and not code_cache.supports(config.target):
        raise InputError(
            f"target: this machine's processor ({binding.get_host_cpu_name()}) lacks instructions of "
            f"{config.target}; choose a lower one, or leave it out"
        )
    code_cache.set_target(config.target)
    everything = list(combinations())
    folder = code_cache.writable_folder(everything[0].loop.py_func)
    if folder is None:
        raise InputError(
            "nowhere to keep compiled code: neither the folders beside the program nor a home can be "
            "written; run this as a user who may, or set NUMBA_CACHE_DIR to a folder"
        )
    missing, started = [each for each in everything if not each.kept], time.process_time()
    for each in missing:
        each.loop.compile(each.arguments)
    code_cache.store_target(config.target)
    if not CodeCache.kept:
        raise InputError(
            f"{folder}: the compiled code could not be written; free disk space, and repeat this"
        )
    seconds = time.process_time() - started
    done = (
        f"compiled {len(missing)} loops for {target_name()} in {seconds:.1f} s"
        if missing
        else "nothing to do"
    )
    console.print(
        f"{done}: {len(everything)} are kept in folders like {folder}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
