"""The front door: `shelfwise <command> [overrides]`."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would fight torch's
logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # says which CPU build it tried

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.markup import escape  # noqa: E402

from conf.compose import ROOTS, compose_command, in_one_line, register, to_typed  # noqa: E402
from conf.errors import InputError  # noqa: E402
from conf.faiss_package import require_faiss  # noqa: E402

CONSOLE = Console()
ERRORS = Console(stderr=True)

USAGE = """usage: shelfwise <command> [key=value ...]

  inspect          look at files, say what they are and which command reads them
  run              prepare, train, refit, publish and evaluate; unchanged stages are skipped
  prepare          read and check raw tables, write the dataset
  train-encoder    fine-tune the text encoder, train item and user towers
  train-ranker     train the ranking head
  refit            train once more on what validation held back
  publish          write a bundle and make it current
  evaluate         measure against the baselines, write metrics and a report
  serve            answer over gRPC from the current bundle
  recommend        ask a running server from the terminal
  recommend-batch  write the lists of many users to a file, for a campaign
  create-key       make an API key for a server
  export           copy the fine-tuned text encoder out of the current bundle
  export-events    write the events that servers have recorded as a table for the next training
  rollback         make an earlier bundle current again
  demo             start a server on a copy of a finished run and show what it does

`shelfwise <command> --cfg job` prints every key of a command with its value; `-m` sweeps over several values,
`shelfwise -m run hydra/sweeper=optuna ...` searches for the best ones.
"""


def _inspect(config: Any) -> None:  # noqa: ANN401 - the command's root config
    from features.inspection.report import inspect

    inspect(config, CONSOLE)


def _prepare(config: Any) -> None:  # noqa: ANN401 - the command's root config
    from features.prepare import prepare

    prepare(config, CONSOLE)


def _train_encoder(config: Any) -> None:  # noqa: ANN401
    from encoders.training.train import train_encoder

    train_encoder(config, CONSOLE)


def _train_ranker(config: Any) -> None:  # noqa: ANN401
    from ranking.training.train import train_ranker

    train_ranker(config, CONSOLE)


def _refit(config: Any) -> None:  # noqa: ANN401
    from ranking.pipeline.refit import refit

    refit(config, CONSOLE)


def _publish(config: Any) -> None:  # noqa: ANN401
    from ranking.pipeline.publish import publish

    publish(config, CONSOLE)


def _evaluate(config: Any) -> None:  # noqa: ANN401
    from ranking.pipeline.run import evaluate

    evaluate(config, CONSOLE)


def _run(config: Any) -> float | None:  # noqa: ANN401
    from ranking.pipeline.run import run

    return run(config, CONSOLE)


def _serve(config: Any) -> None:  # noqa: ANN401
    from serving.workers import run_workers, worker_number

    if config.workers > 1 and worker_number() is None:
        code = run_workers(config, sys.argv, CONSOLE)
        if code:
            sys.exit(code)
        return
    from serving.server import serve

    serve(config, CONSOLE)


def _recommend(config: Any) -> None:  # noqa: ANN401
    from serving.cli.recommend import recommend

    recommend(config, CONSOLE)


def _recommend_batch(config: Any) -> None:  # noqa: ANN401
    from serving.cli.recommend_batch import recommend_batch

    recommend_batch(config, CONSOLE)


def _create_key(config: Any) -> None:  # noqa: ANN401
    from pathlib import Path

    from serving.transport.api_keys import create_key

    path = Path(config.keys)
    secret = create_key(path, config.name, config.scopes, config.requests_per_second, config.burst)
    CONSOLE.print(
        f"added '{config.name}' to {path}; the key is shown this once:", markup=False, soft_wrap=True
    )
    CONSOLE.print(secret, markup=False, highlight=False, soft_wrap=True)


def _export(config: Any) -> None:  # noqa: ANN401
    from ranking.bundle.export import export

    export(config, CONSOLE)


def _export_events(config: Any) -> None:  # noqa: ANN401
    from serving.cli.export_events import export_events

    export_events(config, CONSOLE)


def _demo(config: Any) -> None:  # noqa: ANN401
    from serving.cli.demo import demo

    demo(config, CONSOLE)


def _rollback(config: Any) -> None:  # noqa: ANN401
    from pathlib import Path

    from ranking.bundle.store import roll_back

    version = roll_back(Path(config.artifacts), config.version)
    CONSOLE.print(f"current is {version}; running servers go over to it", soft_wrap=True)


COMMANDS: dict[str, Callable[[Any], float | None]] = {
    "inspect": _inspect,
    "prepare": _prepare,
    "train-encoder": _train_encoder,
    "train-ranker": _train_ranker,
    "refit": _refit,
    "publish": _publish,
    "evaluate": _evaluate,
    "run": _run,
    "serve": _serve,
    "recommend": _recommend,
    "recommend-batch": _recommend_batch,
    "create-key": _create_key,
    "export": _export,
    "export-events": _export_events,
    "rollback": _rollback,
    "demo": _demo,
}
assert COMMANDS.keys() == ROOTS.keys()
NEED_FAISS = {"run", "train-ranker", "refit", "publish", "evaluate", "serve", "export", "demo"}
"""Commands that read or build an index, in this process or in one that they start."""

VALUED_FLAGS = (
    "--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn",
)  # fmt: skip
"""Hydra's flags that take the next argument as their value."""


