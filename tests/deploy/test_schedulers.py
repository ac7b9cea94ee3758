"""cron and Airflow: exit codes end as an operator expects; systemd and Kubernetes have tests of their own."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.deploy.command_lines import airflow_command
from tests.deploy.manifests import DEPLOY

RUN = DEPLOY / "cron" / "run.sh"


def run(tmp_path: Path, script: str, secrets: str = "") -> subprocess.CompletedProcess[str]:
    """Run a shell script in place of the program, as cron would."""
    program, file = tmp_path / "shelfwise", tmp_path / "secrets.env"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    file.write_text(secrets)
    return subprocess.run(
        [str(RUN), str(program), "retrain", "data=files"],
        env={"PATH": os.environ["PATH"], "SHELFWISE_SECRETS": str(file)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("code", [0, 11, 13])
def test_cron_is_silent_where_nobody_has_to_look(tmp_path: Path, code: int) -> None:
    done = run(tmp_path, f"echo many lines; exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_cron_mails_a_line_about_a_refusal(tmp_path: Path) -> None:
    done = run(tmp_path, "echo first; echo 'refused: ndcg@10 fell by 9%'; exit 10")
    assert (done.returncode, done.stdout) == (
        0,
        "shelfwise retrain: not published. refused: ndcg@10 fell by 9%\n",
    )


@pytest.mark.parametrize("code", [1, 2, 12])
def test_cron_mails_everything_about_a_failure(tmp_path: Path, code: int) -> None:
    done = run(tmp_path, f"echo first; echo reason >&2; exit {code}")
    assert done.returncode == code
    assert done.stdout == f"shelfwise retrain ended with {code}:\nfirst\nreason\n"


def test_cron_passes_secrets_and_arguments_on(tmp_path: Path) -> None:
    secrets = "# a remark\nSHELFWISE_API_KEY=a b'c=d\nPATH=/nowhere\nSHELFWISE_TOKEN_KEY=last"
    done = run(tmp_path, 'echo "$SHELFWISE_API_KEY $SHELFWISE_TOKEN_KEY $*"; exit 1', secrets)
    assert done.stdout.splitlines()[1:] == ["a b'c=d last retrain data=files"]


def test_cron_names_secrets_that_it_cannot_read(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.write_text("SHELFWISE_API_KEY=a")
    secrets.chmod(0o000)
    command = [str(RUN), "/bin/true", "retrain"]
    if os.getuid() == 0:  # who reads everything, but for these capabilities
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "SHELFWISE_SECRETS": str(secrets)},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.startswith(f"shelfwise retrain: {secrets} cannot be read by ")


def test_cron_lines_have_a_time_a_user_and_no_percent() -> None:
    lines = [
        line for line in (DEPLOY / "cron" / "shelfwise").read_text().splitlines() if "/shelfwise " in line
    ]
    assert len(lines) == 2
    for line in lines:
        assert re.match(r"(\d+|\*) (\d+|\*) \* \* \* shelfwise /usr/local/lib/shelfwise/run\.sh ", line)
        assert "%" not in line  # cron ends the command there


class Skip(Exception):  # noqa: N818 - the name of Airflow's
    pass


class Fail(Exception):  # noqa: N818
    pass


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the DAG's module, with stand-ins for what it imports from Airflow."""
    made: list[dict[str, Any]] = []

    class Recorder:
        def __init__(self, **settings: Any) -> None:
            made.append(settings)

        def __enter__(self) -> Recorder:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    modules: dict[str, dict[str, type]] = {
        "airflow": {},
        "airflow.sdk": {"DAG": Recorder},
        "airflow.sdk.exceptions": {"AirflowSkipException": Skip, "AirflowFailException": Fail},
        "airflow.providers": {},
        "airflow.providers.standard": {},
        "airflow.providers.standard.operators": {},
        "airflow.providers.standard.operators.python": {"PythonOperator": Recorder},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    path = DEPLOY / "airflow" / "shelfwise_retrain.py"
    spec = importlib.util.spec_from_file_location("shelfwise_retrain", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    loaded.__dict__["made"] = made
    return loaded


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [
        (10, Skip, "refused by the gate or the checks of the data: why"),
        (11, Skip, "too little new data: why"),
        (13, Skip, "another run holds the lock: why"),
        (2, Fail, "invalid input: why"),
        (12, Fail, "published, then rolled back: why"),
        (1, RuntimeError, "exit code 1: why"),
        (143, RuntimeError, "exit code 143: why"),
    ],
)
def test_airflow_skips_fails_or_tries_again(dag: Any, code: int, expected: type, said: str) -> None:
    with pytest.raises(expected) as raised:
        dag.retrain(["sh", "-c", f"echo first; echo why; exit {code}"])
    assert type(raised.value) is expected
    assert str(raised.value) == said
    dag.retrain(["sh", "-c", "echo published"])


def test_the_program_ends_with_its_task(dag: Any, tmp_path: Path) -> None:
    """Airflow raises in the task where its timeout is over, and where it is ended."""

    def timeout(*_: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, timeout)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            dag.retrain(["sh", "-c", f"echo $$ >{tmp_path / 'pid'}; exec sleep 20"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert time.monotonic() - began < 10
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_airflow_runs_one_at_a_time(dag: Any) -> None:
    outer, task = dag.made
    assert (outer["max_active_runs"], outer["catchup"], outer["schedule"]) == (1, False, "30 2 * * *")
    assert task["op_args"] == [dag.COMMAND] == [airflow_command()]
