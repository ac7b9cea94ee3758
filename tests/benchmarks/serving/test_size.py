"""The size of a server's environment: what is counted, and that nothing which a server needs is left out."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import pytest

from benchmarks.serving import size as measured
from benchmarks.serving.size import closure, link, program_files, pruned, size


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(2**20))
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_bytes(bytes(2**19))
    assert size([tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "gone"]) == 1.5


def test_a_distribution_is_linked_whole(tmp_path: Path) -> None:
    link("lark", tmp_path)
    files = [file for file in importlib.metadata.distribution("lark").files or [] if ".." not in file.parts]
    there = [file for file in files if Path(str(file.locate())).is_file()]
    assert len(there) > 20
    assert all((tmp_path / str(file)).is_file() for file in there)


def test_what_needs_a_pruned_distribution_stays_without_it() -> None:
    assert {"sympy", "networkx", "huggingface-hub"} <= pruned()
    assert {"sympy", "mpmath", "networkx"} <= closure({"torch"})
    assert not {"sympy", "mpmath", "networkx"} & closure({"torch"}, pruned())


def test_the_program_is_what_a_wheel_has() -> None:
    found = {path.relative_to(measured.ROOT).as_posix() for path in program_files()}
    assert {"shelfwise.py", "conf/serve.yaml", "clients/python/shelfwise_client/client.py"} <= found
    assert not [name for name in found if name.startswith(("tests/", "benchmarks/", "docs/"))]


def test_what_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measured, "listed", lambda _: {"lark", "no-such-distribution"})
    assert measured.main(["--work-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "size: not installed here: no-such-distribution; run make install-dev\n"
