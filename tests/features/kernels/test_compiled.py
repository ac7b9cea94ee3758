from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.kernels.ahead import Combination
from features.kernels.code_cache import CodeCache
from features.kernels.compiled import LOOPS, compiled

SOURCE = """
def doubled(values):
    return values * 2.0
"""


class Loops:
    """Functions of one source file, each a new process's view of it."""

    def __init__(self, folder: Path) -> None:
        self.source, self.kept = folder / "loops.py", folder / "__pycache__"
        self.source.write_text(SOURCE)

    def doubled(self) -> object:
        """Return numba's dispatcher after one call, without code in memory from before."""
        names: dict[str, object] = {"__name__": "loops"}
        exec(compile(SOURCE, str(self.source), "exec"), names)
        loop = compiled()(names["doubled"])  # type: ignore[type-var]
        assert loop(np.ones(2)).tolist() == [2.0, 2.0]  # type: ignore[operator]
        assert LOOPS.pop("loops.doubled") is loop
        return loop


@pytest.fixture
def loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loops:
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    monkeypatch.setattr(CodeCache, "kept", True)
    folder = tmp_path / "program"
    folder.mkdir()
    nowhere = tmp_path / "a file where a folder would have to be"
    nowhere.touch()
    monkeypatch.setenv("HOME", str(nowhere))
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere))
    return Loops(folder)


def misses(loop: object) -> int:
    return sum(loop.stats.cache_misses.values())  # type: ignore[attr-defined]


def close(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Make the folders read-only, for root too, who may write anywhere."""

    def refuse(locator: object) -> None:
        path = Path(locator.get_cache_path())  # type: ignore[attr-defined]
        if path in folders:
            raise OSError(30, "Read-only file system", str(path))
        path.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr("numba.core.caching._CacheLocator.ensure_cache_path", refuse)


def test_machine_code_is_made_once_and_kept_beside_the_source(loops: Loops) -> None:
    assert misses(loops.doubled()) == 1
    assert len(list(loops.kept.glob("*.nbi"))) == 1
    assert misses(loops.doubled()) == 0
    assert CodeCache.kept


def test_where_machine_code_cannot_be_kept_it_is_made_anew(
    loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops.kept.touch()
    assert misses(loops.doubled()) == 1
    assert misses(loops.doubled()) == 1
    assert not CodeCache.kept


def test_kept_code_is_used_where_nothing_can_be_written(
    loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops.doubled()
    close(monkeypatch, loops.kept)
    assert misses(loops.doubled()) == 0


def test_code_beside_the_source_for_another_processor_leaves_the_users_folder(
    loops: Loops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as builder:
        builder.setattr(
            "numba.core.codegen.JITCPUCodegen.magic_tuple", lambda self: ("a triple", "another CPU", "")
        )
        loops.doubled()  # as the builder of an image did
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    close(monkeypatch, loops.kept)
    assert misses(loops.doubled()) == 1
    assert len(list(home.rglob("*.nbi"))) == 1
    assert misses(loops.doubled()) == 0


def test_a_named_folder_comes_first(loops: Loops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "named"))
    loops.doubled()
    assert len(list((tmp_path / "named").rglob("*.nbi"))) == 1
    assert not loops.kept.exists()


def test_an_index_that_cannot_be_read_is_passed_over(loops: Loops) -> None:
    """A server that another account's folder keeps out compiles; it does not fail at its start."""
    loop: Any = loops.doubled()
    assert Combination("loops.doubled", loop, loop.signatures[0]).kept
    [index] = loops.kept.glob("*.nbi")
    index.unlink()
    index.mkdir()
    assert not Combination("loops.doubled", loop, loop.signatures[0]).kept
    assert misses(loops.doubled()) == 1


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 20])
def test_code_that_a_power_failure_has_torn_is_made_anew(loops: Loops, kind: str, left: int) -> None:
    loop: Any = loops.doubled()
    [file] = loops.kept.glob(f"*.{kind}")
    file.write_bytes(file.read_bytes()[:left])
    if kind == "nbi":
        assert not Combination("loops.doubled", loop, loop.signatures[0]).kept
        file.write_bytes(b"")
    assert misses(loops.doubled()) == 1
    assert misses(loops.doubled()) == 0
    assert CodeCache.kept
