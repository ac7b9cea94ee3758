"""The systemd units: read by systemd itself, hardened, and with the limits that the program needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conf.composition.compose import compose_command
from tests.deploy.command_lines import of
from tests.deploy.manifests import DEPLOY, ROOT, joined
from tests.programs import deploy_program

UNITS = DEPLOY / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
LARGEST_EXPOSURE = 1.5
"""Of systemd-analyze's scale from 0 to 10; without hardening a service has 9.6."""


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in joined((UNITS / unit).read_text()):
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a copy of the units whose program exists on this machine."""
    for path in UNITS.iterdir():
        text = path.read_text().replace("/opt/shelfwise/bin/shelfwise", shutil.which("true") or "/bin/true")
        (tmp_path / path.name).write_text(text)
    return tmp_path


def test_systemd_reads_them_without_a_word(units: Path) -> None:
    analyze = deploy_program("systemd-analyze", "apt-get install systemd")
    files = [str(path) for path in sorted(units.iterdir()) if path.suffix in (".service", ".timer")]
    command = [analyze, "verify", "--man=no", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    (units / "shelfwise.service").write_text("[Service]\nExecStart=/bin/true\nMemoryMost=1G\n")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Unknown key 'MemoryMost'" in done.stderr.replace("key name", "key")


@pytest.mark.parametrize("unit", SERVICES)
def test_services_are_hardened(unit: str) -> None:
    analyze = deploy_program("systemd-analyze", "apt-get install systemd")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(UNITS / unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= LARGEST_EXPOSURE


@pytest.mark.parametrize("unit", SERVICES)
def test_paths_that_are_written_can_be_written(unit: str) -> None:
    """With ProtectSystem=strict everything else is read-only."""
    found = settings(unit)
    assert found["ProtectSystem"] == ["strict"]
    writable = " ".join(found["ReadWritePaths"]).split()
    writable += [f"/var/lib/{name}" for name in found.get("StateDirectory", [])]
    writable += [f"/var/log/{name}" for name in found.get("LogsDirectory", [])]
    words = of(f"systemd/{unit}")
    written = [
        value
        for key, _, value in (word.partition("=") for word in words)
        if key in ("artifacts", "audit", "state", "work_dir", "output")
    ]
    assert len(written) >= (1 if unit == "shelfwise-fetch.service" else 2)
    assert [p for p in written if not any(p == w or p.startswith(f"{w}/") for w in writable)] == []


def test_the_server_drains_before_it_is_killed() -> None:
    found = settings("shelfwise.service")
    words = of("systemd/shelfwise.service")
    config: Any = compose_command("serve", words[1:])
    assert float(found["TimeoutStopSec"][0]) >= config.drain_seconds + 10
    assert found["KillMode"] == ["mixed"]  # the server drains, and ends its model processes itself
    assert found["OOMPolicy"] == ["continue"]  # a model process that the kernel ends is replaced


def test_decisions_of_retrain_are_no_failures() -> None:
    found = settings("shelfwise-retrain.service")
    assert found["SuccessExitStatus"] == ["10 11 13"]
    assert found["RestartPreventExitStatus"] == ["2 12"]
    # Retried twice, as elsewhere: a unit has failed, and starts OnFailure=, after the last retry alone.
    assert (found["StartLimitBurst"], found["StartLimitIntervalSec"]) == (["3"], ["12h"])
    assert found["Type"] == ["oneshot"]


def test_fetch_is_not_started_again_with_a_wrong_setting() -> None:
    found = settings("shelfwise-fetch.service")
    assert (found["Restart"], found["RestartPreventExitStatus"]) == (["on-failure"], ["2"])
    assert found["MemoryMax"] == ["512M"]
    config: Any = compose_command("fetch", of("systemd/shelfwise-fetch.service")[1:])
    assert config.remote == "s3://shelfwise/store"
    # Parts of 8 MiB at once, the program itself (100 MB), and room.
    assert config.parallel * 8 + 2 * 100 < 512
    server = of("systemd/shelfwise.service")
    assert f"artifacts={config.artifacts}" in server  # what is fetched is what is served


@pytest.mark.parametrize("timer", sorted(path.name for path in UNITS.glob("*.timer")))
def test_a_timer_has_its_service_and_a_time(timer: str) -> None:
    assert timer.replace(".timer", ".service") in SERVICES
    analyze = deploy_program("systemd-analyze", "apt-get install systemd")
    command = [analyze, "calendar", settings(timer)["OnCalendar"][0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_prepares_the_watch_of_the_first_run() -> None:
    """A watched server that does not answer, or refuses a call without a key, is a fault of the run."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    (block,) = re.findall(r"^## systemd\n\n```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    steps = (
        "create-key name=retrain 'scopes=[read]'",
        "chmod 640 /etc/shelfwise/keys.json",  # create-key leaves the file to its owner alone
        "SHELFWISE_API_KEY=",
        "systemctl enable --now shelfwise.service",
        "systemctl start shelfwise-retrain.service",
        "systemctl enable --now shelfwise-retrain.timer",
    )
    places = [block.index(step) for step in steps]
    assert places == sorted(places)
