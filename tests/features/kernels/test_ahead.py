"""Loops that are compiled before their first call."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from numba import typeof as _typeof
from numba import types
from rich.console import Console

from conf.errors import InputError
from conf.operating import CompileConfig
from features.kernels import ahead, code_cache
from features.kernels.ahead import combinations, compile_ahead, prepare_loops, read, written
from features.kernels.compiled import LOOPS

typeof: Any = _typeof
ROOT = Path(__file__).parents[3]


class Pair(NamedTuple):
    """What a loop may take."""

    values: npt.NDArray[np.float64]
    length: int


VALUES = [
    (np.zeros(3, np.float32), "float32[::1]"),
    (np.zeros((2, 3), np.int64), "int64[:, ::1]"),
    (np.zeros((4, 6), np.int8)[::2, ::2], "int8[:, :]"),
    (np.zeros(2, np.bool_), "boolean[::1]"),
    (True, "boolean"),
    (3, "int64"),
    (0.5, "float64"),
    ((1, 2, 3), "UniTuple(int64, 3)"),
    (Pair(np.zeros(1), 1), f"NamedTuple((float64[::1], int64,), '{__name__}:Pair')"),
]


@pytest.mark.parametrize(("value", "text"), VALUES)
def test_types_are_written_as_numba_writes_them_and_read_back(value: object, text: str) -> None:
    assert written(typeof(value)) == text
    assert read(text) == (typeof(value),)


def test_a_type_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(ValueError, match="no form for"):
        written(types.unicode_type)
    read_only = np.zeros(1)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="no form for"):
        written(typeof(read_only))


def test_the_list_names_functions_that_exist_and_types_in_their_own_form() -> None:
    listed = json.loads(ahead.SIGNATURES.read_text())
    found: dict[str, list[str]] = {}
    for each in combinations():
        assert each.loop is LOOPS[each.name]
        found.setdefault(each.name, []).append(", ".join(map(written, each.arguments)))
    assert found == listed
    assert len(found) > 20


@pytest.fixture
def one_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of one loop, whose code is in a folder of the test; returns the folder."""
    listed = tmp_path / "signatures.json"
    listed.write_text(json.dumps({"features.kernels.hash_table.empty_table": ["int64"]}))
    monkeypatch.setattr(ahead, "SIGNATURES", listed)
    return tmp_path / "code"


def run(code: str, folder: Path, listed: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a new process with a list of loops, which keeps machine code in a folder."""
    prelude = (
        "from pathlib import Path; from features.kernels import code_cache; "
        "code_cache._PLACES = code_cache._PLACES[:1]; "  # not beside the program, which tests share
        "from features.kernels import ahead; "
        f"ahead.SIGNATURES = Path({str(listed)!r}); "
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code],
        cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )


PREPARE = (
    "ahead.prepare_loops(); "
    "print([sum(each.loop.stats.cache_misses.values()) for each in ahead.combinations()])"
)
COMPILE = (
    "from rich.console import Console; from conf.operating import CompileConfig; "
    "ahead.compile_ahead(CompileConfig({target!r}), Console())"
)


def test_a_server_compiles_nothing_after_the_command_and_says_nothing(one_loop: Path) -> None:
    cold = run(PREPARE, one_loop / "other", ahead.SIGNATURES)
    assert cold.stdout == "[1]\n"
    assert cold.stderr.count("\n") == 1
    assert "compiling 1 loops for " in cold.stderr
    assert f"once, as the code is kept in folders like {one_loop / 'other'}" in cold.stderr
    compiled = run(COMPILE.format(target=None), one_loop, ahead.SIGNATURES)
    assert compiled.stdout.startswith("compiled 1 loops for ")
    warm = run(PREPARE, one_loop, ahead.SIGNATURES)
    assert warm.stdout == "[0]\n"
    assert warm.stderr == ""
    again = run(COMPILE.format(target=None), one_loop, ahead.SIGNATURES)
    assert again.stdout.startswith("nothing to do: 1 are kept in folders like ")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
def test_code_for_a_level_is_found_by_later_processes(one_loop: Path) -> None:
    compiled = run(COMPILE.format(target="x86-64-v2"), one_loop, ahead.SIGNATURES)
    assert compiled.stdout.startswith("compiled 1 loops for x86-64-v2 in ")
    warm = run(PREPARE, one_loop, ahead.SIGNATURES)
    assert (warm.stdout, warm.stderr) == ("[0]\n", "")
    # a machine below the level compiles for its own processor instead of crashing
    below = run(
        f"code_cache.supports = lambda name: False; code_cache.set_target(None); {PREPARE}",
        one_loop,
        ahead.SIGNATURES,
    )
    assert below.stdout == "[1]\n"
    assert "x86-64-v2" not in below.stderr


def test_the_last_call_of_the_command_counts_wherever_it_could_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image may have code for its builder's processor in a read-only place that comes first."""
    folders = [tmp_path / "beside", tmp_path / "user"]
    monkeypatch.setattr(code_cache, "_target_folders", lambda: folders)
    assert code_cache.stored_target() is None
    for when, (folder, target) in enumerate(zip(folders, (None, "x86-64-v3"), strict=True)):
        folder.mkdir()
        (folder / "target.json").write_text(json.dumps({"target": target}))
        os.utime(folder / "target.json", (when, when))
    assert code_cache.stored_target() == "x86-64-v3"
    os.utime(folders[0] / "target.json", (9, 9))
    assert code_cache.stored_target() is None
    (folders[0] / "target.json").write_text("torn")
    assert code_cache.stored_target() == "x86-64-v3"


def test_where_nothing_can_be_kept_a_start_says_so_with_the_fix(
    one_loop: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ahead.Combination, "kept", property(lambda self: False))
    monkeypatch.setattr(code_cache, "writable_folder", lambda function: None)
    with caplog.at_level(logging.WARNING):
        prepare_loops()
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("compiling 1 loops for ")
    assert "about 1 s of CPU time: at every start, as it can be kept nowhere (" in line
    assert f"{ROOT / 'features' / 'kernels' / '__pycache__'} cannot be written" in line
    assert "run `shelfwise compile` once as a user who may" in line


def test_the_command_refuses_what_it_cannot_do(one_loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "supports", lambda name: False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(InputError, match="lacks instructions of x86-64-v4; choose a lower one"):
        compile_ahead(CompileConfig("x86-64-v4"), Console(quiet=True))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(InputError, match="x86-64-v3 is x86-64, this machine is aarch64; leave it out"):
        compile_ahead(CompileConfig("x86-64-v3"), Console(quiet=True))
    monkeypatch.setattr(code_cache, "writable_folder", lambda function: None)
    with pytest.raises(InputError, match="nowhere to keep compiled code"):
        compile_ahead(CompileConfig(), Console(quiet=True))
    with pytest.raises(InputError, match="target must be"):
        CompileConfig("x86-64-v9")
