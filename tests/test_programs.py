"""A group of tests whose program is missing is named, with what gets it, and fails where all have to run."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests import programs


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.delenv(programs.ALL_TESTS, raising=False)
    monkeypatch.delenv("SHELFWISE_CHROMIUM", raising=False)


@pytest.mark.parametrize(
    ("find", "group", "command"),
    [
        (programs.redis_server, "state in Redis", "apt-get install redis-server"),
        (programs.node, "clients/node", "apt-get install nodejs npm"),
        (programs.npm, "clients/node", "apt-get install nodejs npm"),
        (programs.chromium, "the explorer", "apt-get install chromium chromium-driver"),
    ],
)
def test_a_missing_program_is_one_line_and_a_failure_in_ci(
    bare_machine: None, monkeypatch: pytest.MonkeyPatch, find: Callable[[], object], group: str, command: str
) -> None:
    with pytest.raises(pytest.skip.Exception) as left_out:
        find()
    said = str(left_out.value)
    assert said.startswith(f"{group} is not tested")
    assert ": no " in said
    assert said.endswith(f"get it with: {command}")
    assert "\n" not in said
    monkeypatch.setenv(programs.ALL_TESTS, "1")
    with pytest.raises(pytest.fail.Exception, match=command):
        find()


def test_the_machines_own_programs_serve_where_there_is_no_wheel(
    bare_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert programs.redis_server() == "/usr/bin/redis-server"
    assert (programs.node(), programs.npm()) == ("/usr/bin/node", ["/usr/bin/npm"])
    assert programs.chromium() == ("/usr/bin/chromium", "/usr/bin/chromedriver")
    monkeypatch.setenv("SHELFWISE_CHROMIUM", "/opt/browser")
    assert programs.chromium() == ("/opt/browser", "/usr/bin/chromedriver")


def test_what_the_dev_extra_brings_runs() -> None:
    node = subprocess.run([programs.node(), "--version"], capture_output=True, text=True, check=True)
    assert int(node.stdout.removeprefix("v").partition(".")[0]) >= 18
    redis = subprocess.run([programs.redis_server(), "--version"], capture_output=True, text=True, check=True)
    assert redis.stdout.startswith("Redis server v=")
