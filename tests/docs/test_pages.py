"""The pages say what the program does: settings exist, defaults are right, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

import shelfwise_client
from conf.commands import TABLE
from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import PipelineConfig
from conf.sweep_schema import SweepConfig
from features.data.pipeline_step import plain
from shelfwise import split_command
from tuning.space import read_space

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    *sorted(
        p.relative_to(ROOT).as_posix()
        for folder in ("docs", "benchmarks")
        for p in (ROOT / folder).rglob("*.md")
    ),
]
FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SETTINGS = "docs/reference/settings.md"
PATH = re.compile(
    r"`((?:conf|features|encoders|ranking|serving|tuning|tests|benchmarks|examples|docs)/[\w./-]*)`"
)
LOGS = ("CHANGELOG.md", "benchmarks/results.md", "benchmarks/experiments.md")
"""Pages that name things as they were."""


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def commands(page: str) -> list[str]:
    """`shelfwise ...` lines of a page's code blocks, without prompts, comments and output."""
    found = []
    for _, language, block in FENCE.findall(text_of(page)):
        if language not in ("", "console"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ").partition("   # ")[0].partition("  # ")[0].strip()
            if re.match(r"shelfwise (-m )?[a-z]", command):
                found.append(command)
    return found


DOCUMENTED = [(page, command) for page in PAGES for command in commands(page)]


def test_commands_are_found() -> None:
    assert len(DOCUMENTED) > 20
    assert {page for page, _ in DOCUMENTED} >= {"README.md", "docs/training.md", "docs/operations.md"}


@pytest.mark.parametrize(("page", "command"), DOCUMENTED, ids=[f"{p}: {c[:60]}" for p, c in DOCUMENTED])
def test_every_documented_command_is_accepted(page: str, command: str) -> None:
    words = shlex.split(command)[1:]
    if "text_encoder.max_step=300" in words:  # shown with the error that it gives
        with pytest.raises(InputError, match="did you mean 'max_steps'"):
            compose_command("run", words[1:])
        return
    name, rest = split_command(words)
    overrides = [w for w in rest if "=" in w and w not in ("experiment=long", "experiment=towers")]
    swept = "-m" in words
    if "hydra/sweeper=optuna" in words or any(w.startswith("sweep=") for w in words):
        assert swept
        assert name == "run"
        space = read_space([w for w in overrides if not w.startswith("hydra")])
        assert {key.partition("=")[0] for key in overrides if key.startswith("hydra.sweeper.")} <= {
            f"hydra.sweeper.{field.name}" for field in fields(SweepConfig)
        }
        compose_command(name, [*space.fixed, *(f"{k}={one_value(d)}" for k, d in space.searched.items())])
        return
    taken = []  # together, as they are typed: some settings need each other
    for override in overrides:
        key, _, value = override.partition("=")
        if swept and "," in value:
            override = f"{key}={value.split(',')[0]}"
        if "${hydra:" not in value:
            taken.append(override)
    compose_command(name, taken)


def one_value(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return str(distribution.choices[0])
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return str(distribution.low)


def schema_defaults(config: object, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if hasattr(value, "__dataclass_fields__"):
            found |= schema_defaults(value, f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = plain(value)
    return found


def documented_defaults() -> dict[str, str]:
    """Return key -> default as written in the reference's part for training."""
    part = text_of(SETTINGS).partition("## Training and evaluation\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| .+? \| `(.*?)` \|", part, re.MULTILINE)
    return dict(rows)


def test_documented_defaults_are_the_real_ones() -> None:
    real, said = schema_defaults(PipelineConfig()), documented_defaults()
    assert said.keys() == real.keys()
    wrong = {k: (v, real[k]) for k, v in said.items() if _value(v.lower()) != _value(str(real[k]).lower())}
    assert wrong == {}


def _value(text: str) -> Any:
    value = yaml.safe_load("null" if text == "none" else text)
    try:
        return float(value) if not isinstance(value, bool) else value
    except (TypeError, ValueError):
        return value


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in LINK.findall(FENCE.sub("", text_of(page))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page}: {target}"


@pytest.mark.parametrize("page", [p for p in PAGES if p not in LOGS])
def test_paths_that_are_named_exist(page: str) -> None:
    gone = [path for path in PATH.findall(text_of(page)) if not (ROOT / path).exists()]
    assert gone == []


def test_the_readme_names_every_command_and_every_page() -> None:
    readme = text_of("README.md")
    assert [c for c in TABLE if f"`shelfwise {c}`" not in readme] == []
    assert [p for p in PAGES if p != "README.md" and f"({p})" not in readme] == []


def test_the_make_targets_that_are_documented_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {t for page in PAGES for t in re.findall(r"(?:`|^)make ([a-z-]+)", text_of(page), re.MULTILINE)}
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md", "clients/python/README.md"])
def test_python_examples_import_and_call_what_there_is(page: str) -> None:
    blocks = [b for _, language, b in FENCE.findall(text_of(page)) if language == "python"]
    assert blocks
    for block in blocks:
        compile(block, page, "exec")
    imports = re.findall(r"^from shelfwise_client import (.+)$", "\n".join(blocks), re.MULTILINE)
    assert imports
    names = {name.strip() for line in imports for name in line.split(",")}
    assert names <= set(shelfwise_client.__all__)
    methods = set(re.findall(r"\bclient\.(\w+)\(", "\n".join(blocks)))
    assert methods
    assert [m for m in methods if not callable(getattr(shelfwise_client.Client, m, None))] == []
