"""Exactly one build of FAISS; packages as they lie on disk, made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import shelfwise
from conf.commands import TABLE
from conf.errors import InputError
from conf.faiss_package import require_faiss

NO_FAISS_NEEDED = (
    "features.prepare", "encoders.training.train", "serving.server", "serving.workers",
    "serving.cli.recommend", "serving.cli.recommend_batch", "serving.cli.export_events",
    "serving.transport.api_keys", "ranking.bundle.store",
)  # fmt: skip
"""Modules of the commands that run without it, and of a server's front process."""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that packages are looked for in; FAISS is not loaded."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    return tmp_path


def install(packages: Path, name: str, version: str = "1.15.1", files: bool = True) -> None:
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (packages / "faiss").mkdir(exist_ok=True)
    if files:
        (packages / "faiss" / "__init__.py").write_text("raise AssertionError('imported')\n")


def refusal() -> str:
    with pytest.raises(InputError) as caught:
        require_faiss()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs"])
def test_one_build_is_enough_and_is_not_imported(packages: Path, name: str) -> None:
    install(packages, name)
    require_faiss()
    assert "faiss" not in sys.modules


def test_one_without_a_package_of_a_known_name_will_do(packages: Path) -> None:
    """As made from source, or by conda."""
    with pytest.raises(InputError, match="FAISS is not installed"):
        require_faiss()
    install(packages, "libfaiss-from-source")
    require_faiss()
    assert "faiss" not in sys.modules


def test_none_says_what_to_install(packages: Path) -> None:
    assert refusal() == (
        "FAISS is not installed: pip install 'shelfwise[cpu]', or 'shelfwise[gpu]' where there is a CUDA GPU"
    )


def test_two_say_what_to_remove_and_what_to_install(packages: Path) -> None:
    install(packages, "faiss-cpu")
    install(packages, "faiss-gpu", "1.14.3")
    assert refusal() == (
        "FAISS is installed 2 times, faiss-cpu 1.15.1 and faiss-gpu 1.14.3, in one folder: "
        "pip uninstall -y faiss-cpu faiss-gpu, then "
        "pip install 'shelfwise[cpu]', or 'shelfwise[gpu]' where there is a CUDA GPU"
    )


def test_what_is_left_when_one_of_two_is_removed_is_installed_again(packages: Path) -> None:
    install(packages, "faiss-gpu", files=False)
    assert refusal().endswith("pip install --force-reinstall --no-deps faiss-gpu==1.15.1")


def test_every_command_that_needs_it_refuses_before_it_does_anything(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in shelfwise.COMMANDS:
        monkeypatch.setitem(shelfwise.COMMANDS, command, lambda config: 1.0)
    for command in shelfwise.COMMANDS:
        if TABLE[command].needs_faiss:
            with pytest.raises(InputError, match="FAISS is not installed"):
                shelfwise.execute(command, None)
        else:
            assert shelfwise.execute(command, None) == 1.0


def test_what_runs_without_it_does_not_import_it() -> None:
    code = f"import sys, {', '.join(NO_FAISS_NEEDED)}; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
