"""What `make install` installs, and what the two files of exact versions say."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.MULTILINE)


def recipe(tmp_path: Path, cards: str, *arguments: str) -> str:
    """Return the commands of `make install` where nvidia-smi lists these cards."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{cards}'\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "FAISS"} | {"PATH": path}
    command = ["make", "-n", "install", f"VENV={tmp_path}/venv", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout


CARD = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2)"


@pytest.mark.parametrize(
    ("cards", "arguments", "build", "why"),
    [
        ("", (), "cpu", "because nvidia-smi -L lists no card"),
        (CARD, (), "gpu", "because nvidia-smi -L lists GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)"),
        (CARD, ("FAISS=cpu",), "cpu", "because FAISS=cpu says so"),
        ("NVIDIA-SMI has failed", (), "cpu", "because nvidia-smi -L lists no card"),
    ],
    ids=["no card", "two cards", "a card that is not wanted", "a broken driver"],
)
def test_the_build_that_fits_the_machine_is_installed_and_the_other_removed(
    tmp_path: Path, cards: str, arguments: tuple[str, ...], build: str, why: str
) -> None:
    made = recipe(tmp_path, cards, *arguments)
    assert f"installing shelfwise[{build}] and what it needs" in made
    assert why in made
    constraints = {"cpu": "constraints.txt", "gpu": "constraints-gpu.txt"}[build]
    assert f"-c {constraints} -e '.[{build},xlsx,baselines,sweep,map,explorer,experiments]'" in made
    assert set(re.findall(r"-c (\S+)", made)) == {constraints}
    assert f"pip show -q faiss-{'gpu' if build == 'cpu' else 'cpu'}" in made


def test_the_versions_for_a_gpu_are_those_for_a_cpu_and_more() -> None:
    cpu = dict(PIN.findall((ROOT / "constraints.txt").read_text()))
    text = (ROOT / "constraints-gpu.txt").read_text()
    gpu = dict(PIN.findall(text))
    assert "\n-c constraints.txt\n" in text
    assert cpu.keys() & gpu.keys() == set()
    assert gpu["faiss-gpu"] == cpu["faiss-cpu"]
    others = {name for name in gpu if not name.startswith(("nvidia-", "cuda-"))}
    assert others == {"faiss-gpu", "triton"}