def execute(command: str, config: Any) -> float | None:  # noqa: ANN401
    """Run a command.

    Raises:
        InputError: something that the user gave is wrong.

    """
    if command in NEED_FAISS:
        require_faiss()
    threads = getattr(config, "threads", 0)
    if threads and command != "serve":  # which sees to it in the thread that does the work
        import torch

        torch.set_num_threads(threads)
        if command in NEED_FAISS:
            import faiss

            faiss.omp_set_num_threads(threads)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and hasattr(config, "devices"):
        from encoders.training.launch import lead

        return lead(lambda: COMMANDS[command](config), config.devices)
    return COMMANDS[command](config)


def fail(error: InputError) -> NoReturn:
    """Print an input error and exit."""
    ERRORS.print(f"[bold red]shelfwise:[/bold red] {escape(str(error))}", soft_wrap=True)
    sys.exit(2)


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Find the command; Hydra's flags may stand before it, as in `shelfwise -m run ...`.

    Returns:
        The command, and its arguments with the flags first: Hydra reads overrides on one side of flags only.

    Raises:
        InputError: no command, or one that does not exist.

    """
    place = 0
    while place < len(arguments) and arguments[place].startswith("-"):
        place += 2 if arguments[place] in VALUED_FLAGS else 1
    if place >= len(arguments) or "=" in arguments[place]:
        raise InputError("which command? see shelfwise --help")
    command, after = arguments[place], place + 1
    if "-".join(arguments[place : place + 2]) in COMMANDS:  # `export events` is `export-events`
        command, after = "-".join(arguments[place : place + 2]), place + 2
    if command not in COMMANDS:
        from conf.errors import closest

        raise InputError(f"unknown command '{command}'{closest(command, COMMANDS)}; see shelfwise --help")
    flags: list[str] = []
    overrides: list[str] = []
    after_flag = False
    for argument in (*arguments[:place], *arguments[after:]):
        is_flag = argument.startswith("-")
        (flags if is_flag or after_flag or "=" not in argument and argument[:1] != "~" else overrides).append(
            argument
        )
        after_flag = is_flag and argument in VALUED_FLAGS
    return command, [*flags, *overrides]


def through_hydra(command: str, arguments: Sequence[str]) -> None:
    """Run a command with Hydra's own flags: sweeps, --cfg, --info and the rest.

    Raises:
        InputError: what a search for settings cannot work with.

    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register()
    sys.argv = [f"shelfwise {command}", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = (
        "1"  # let errors through; Hydra would print a shortened traceback instead
    )

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name=command)
    def job(config: DictConfig) -> float | None:
        return execute(command, to_typed(config))

    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        raise in_one_line(error, command) from error


def main() -> None:
    """Dispatch `shelfwise <command> ...`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file follows the run, line by line
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        CONSOLE.print(USAGE, markup=False, highlight=False, soft_wrap=True)
        sys.exit(0 if arguments else 2)
    try:
        command, rest = split_command(arguments)
        if command == "inspect":
            from features.inspection.report import file_arguments

            rest = file_arguments(rest)
        if any(a.startswith("-") for a in rest):
            through_hydra(command, rest)
            return
        if any(a.startswith(("sweep=", "hydra/sweeper=")) for a in rest):
            raise InputError(f"a search for settings needs -m: shelfwise -m {command} ...")
        execute(command, compose_command(command, rest))
    except InputError as error:
        fail(error)


if __name__ == "__main__":
    main()
