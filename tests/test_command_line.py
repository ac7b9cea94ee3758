from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import get_type_hints

import pytest
from omegaconf import OmegaConf

import shelfwise
from conf.commands import TABLE
from conf.schema import PipelineConfig
from features.data.pipeline_step import plain
from ranking.bundle.store import current_version
from serving.transport.api_keys import KeyRing, Scope

ROOT = Path(__file__).parents[1]


class EndedError(Exception):
    """What a command came to."""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the front door in this process; return the exit code."""
    monkeypatch.setattr(sys, "argv", ["shelfwise", *arguments])
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        shelfwise.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:  # Hydra's write to a captured stream, which is closed after the test
        root.handlers[:] = handlers
        root.setLevel(level)
    return 0


WRONG = {
    "unknown command": (["prepar"], "unknown command 'prepar'; did you mean 'prepare'?"),
    "unknown key": (["run", "data.item=x.csv"], "unknown config key 'data.item'; did you mean 'items'?"),
    "added key": (["run", "+data.item=x.csv"], "unknown config key 'data.item'; did you mean 'items'?"),
    "wrong type": (["run", "seed=soon"], "seed=soon: Value 'soon'"),
    "bad range": (["run", "split.test_fraction=3"], "split fractions must lie between 0 and 1"),
    "unknown option": (["run", "split=globaltime"], "did you mean 'global_time'?"),
    "no table named": (["prepare"], "data.items is not set"),
    "missing file": (["prepare", "data.items=none.csv"], "data.items: no such file: none.csv"),
    "missing file in run": (["run", "data.items=none.csv"], "data.items: no such file: none.csv"),
    "nothing to inspect": (
        ["inspect"],
        "inspect: which files? e.g. shelfwise inspect products.csv orders.csv",
    ),
    "no file to inspect": (["inspect", "none[1].csv"], "inspect: no such file: none[1].csv"),
    "no dataset to train on": (["train-encoder"], "no dataset.json here; run `shelfwise prepare` first"),
    "no dataset to rank on": (["train-ranker"], "no dataset.json here"),
    "no dataset to publish": (["publish"], "no dataset.json here"),
    "no dataset to evaluate": (["evaluate"], "no dataset.json here"),
    "no bundle to serve": (["serve"], "work/artifacts"),
    "no bundle to export": (["export"], "CURRENT: no such file; publish a bundle first"),
    "no events to export": (["export", "events"], "state.sqlite: no such file, so nothing was recorded"),
    "no bundle to roll back": (["rollback"], "CURRENT: no such file; publish a bundle first"),
    "no scope": (["create-key", "scopes=[everything]"], "scopes: there is no scope 'everything'"),
    "one file of two": (["serve", "tls.key=server.key"], "tls.certificate and tls.key need each other"),
    "no server": (["recommend", "address=127.0.0.1:1", "timeout=20"], "no server answers at 127.0.0.1:1"),
    "markup in a value": (["run", "data.items='[bold]x[/bold].csv'"], "no such file: [bold]x[/bold].csv"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_exit_code_2_and_nothing_written(
    case: str, empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = WRONG[case]
    assert call(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("shelfwise: ")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in err + out
    assert list(empty.iterdir()) == []


def test_a_bad_value_is_found_before_a_sweep_starts_a_job(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "prepare", "-m", "split.test_fraction=2,3") == 2
    assert "split fractions must lie between 0 and 1" in capsys.readouterr().err
    assert not (empty / "work").exists()


def test_several_runs_under_a_launcher_are_refused(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setitem(shelfwise.COMMANDS, "run", lambda _: pytest.fail("a run was started"))
    assert call(monkeypatch, "-m", "run", "seed=0,1", "devices=0") == 2
    assert capsys.readouterr().err == (
        "shelfwise: -m does not work under a launcher; `shelfwise -m run devices=0 ...` without it trains on "
        "every GPU of this machine\n"
    )
    assert not list(empty.iterdir())


def test_a_search_without_m_is_not_taken_for_a_run(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for argument in ("sweep=towers", "hydra/sweeper=optuna"):
        assert call(monkeypatch, "run", argument) == 2
        assert "a search for settings needs -m" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config-dir", "mine", "-m", "run", "seed=1,2"],
        ["run", "seed=1,2", "--config-dir", "mine", "-m"],
        ["-m", "run", "--config-dir", "mine", "seed=1,2"],
    ],
)
def test_flags_may_stand_anywhere(arguments: list[str]) -> None:
    command, rest = shelfwise.split_command(arguments)
    assert command == "run"
    assert rest[-1] == "seed=1,2"
    assert rest[rest.index("--config-dir") + 1] == "mine"
    assert "-m" in rest


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("index: {gpu: true}", "config key 'index.gpu' is gone: set device=cuda, device=cpu or device=auto"),
        ("index: {gpus: true}", "In 'experiment/mine': ConfigKeyError raised while composing config"),
        ("seed: abc", "Value 'abc' of type 'str' could not be converted to Integer full_key: seed"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(
    line: str, message: str, empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "experiment").mkdir()
    (empty / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{line}\n")
    assert call(monkeypatch, "run", "--config-dir", str(empty), "experiment=mine") == 2
    err = capsys.readouterr().err
    assert err.startswith("shelfwise: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("arguments", [["-m"], ["-m", "seed=1"], ["--cfg", "job"]])
def test_flags_alone_are_no_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 2
    assert "which command?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out and command.help in out for name, command in TABLE.items())


@pytest.mark.parametrize("command", TABLE)
def test_every_command_names_a_function_of_a_configuration_and_a_console(command: str) -> None:
    function = resolve_name(TABLE[command].function)
    parameters = list(inspect.signature(function).parameters.values())
    assert [p.name for p in parameters[:2]] == ["config", "console"]
    assert all(p.default is not p.empty for p in parameters[2:])
    assert get_type_hints(function)["config"] is TABLE[command].schema


def test_no_command_shows_the_usage_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch) == 2
    assert capsys.readouterr().out.startswith("usage: shelfwise")


def test_cfg_prints_every_key_and_runs_nothing(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "run", "seed=7", "--cfg", "job") == 0
    out = capsys.readouterr().out
    assert OmegaConf.to_container(OmegaConf.create(out)) == plain(replace(PipelineConfig(), seed=7))
    assert list(empty.iterdir()) == []


def test_a_command_gets_its_typed_configuration(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setitem(shelfwise.COMMANDS, "publish", seen.append)
    assert call(monkeypatch, "publish", "work_dir=elsewhere", "split=leave_one_out") == 0
    [config] = seen
    assert isinstance(config, PipelineConfig)
    assert config.work_dir == "elsewhere"
    assert config.split.kind.value == "leave_one_out"
    assert list(empty.iterdir()) == []


def test_the_installed_module_ends_with_the_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shelfwise", "prepare", "data.items=none.csv"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("shelfwise: data.items: no such file: none.csv")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_export_copies_the_encoder_once(
    trained: PipelineConfig, empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = Path(trained.work_dir) / "artifacts"
    assert call(monkeypatch, "export", f"artifacts={artifacts}", "output=model") == 0
    source = artifacts / "versions" / current_version(artifacts) / "text_encoder"
    for path in source.rglob("*"):
        if path.is_file():
            assert (empty / "model" / path.relative_to(source)).read_bytes() == path.read_bytes()
    capsys.readouterr()
    assert call(monkeypatch, "export", f"artifacts={artifacts}", "output=model") == 2
    assert capsys.readouterr().err == "shelfwise: output=model: already exists; name a new folder\n"


def test_rolling_back_without_an_earlier_version_changes_nothing(
    trained: PipelineConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = Path(trained.work_dir) / "artifacts"
    before = current_version(artifacts)
    assert call(monkeypatch, "rollback", f"artifacts={artifacts}") == 2
    assert f"no version before {before} to roll back to" in capsys.readouterr().err
    assert current_version(artifacts) == before


def test_a_key_is_printed_once_and_lets_its_holder_in(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "create-key", "name=shop", "scopes=[read]", "requests_per_second=5") == 0
    secret = capsys.readouterr().out.split()[-1]
    assert secret not in (empty / "keys.json").read_text()
    found = KeyRing(empty / "keys.json").find(secret)
    assert found is not None
    assert (found.name, found.scopes) == ("shop", (Scope.read,))
    assert call(monkeypatch, "create-key", "name=shop") == 2


def test_inspect_takes_files_without_a_key(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "my items.csv").write_text("sku,name\n1,Red boots\n2,Blue hat\n")
    assert call(monkeypatch, "inspect", "my items.csv", "rows=1", "work_dir=work/hats") == 0
    printed = capsys.readouterr().out
    assert "1 rows looked at, there are more" in printed
    command = printed.splitlines()[-1]
    assert command == (
        "shelfwise run 'data.items=my items.csv' 'data.columns={title: name, items.item_id: sku}' "
        "work_dir=work/hats"
    )
    assert sorted(path.name for path in empty.iterdir()) == ["my items.csv"]
